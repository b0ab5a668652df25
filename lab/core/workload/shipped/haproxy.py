"""haproxy: a load balancer with two servers, one in a guest of its own.

frozen: server (the default) freezes one of the servers: HAProxy's health checks find it down, or the pause is
over before; requests that are on their way to it wait. frozen: balancer freezes HAProxy itself: nobody is
there to find anything down, and its timers count what was left of them.

The other server is in the balancer's guest, so that the service could go on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

from lab.core.clock import Interval
from lab.core.method import Regime
from lab.core.setup import Ready, ReadyKind, SetupFile, SetupService, SetupSpec
from lab.core.units import NS_PER_MS, NS_PER_S, format_duration
from lab.core.workload.prediction import Threshold
from lab.core.workload.shipped.base import Options, ShippedWorkload, WorkloadGuest
from lab.core.workload.shipped.option_values import duration_ns, one_of, whole_number
from lab.core.workload.spec import WorkloadExpect

PORT, STATS, SERVER_PORT = 8080, 8404, 8000
FROZEN = ("server", "balancer")
BALANCER, SERVER, LOCAL = "lb-0", "app-0", "local"

CONFIG = """\
global
    log /dev/log local0
    maxconn 200
defaults
    mode http
    log global
    timeout connect 5s
    timeout client 50s
    timeout server 50s
    option httpchk GET /
frontend web
    bind :{port}
    default_backend app
frontend stats
    bind :{stats}
    stats enable
    stats uri /
backend app
    balance roundrobin
    server {server} {server}:{server_port} check inter {inter} fall {fall} rise {rise}
    server {local} 127.0.0.1:{server_port} check inter {inter} fall {fall} rise {rise}
"""

PROGRAM = f"""\
import http.server, socket
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = socket.gethostname().encode() + b"\\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *of):
        pass
class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *of):   # a check's connection is reset by HAProxy
        pass
Server(("", {SERVER_PORT}), Handler).serve_forever()
"""

UNIT = """\
[Unit]
Description=HTTP server
[Service]
ExecStart=/usr/bin/python3 -u /usr/local/lib/app.py
Restart=always
"""

_SERVICE = (
    SetupFile("/usr/local/lib/app.py", content=PROGRAM),
    SetupFile("/etc/systemd/system/app.service", content=UNIT),
)
_APP = SetupService("app", Ready(ReadyKind.PORT, str(SERVER_PORT)))


def _guests(options: Options) -> tuple[WorkloadGuest, ...]:
    frozen = one_of(options, "frozen", FROZEN)
    inter = duration_ns(options, "inter", 100 * NS_PER_MS, 600 * NS_PER_S) // NS_PER_MS
    config = CONFIG.format(
        port=PORT, stats=STATS, server=SERVER, server_port=SERVER_PORT, local=LOCAL, inter=f"{inter}ms",
        fall=whole_number(options, "fall", 1, 20), rise=whole_number(options, "rise", 1, 20),
    )  # fmt: skip
    balancer = SetupSpec(
        packages=("haproxy",),
        files=(*_SERVICE, SetupFile("/etc/haproxy/haproxy.cfg", content=config)),
        services=(_APP, SetupService("haproxy", Ready(ReadyKind.PORT, str(PORT)))),
    )
    server = SetupSpec(files=_SERVICE, services=(_APP,))
    return (
        WorkloadGuest(BALANCER, balancer, is_peer=frozen == "server"),
        WorkloadGuest(SERVER, server, is_peer=frozen == "balancer"),
    )


_TIME = re.compile(r"([0-9]+)(us|ms|s|m|h|d)?")
_UNITS = {"us": 1000, "": NS_PER_MS, "ms": NS_PER_MS, "s": NS_PER_S, "m": 60 * NS_PER_S, "h": 3600 * NS_PER_S}


def _time_ns(text: str) -> int:
    """A time of haproxy.cfg; without a unit it is in ms."""
    found = _TIME.fullmatch(text)
    return int(found[1]) * _UNITS.get(found[2] or "", 86400 * NS_PER_S) if found else 0


def check_of(config: str, server: str) -> tuple[int, int, int, int]:
    """inter, fall and rise of a server's check, and how long one check may take, in ns; as in haproxy.cfg,
    with HAProxy's defaults (configuration.txt, 5.2)."""
    line = re.search(rf"^\s*server\s+{re.escape(server)}\s.*$", config, re.MULTILINE)
    words = line[0].split() if line else []
    given = dict(pairwise(words))
    inter = _time_ns(given.get("inter", "2s"))
    connect = re.search(r"^\s*timeout\s+connect\s+(\S+)", config, re.MULTILINE)
    check = re.search(r"^\s*timeout\s+check\s+(\S+)", config, re.MULTILINE)
    # Without `timeout check` a whole check has to end within inter; with it, connecting within the smaller
    # of timeout connect and inter, and the answer within timeout check.
    takes = inter
    if check and connect:
        takes = min(_time_ns(connect[1]), inter) + _time_ns(check[1])
    return inter, int(given.get("fall", "3")), int(given.get("rise", "2")), takes


def _predict(config: Mapping[str, str], options: Options, regime: Regime) -> tuple[Threshold, ...]:
    source = "HAProxy's configuration.txt, 5.2"
    if options.get("frozen") == "balancer":
        why = "HAProxy does not check while it is frozen"
        return (Threshold(SERVER, None, why, source), Threshold(LOCAL, None, why, source))
    inter, fall, _, takes = check_of(config.get(BALANCER, ""), SERVER)
    # Up to inter until the first check that fails begins, or it is on its way; then each one times out, and
    # the next one begins inter later (findings/haproxy-hung-server.sh).
    low = fall * takes + (fall - 1) * inter - min(takes, inter)
    high = fall * takes + fall * inter + NS_PER_S
    because = f"inter {format_duration(inter)}, fall {fall}, a check takes at most {format_duration(takes)}"
    return (Threshold(SERVER, Interval(low, high), because, source), Threshold(LOCAL, None, "it runs on"))


HAPROXY = ShippedWorkload(
    name="haproxy",
    about="HTTP through HAProxy to two servers, of which one is frozen (or HAProxy, frozen: balancer)",
    guests=_guests,
    client="haproxy",
    period_ns=200 * NS_PER_MS,
    expect=WorkloadExpect(unchanged=(SERVER, LOCAL)),
    config="cat /etc/haproxy/haproxy.cfg 2>/dev/null || true",
    predict=_predict,
    options=(("frozen", "server"), ("inter", "2s"), ("fall", "3"), ("rise", "2")),
    formed=(
        f'test "$(hostname)" != {BALANCER} || test "$(curl -s \'http://127.0.0.1:{STATS}/;csv\' | '
        f"grep -c '^app,[al].*,UP,')\" = 2"
    ),
)
