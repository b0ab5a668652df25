"""udp-echo: a packet each millisecond, which the guest sends back with its own time on it.

It is the plainest workload: its outage is the pause as a client sees it, and its stamps show for how long
after the resume what the guest writes down is dated wrongly. With target: peer it asks another guest of the
same host, which is not frozen.
"""

from __future__ import annotations

from collections.abc import Mapping

from lab.core.method import Regime
from lab.core.setup import Ready, ReadyKind, SetupFile, SetupService, SetupSpec
from lab.core.workload.prediction import Threshold
from lab.core.workload.shipped.base import Options, ShippedWorkload, WorkloadGuest
from lab.core.workload.shipped.option_values import one_of
from lab.core.workload.spec import WorkloadExpect

PORT = 7007
TARGETS = ("frozen", "peer")
FROZEN, PEER = "echo-0", "echo-1"

SERVER = f"""\
import socket, time
door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
door.bind(("", {PORT}))
while True:
    data, who = door.recvfrom(2048)
    door.sendto(data + b" %d" % int(time.time() * 1e9), who)
"""

UNIT = """\
[Unit]
Description=UDP echo with the time
[Service]
ExecStart=/usr/bin/python3 -u /usr/local/lib/udp-echo.py
"""


def _guests(options: Options) -> tuple[WorkloadGuest, ...]:
    setup = SetupSpec(
        files=(
            SetupFile("/usr/local/lib/udp-echo.py", content=SERVER),
            SetupFile("/etc/systemd/system/udp-echo.service", content=UNIT),
        ),
        services=(SetupService("udp-echo", Ready(ReadyKind.COMMAND, f"grep -q :{PORT:04X} /proc/net/udp")),),
    )
    frozen, peer = WorkloadGuest(FROZEN, setup), WorkloadGuest(PEER, setup, is_peer=True)
    target = one_of({"target": "frozen", **options}, "target", TARGETS)
    return (frozen,) if target == "frozen" else (frozen, peer)


def _predict(config: Mapping[str, str], options: Options, regime: Regime) -> tuple[Threshold, ...]:
    if options.get("target") == "peer":
        return (Threshold("outage", None, "it is not frozen"),)
    # It has no timer of its own: it is out for the pause, and for no longer.
    return (Threshold("outage", None, "it has no timer; it is out for as long as the pause"),)


ECHO = ShippedWorkload(
    name="udp-echo",
    about="A packet each 10 ms, sent back by the guest with its time on it (target: peer: by another guest)",
    guests=_guests,
    client="udp_echo",
    period_ns=10_000_000,
    expect=WorkloadExpect(beyond_pause_ns=1_000_000_000),
    config="cat /usr/local/lib/udp-echo.py",
    predict=_predict,
    options=(("target", "frozen"),),
)
