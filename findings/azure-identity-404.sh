#!/bin/bash
# Azure's SDK asks a metadata service six times in 24 s when it answers 404 for a token, and once when it is 400.
#
# Package: azure-identity 1.27.0 (Python).
# Behaviour: ManagedIdentityCredential().get_token() on a metadata service that has no identities to give. With
#   400 {"error": "invalid_request", …} the error comes at once; with 404 and the same body it asks again at
#   once and after 1.6, 3.2, 6.4 and 12.8 s, and then it is the same error.
# Surprise: 404 is what a service answers that has no such path, and it is final nearly everywhere: HTTP clients
#   repeat 429 and 5xx. So the plain and honest answer of a metadata service that only does without identities
#   (an emulator, a proxy, a machine outside of Azure) costs every program half a minute at its start.
# Seen on 2026-11-28:
#     400: CredentialUnavailableError after 1 request, 0.1 s
#     404: CredentialUnavailableError after 6 requests, 24.3 s
# In the product: /metadata/identity/oauth2/token answers 400 (docs/scheduled-events.md).
# Exit: 0 as described, 1 changed, 2 could not be tried.
cd "$(dirname "$0")" && . ./common.sh

pip_fetch azure-identity==1.27.0

cat >"$WORK/try.py" <<'EOF'
import http.server, logging, os, threading, time

class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    status, requests = 0, 0

    def do_GET(self) -> None:
        Service.requests += 1
        body = b'{"error": "invalid_request", "error_description": "Identity not found"}'
        self.send_response(Service.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
threading.Thread(target=server.serve_forever, daemon=True).start()
# The variable that puts another host in the place of 169.254.169.254.
os.environ["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = f"http://127.0.0.1:{server.server_port}"
logging.disable()

from azure.identity import ManagedIdentityCredential

for Service.status in (400, 404):
    Service.requests, began, outcome = 0, time.monotonic(), "a token"
    try:
        ManagedIdentityCredential().get_token("https://example.invalid/.default")
    except Exception as error:
        outcome = type(error).__name__
    lasted, plural = time.monotonic() - began, "s" if Service.requests > 1 else ""
    print(f"{Service.status}: {outcome} after {Service.requests} request{plural}, {lasted:.1f} s", flush=True)
EOF
env -u http_proxy -u HTTP_PROXY PYTHONPATH="$WORK/python" python3 "$WORK/try.py" | tee "$WORK/seen"

[ "$(sed 's/, .*//' "$WORK/seen")" = "400: CredentialUnavailableError after 1 request
404: CredentialUnavailableError after 6 requests" ] || changed "see above"
