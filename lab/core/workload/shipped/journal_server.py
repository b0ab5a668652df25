"""A small server in a guest that tells what only the guest knows: journals of times, the boot, its own time.

It answers a UDP packet {"number": …, "have": {NAME: lines of that journal that the asker has, …}} with
{"asked": that, "now": CLOCK_REALTIME, "boot": …, "lines": {NAME: [further lines, at most 40], …}}. A line of
a journal is a number of nanoseconds since 1970, 19 digits, so that a journal's length tells how many it has.
"""

from __future__ import annotations

from lab.core.setup import Ready, ReadyKind, SetupFile, SetupService

JOURNAL_PORT = 7008
MOST_LINES = 40

_SERVER = f"""\
import json, os, socket, time
boot = open("/proc/sys/kernel/random/boot_id").read()[:8]
door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
door.bind(("", {JOURNAL_PORT}))
while True:
    data, who = door.recvfrom(2048)
    try:
        asked = json.loads(data)
        answer = {{"asked": asked, "boot": boot, "lines": {{}}}}
        for name, have in asked["have"].items():
            path = "/run/lab-" + name
            count = min({MOST_LINES}, max(0, os.stat(path).st_size // 20 - have))
            lines = []
            if count:
                with open(path) as file:
                    file.seek(20 * have)
                    lines = [int(file.readline()) for _ in range(count)]
            answer["lines"][name] = lines
        answer["now"] = time.time_ns()
        door.sendto(json.dumps(answer).encode(), who)
    except (OSError, ValueError, KeyError):
        pass
"""

_UNIT = """\
[Unit]
Description=Tells the state of this guest
[Service]
ExecStart=/usr/bin/python3 -u /usr/local/lib/lab-journals.py
[Install]
WantedBy=multi-user.target
"""

JOURNAL_SERVER = (
    SetupFile("/usr/local/lib/lab-journals.py", content=_SERVER),
    SetupFile("/etc/systemd/system/lab-journals.service", content=_UNIT),
)


def journal_service() -> SetupService:
    """The server's unit."""
    return SetupService(
        "lab-journals", Ready(ReadyKind.COMMAND, f"grep -q :{JOURNAL_PORT:04X} /proc/net/udp")
    )
