"""One host of a fleet: the child process there that has its guests, and its clock.

Two connections: what is said to the child must not wait for readings of the clock. A host whose link is cut
is left alone, and asked for its record when the link is back.
"""

from __future__ import annotations

import base64
import binascii
import json
import shlex
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from lab.core.clock import Interval
from lab.core.offsets import Sample, offset_at
from lab.errors import FreezelabError, MachineError
from lab.guest.client import ChannelLines
from lab.hosts.hosts_file import HostEntry
from lab.hosts.link import SshLink, clock_readings, offset_point
from lab.process.clock import HostClock
from lab.record import EVENTS
from lab.session.rendezvous import ABOUT, FREEZE, GO, OFF, READY, SILENT_S, WAIT
from lab.threads import Worker

KEEP_S = SILENT_S / 4
SEND_S, FETCH_S = 120.0, 120.0
_FOR_EVER_S = 1e6
_RUNS = '"${FREEZELAB_HOME:-${XDG_STATE_HOME:-$HOME/.local/state}/freezelab}"/runs'


class FleetHost:
    """A host.

    run: the id of the child's run. about: what the child says of its host; {} until then. ready: the cycles
    for which the child has been ready. over: the child has ended, or the link is cut. cut: it is cut, or was.
    """

    def __init__(self, entry: HostEntry, run: str, clock: HostClock) -> None:
        self.entry, self.name, self.run = entry, entry.name, run
        self._clock = clock
        self._orders, self._readings = SshLink(entry, clock), SshLink(entry, clock)
        self._stack = ExitStack()
        self.about: dict[str, str] = {}
        self.ready, self.over, self.cut = 0, False, False
        self.status: int | None = None
        self.last_line = ""
        self._place = ""
        self._samples: list[Sample] = []
        self._keeping = threading.Event()
        self._lock = threading.Lock()

    def connect(self) -> None:
        """FreezelabError when the host is not reached."""
        for link in (self._orders, self._readings):
            self._stack.enter_context(link)
        self._probe = self._stack.enter_context(self._readings.probe())

    def close(self) -> None:
        """End the connections. Does not wait for a link that is cut."""
        with suppress(FreezelabError):
            self._stack.close()

    def start(self, packed: bytes, playbook: str, options: Sequence[str]) -> None:
        """Start the child. packed: the playbook's folder as a tar.gz. playbook: the file in it."""
        there = "umask 077; d=$(mktemp -d) && tar -C $d --no-same-owner -xzf - && echo $d"
        self._place = self._orders.shell(f"sh -c {shlex.quote(there)}", SEND_S, packed).strip()
        words = ["run", f"{self._place}/{playbook}", "--cell", self.name, "--run-id", self.run, "--agreed"]
        command = self.entry.command([*words, "--quiet", *options])
        step = f"echo $$ >{self._place}/.pid; {command}"
        self._child = self._orders.channel(f"exec sh -c {shlex.quote(step)}")
        self._child.set_combine_stderr(True)
        for work in (self._listen, self._keep):
            Worker(target=work, name=f"fleet-{self.name}", daemon=True).start()

    def _listen(self) -> None:
        lines = ChannelLines(self._child)
        try:
            while True:
                line = lines.read(time.monotonic() + _FOR_EVER_S).decode("utf-8", "replace").strip()
                if line.startswith(ABOUT):
                    self.about = _read(line.removeprefix(ABOUT))
                    self._keeping.set()
                elif line.startswith(READY):
                    self.ready += 1
                    self._keeping.set()
                elif line:
                    self.last_line = line.removeprefix("freezelab: ")
        except (EOFError, OSError):
            self.cut = not self._orders.is_open
            if not self.cut:
                self.status = self._child.recv_exit_status()
            self.over = True

    def _keep(self) -> None:
        """Have a child that is ready wait for the others."""
        while not self.over:
            if self._keeping.wait(KEEP_S) and self._keeping.is_set():
                self._say(WAIT)
                time.sleep(KEEP_S)

    def _say(self, order: str) -> None:
        with self._lock, suppress(OSError, EOFError):
            self._child.sendall(f"{order}\n".encode())

    def read_clock(self) -> None:
        """Measure how far its clocks are from this machine's. FreezelabError when it does not answer."""
        self._samples.append(offset_point(clock_readings(self._probe), self.name).raw)

    def ahead_ns(self, at_raw_ns: int) -> Interval | None:
        """Its MONOTONIC_RAW minus this machine's at an instant of the latter, by all readings."""
        return offset_at(self._samples, at_raw_ns)

    def freeze(self, at_raw_ns: int) -> None:
        """Have it freeze at an instant of this machine's MONOTONIC_RAW."""
        ahead = self.ahead_ns(at_raw_ns)
        self._keeping.clear()
        self._say(OFF if ahead is None else f"{FREEZE} {at_raw_ns + ahead.mid_ns}")

    def go(self) -> None:
        """Let the child begin."""
        self._keeping.clear()
        self._say(GO)

    def call_off(self) -> None:
        """Have it not freeze."""
        self._keeping.clear()
        self._say(OFF)

    def stop(self) -> None:
        """Have the child resume and remove its guests, and end."""
        if self.over:
            return
        with suppress(FreezelabError):
            self._orders.shell(f"kill -TERM $(cat {self._place}/.pid)", 10)

    def forget(self) -> None:
        """Remove the playbook's folder there, of a child that has not begun."""
        with suppress(FreezelabError):
            self._orders.shell(f"rm -rf {self._place or '/nowhere'}", 10)

    def fetch(self, folder: Path) -> Path:
        """Bring the child's record into `folder`, also over a new connection, when the child has ended. The
        path of a tar.gz. FreezelabError when there is none, or the host is not reached."""
        state = f"export FREEZELAB_HOME={shlex.quote(self.entry.state)}; " if self.entry.state else ""
        ended = f"while kill -0 $(cat {self._place}/.pid) 2>/dev/null; do sleep 0.2; done; "
        made = (
            f"if [ -f {_RUNS}/{self.run}/{EVENTS} ]; then tar -C {_RUNS} -czf - {self.run} | base64 -w0; fi"
        )
        packed = f"{state}{ended}{made}; rm -rf {self._place}"
        with SshLink(self.entry, self._clock) as link:
            data = link.shell(f"sh -c {shlex.quote(packed)}", FETCH_S)
        path = folder / f"{self.run}.tar.gz"
        try:
            path.write_bytes(base64.b64decode(data, validate=True))
        except binascii.Error as error:
            raise MachineError("its record did not arrive", where=f"host {self.name}") from error
        if not path.stat().st_size:
            path.unlink()
            raise MachineError(f"it made no record: {self.last_line}", where=f"host {self.name}")
        return path


def _read(told: str) -> dict[str, str]:
    """What a host says of itself. Of another freezelab's it may be anything."""
    try:
        return {str(name): str(value) for name, value in json.loads(told).items()}
    except (ValueError, AttributeError):
        return {"freezelab": "another one"}
