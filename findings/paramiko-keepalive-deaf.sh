#!/bin/bash
# paramiko's keepalive notices nothing: a connection whose peer stands still stays "active" for good.
#
# Package: paramiko 5.1.0 (Python).
# Behaviour: Transport.set_keepalive(1) sends a message each second, asks for no answer, and counts none. With the
#   server stopped (SIGSTOP, as a frozen guest is) the transport is active after 12 unanswered ones, and a
#   blocking read waits on.
# Surprise: it is what ssh(1) has as ServerAliveInterval, and OpenSSH's ends a connection after three of them;
#   "keepalive" in paramiko only keeps a NAT's table from forgetting. While the peer's kernel lives, TCP
#   acknowledges all, so nothing ever ends it. A time limit on each read is what is needed.
# Seen on 2026-11-28:
#     server answers: active True
#     server stopped for 12 s, keepalive 1 s: active True, no exception
# In the product: nothing waits for a guest by keepalives; every wait has a limit, and what libvirt knows of a
#   guest cuts its connections (lab/guest/connections.py).
# Exit: 0 as described, 1 changed, 2 could not be tried.
cd "$(dirname "$0")" && . ./common.sh

pip_fetch paramiko==5.1.0

cat >"$WORK/server.py" <<'EOF'
import socket, sys, threading, time
import paramiko

class Open(paramiko.ServerInterface):
    def check_auth_none(self, username: str) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
link, _ = listener.accept()
transport = paramiko.Transport(link)
transport.add_server_key(paramiko.ECDSAKey.generate())
transport.start_server(server=Open())
while transport.is_active():
    time.sleep(0.5)
EOF
cat >"$WORK/client.py" <<'EOF'
import os, signal, subprocess, sys, time
import paramiko

server = subprocess.Popen([sys.executable, sys.argv[1]], stdout=subprocess.PIPE, text=True)
try:
    transport = paramiko.Transport(("127.0.0.1", int(server.stdout.readline())))
    transport.start_client(timeout=30)
    transport.auth_none("somebody")
    channel = transport.open_session(timeout=30)
    transport.set_keepalive(1)
    time.sleep(3)
    print("server answers: active", transport.is_active(), flush=True)
    os.kill(server.pid, signal.SIGSTOP)
    time.sleep(12)
    print("server stopped for 12 s, keepalive 1 s: active", transport.is_active(), end=", ")
    print(transport.get_exception() or "no exception")
finally:
    server.kill()
EOF
PYTHONPATH=$WORK/python python3 "$WORK/client.py" "$WORK/server.py" >"$WORK/seen" 2>"$WORK/log" ||
    cannot "$(tail -n 1 "$WORK/log")"
cat "$WORK/seen"

[ "$(cat "$WORK/seen")" = "server answers: active True
server stopped for 12 s, keepalive 1 s: active True, no exception" ] || changed "see above"
