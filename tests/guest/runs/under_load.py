"""Hands one guest over again and again, under load, inside the network namespace it is started in. Prints
what was seen as JSON. Usage: under_load.py HOME COUNT"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

from lab.core.method import FreezeMethod
from lab.core.plan import GuestSpec
from lab.core.units import NS_PER_S
from lab.guest.fill import Fill
from lab.hypervisor import memory
from lab.ports import Freezing
from tests.guest.conftest import Lab, running_lab

ADDRESS = "10.77.0.10"
ECHO = """
import socket
server = socket.create_server(("", 7))
peer, _ = server.accept()
while data := peer.recv(4096):
    peer.sendall(data)
"""
WRITER = """
import hashlib, os, sys
n, sums = 0, {}
while not os.path.exists("/run/stop"):
    block = hashlib.sha256(str(n).encode()).digest() * 2048
    with open("/root/load-%d" % (n % 16), "wb") as file:
        file.write(block)
        os.fsync(file.fileno())
    sums[n % 16] = block
    n += 1
os.system("echo 3 > /proc/sys/vm/drop_caches")
bad = [k for k, block in sums.items() if open("/root/load-%d" % k, "rb").read() != block]
print("%d written, %d bad" % (n, len(bad)))
"""


class Echo:
    """A TCP connection into the guest on which numbers go out and have to come back in order."""

    def __init__(self) -> None:
        self._socket = socket.create_connection((ADDRESS, 7), 30)
        self._socket.settimeout(60)
        self._stop = threading.Event()
        self.echoed, self.failure = 0, ""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                line = b"%15d\n" % self.echoed
                self._socket.sendall(line)
                got = b""
                while len(got) < len(line):
                    part = self._socket.recv(len(line) - len(got))
                    if not part:
                        raise ConnectionError("closed")
                    got += part
                if got != line:
                    raise ConnectionError(f"{got!r} instead of {line!r}")
                self.echoed += 1
                self._stop.wait(0.01)
        except OSError as error:
            self.failure = f"after {self.echoed}: {error}"

    def end(self) -> None:
        self._stop.set()
        self._thread.join(70)
        self._socket.close()


def held(home: Path) -> dict[str, int]:
    """What could leak."""
    return {
        "ram files": len(list(memory.folder(home).iterdir())),
        "sockets": len(list((home / "agents").iterdir())),
        "taps": len([name for name in os.listdir("/sys/class/net") if name.startswith("fl")]),  # noqa: PTH208
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
    }


def hand_over(lab: Lab, count: int, home: Path) -> dict[str, object]:
    freezing = Freezing(FreezeMethod.IN_PLACE)
    pauses, reasons, before = [], [], {}
    for number in range(count):
        lab.hypervisor.prepare("web-0", freezing)
        frozen = lab.hypervisor.freeze("web-0", freezing, lab.clock.now().raw_ns + 30 * NS_PER_S)
        resumed = lab.hypervisor.resume("web-0", freezing)
        lab.hypervisor.finish("web-0")
        reasons += [why for why in (frozen.why, resumed.why) if why]
        if frozen.call.event_real_ns and resumed.call.event_real_ns:
            pauses.append(resumed.call.event_real_ns - frozen.call.event_real_ns)
        if number == 0:
            before = held(home)
    after, until = held(home), time.monotonic() + 20
    while after != before and time.monotonic() < until:  # what is being closed on a busy machine
        time.sleep(0.2)
        after = held(home)
    return {
        "pauses_ns": pauses,
        "called_off": reasons,
        "before": before,
        "after": after,
        "domains": len(lab.hypervisor.list_lab_domains()),
    }


def main(home: Path, count: int) -> None:
    spec = GuestSpec("web-0", bridge="br0", address=f"{ADDRESS}/24")
    with running_lab(home, spec, shared_memory=True) as lab:
        ssh = lab.probe.ssh
        boot = lab.probe.facts().boot_id
        ssh.check(f"cat > /root/echo.py <<'E'\n{ECHO}\nE\nsetsid python3 /root/echo.py >/dev/null 2>&1 &")
        writer = f"cat > /root/writer.py <<'E'\n{WRITER}\nE\n"
        ssh.check(f"{writer}setsid python3 /root/writer.py >/root/written 2>&1 &")
        fill = Fill(lambda: lab.probe.ssh, 128 << 20).start()
        fill.wait()
        echo = Echo()
        reconnects = lab.probe.facts().reconnects
        seen = hand_over(lab, count, home)
        echo.end()
        ssh.check("touch /run/stop; while ! grep -q bad /root/written; do sleep 0.2; done", 120)
        after = lab.probe.facts()
        said = seen | {
            "echoed": echo.echoed,
            "echo_failed": echo.failure,
            "written": ssh.check("cat /root/written").strip(),
            "memory_ok": fill.verify().ok,
            "same_boot": after.boot_id == boot,
            "reconnects": after.reconnects - reconnects,
        }
    sys.stdout.write(f"{json.dumps(said)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
