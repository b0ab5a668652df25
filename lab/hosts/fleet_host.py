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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from paramiko import SSHException

from lab.core.clock import Interval
from lab.core.fleet_clocks import ahead_at
from lab.core.offsets import Sample
from lab.core.scheduled.instance import InstanceInfo
from lab.errors import FreezelabError, GuestError, MachineError
from lab.guest.client import ChannelLines
from lab.hosts.fleet_events import FleetListener
from lab.hosts.hosts_file import HostEntry
from lab.hosts.link import SshLink, clock_readings, offset_point
from lab.process.clock import HostClock
from lab.record import EVENTS
from lab.session.rendezvous import (
    ABOUT,
    ANNOUNCE,
    BACK,
    CANCELLED,
    FREEZE,
    GO,
    GUESTS,
    OFF,
    OVER,
    READY,
    SERVE,
    SILENT_S,
    STOP,
    WAIT,
)
from lab.threads import Worker

KEEP_S = SILENT_S / 4
SEND_S, FETCH_S = 120.0, 120.0
READ_FOR_S = 1.5
"""The longest time that readings of a clock take: a slow link has fewer of them, one at least."""

RUNNING_S = 10
"""How long a connection that asks for a record waits for the child's end."""

_FOR_EVER_S = 1e6
_SURE_S = 0.5  # from the end of a connection's channels to that of the connection
_RUNS = 'r="${FREEZELAB_HOME:-${XDG_STATE_HOME:-$HOME/.local/state}/freezelab}/runs"'
_RUNNING = "running"

_CHILD = """mkdir -m 700 "$d" && echo $$ >"$d/.pid" || exit; trap 'rm -rf "$d"' EXIT
mkdir "$d/playbook" && timeout {send} head -c {size} | tar -C "$d/playbook" --no-same-owner -xzf - || exit
exec 3<&0
{child} <&3 3<&- &
echo $! >"$d/.child"; exec 3<&-; wait $!; s=$?
if [ $s -eq 137 ]; then ({recover}) >/dev/null 2>&1 </dev/null; fi
exit $s"""
"""Takes the playbook and runs the child. The shell stays, to remove the playbook, and what is left by a child
that is killed (128 + SIGKILL)."""

_END = """n=0; while [ -e "$d" ] && [ ! -s "$d/.child" ] && [ $n -lt 50 ]; do n=$((n+1)); sleep 0.1; done
kill -TERM $(cat "$d/.child")"""
"""The child may just be starting."""

_RECORD = """{end}n=0; while [ -e "$d" ] && kill -0 $(cat "$d/.pid") 2>/dev/null; do
n=$((n+1)); [ $n -le {most} ] || {{ echo {running}; exit; }}; sleep 0.2; done
if [ -f "$r/{run}/{events}" ]; then tar -C "$r" -czf - {run} | base64 -w0; fi; rm -rf "$d"
"""


class FleetHost:
    """A host.

    run: the id of the child's run. about: what the child says of its host; {} until then. instances: the
    guests there, for the metadata service; None until then. over: no child runs there, or the link is cut.
    cut: it is cut, or was.

    Cycles, by their numbers from 1. announced: the last that can be announced. ready: the last for which the
    child has been ready. back: the last whose guests are back in time. done: the last that is over there, in
    a rollout. refused: why no other may begin; "" when one may.
    """

    def __init__(self, entry: HostEntry, run: str, clock: HostClock) -> None:
        self.entry, self.name, self.run = entry, entry.name, run
        self._clock = clock
        self._orders, self._readings = SshLink(entry, clock), SshLink(entry, clock)
        self._stack = ExitStack()
        self.about: dict[str, str] = {}
        self.ready, self.done, self.refused = 0, 0, ""
        self.instances: list[InstanceInfo] | None = None
        self.announced = self.back = 0
        self.over, self.cut = True, False
        self.status: int | None = None
        self.last_line = self._runs = ""
        self.samples: list[Sample] = []
        self._keeping = threading.Event()
        self._lock, self._reading = threading.Lock(), threading.Lock()

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
        state = f"export FREEZELAB_HOME={shlex.quote(self.entry.state)}; " if self.entry.state else ""
        find = f'{state}{_RUNS}; mkdir -p "$r" && cd "$r" && pwd'
        self._runs = self._orders.shell(f"exec sh -c {shlex.quote(find)}", SEND_S).strip()
        words = [
            "run",
            f"{self._place}/playbook/{playbook}",
            "--cell",
            self.name,
            "--run-id",
            self.run,
            "--agreed",
        ]
        child = self.entry.command([*words, "--quiet", *options])
        recover = self.entry.command(["recover"])
        steps = _CHILD.format(child=child, recover=recover, send=round(SEND_S), size=len(packed))
        self._child = self._orders.channel(self._there(steps))
        self._child.set_combine_stderr(True)
        self._child.settimeout(SEND_S)
        with self._lost():
            self._child.sendall(packed)
        self.over = False
        for work in (self._listen, self._keep):
            Worker(target=work, name=f"fleet-{self.name}", daemon=True).start()

    @property
    def _place(self) -> str:
        """The folder there that has the playbook's. Others cannot enter it, whatever the mode of the packed
        one is. `recover` removes it when the process in its .pid has ended."""
        return f"{self._runs}/.of-{self.run}"

    def _there(self, steps: str) -> str:
        """Steps of a shell there. $r: the folder of runs. $d: that of the playbook."""
        known = f"r={shlex.quote(self._runs)}; d={shlex.quote(self._place)}"
        return f"exec sh -c {shlex.quote(f'{known}; {steps}')}"

    @contextmanager
    def _lost(self) -> Iterator[None]:
        """Raise the connection's end as a GuestError."""
        try:
            yield
        except (OSError, EOFError, SSHException) as error:
            what = "the connection was lost while the playbook was sent"
            raise GuestError(what, where=f"host {self.name}") from error

    def _listen(self) -> None:
        lines = ChannelLines(self._child)
        try:
            while True:
                line = lines.read(time.monotonic() + _FOR_EVER_S).decode("utf-8", "replace").strip()
                if line.startswith(ABOUT):
                    self.about = _read(line.removeprefix(ABOUT))
                    self._keeping.set()
                elif line.startswith(READY):
                    self.ready = _number(line)
                    self._keeping.set()
                elif line.startswith(OVER):
                    self.refused = " ".join(line.split()[2:])
                    self.done = _number(line)
                    self._keeping.set()
                elif line.startswith(GUESTS):
                    self.instances = _instances(line.removeprefix(GUESTS))
                    self._keeping.set()
                elif line.startswith(ANNOUNCE):
                    self.announced = _number(line)
                    self._keeping.set()
                elif line.startswith(BACK):
                    self.back = _number(line)
                elif line:
                    self.last_line = line.removeprefix("freezelab: ")
        except (EOFError, OSError):
            self.status = self._child.recv_exit_status()  # negative when the link is cut, or by a signal
            time.sleep(_SURE_S if self.status < 0 else 0)
            self.cut = not self._orders.is_open
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
        if not self._reading.acquire(blocking=False):  # one that was given up, on a link that is cut
            raise MachineError("its clock is being read", where=f"host {self.name}")
        try:
            self.samples.append(offset_point(clock_readings(self._probe, READ_FOR_S), self.name).raw)
        finally:
            self._reading.release()

    def ahead_ns(self, at_raw_ns: int) -> Interval | None:
        """Its MONOTONIC_RAW minus this machine's at an instant of the latter, by all readings."""
        return ahead_at(self.samples, at_raw_ns)

    def in_fleet(self, stops: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What the record has of it: record.parts.FLEET. stops: of its guests."""
        of, now = self.samples, self._clock.now()
        clock = [[one.from_raw_ns, one.to_raw_ns, one.offset.low_ns, one.offset.high_ns] for one in of]
        return {
            "cut_off": self.cut,
            "stops": [*stops],
            "clock": clock,
            "apart": now.real_ns - now.raw_ns,
        }

    def freeze(self, at_raw_ns: int) -> None:
        """Have it freeze at an instant of this machine's MONOTONIC_RAW."""
        ahead = self.ahead_ns(at_raw_ns)
        self._answer(OFF if ahead is None else f"{FREEZE} {at_raw_ns + ahead.mid_ns}")

    def go(self) -> None:
        """Let the child begin, or go on with the next wave of a rollout."""
        self._answer(GO)

    def end_rollout(self, why: str) -> None:
        """Have the rollout end after the wave that is over there."""
        self._answer(f"{STOP} {why}")

    def serve(self, listener: FleetListener) -> None:
        """Have the connections of its guests come to `listener`. MachineError when its sshd forwards none."""
        try:
            transport = self._orders.connection().transport
            port = transport.request_port_forward("127.0.0.1", 0, listener.take)
        except (SSHException, OSError, EOFError) as error:
            what, hint = (
                f"its sshd forwards no port: {error}",
                "its sshd_config needs: AllowTcpForwarding yes",
            )
            raise MachineError(what, where=f"host {self.name}", hint=hint) from error
        self._answer(f"{SERVE} {port} {json.dumps(listener.secrets)}")

    def cancelled(self) -> None:
        """Have it watch its guests without a freeze: the announcement was cancelled."""
        self._answer(CANCELLED)

    def call_off(self, why: str = "") -> None:
        """Have it not freeze."""
        self._answer(f"{OFF} {why}".rstrip())

    def _answer(self, order: str) -> None:
        self._keeping.clear()
        self._say(order)

    def stop(self) -> None:
        """Have the child resume and remove its guests, and end."""
        if self.over:
            return
        with suppress(FreezelabError):
            self._orders.shell(self._there(_END), 10)

    @contextmanager
    def record(self, folder: Path, *, end: bool) -> Iterator[Path | None]:
        """The child's record, brought into `folder` over a new connection: a tar.gz; None while the child
        runs. At the end of the block it is removed there. end: have the child end. GuestError when the host
        is not reached, MachineError when there is no record."""
        most, told = RUNNING_S * 5, f"{_END}; " if end else ""
        command = _RECORD.format(end=told, most=most, running=_RUNNING, run=self.run, events=EVENTS)
        with SshLink(self.entry, self._clock) as link:
            data = link.shell(self._there(command), FETCH_S).strip()
            if data == _RUNNING:
                yield None
                return
            path = folder / f"{self.run}.tar.gz"
            try:
                path.write_bytes(base64.b64decode(data, validate=True))
            except binascii.Error as error:
                raise MachineError("its record did not arrive", where=f"host {self.name}") from error
            if not path.stat().st_size:
                path.unlink()
                raise MachineError(f"it made no record: {self.last_line}", where=f"host {self.name}")
            yield path
            with suppress(FreezelabError):
                link.shell(self._there(f'rm -rf "$r/{self.run}"'), 10)


def _read(told: str) -> dict[str, str]:
    """What a host says of itself. Of another freezelab's it may be anything."""
    try:
        return {str(name): str(value) for name, value in json.loads(told).items()}
    except (ValueError, AttributeError):
        return {"freezelab": "another one"}


def _number(line: str) -> int:
    """The number after the first word."""
    word = line.split()[1:2]
    return int(word[0]) if word and word[0].isdecimal() else 0


def _instances(told: str) -> list[InstanceInfo]:
    found = []
    for one in json.loads(told):
        given = tuple((tuple(path), value) for path, value in one.pop("given"))
        found.append(InstanceInfo(**one, given=given))
    return found
