"""A small server in a guest that answers what only a program in the guest can find out.

A packet is answered with a JSON object: what was asked (q), the guest's name (n), its REALTIME in ns (t), and
the state (s). The state is what a function state() returns, which each workload brings along.
"""

from __future__ import annotations

from lab.core.setup import Ready, ReadyKind, SetupFile, SetupService

PORT = 7009
UNIT_NAME = "lab-state"
_PATH = "/usr/local/lib/lab-state.py"

_SERVER = """\
import json, socket, time
def serve():
    name = socket.gethostname()
    door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    door.bind(("", {port}))
    while True:
        asked, who = door.recvfrom(64)
        now = state()
        answer = {{"q": asked.decode("ascii", "replace"), "n": name, "t": time.time_ns(), "s": now}}
        try:
            door.sendto(json.dumps(answer, separators=(",", ":")).encode(), who)
        except OSError:
            pass  # the card is down, or the queue is full
serve()
"""

_UNIT = f"""\
[Unit]
Description=The state of a workload, by UDP
[Service]
ExecStart=/usr/bin/python3 -u {_PATH}
Restart=always
"""


def state_files(state: str) -> tuple[SetupFile, ...]:
    """The server's files. state: Python 3.11 that defines state(), which returns names and values."""
    server = _SERVER.format(port=PORT)
    return (
        SetupFile(_PATH, content=f"{state}\n{server}"),
        SetupFile(f"/etc/systemd/system/{UNIT_NAME}.service", content=_UNIT),
    )


def state_service() -> SetupService:
    """Starts it."""
    return SetupService(UNIT_NAME, Ready(ReadyKind.COMMAND, f"grep -q :{PORT:04X} /proc/net/udp"))
