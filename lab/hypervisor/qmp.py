"""The lab's own QMP connection to one QEMU process, beside libvirt's. It works even when libvirt, or the
process that uses it, does not. Every wait has a time limit.

The protocol (QEMU, docs/interop/qmp-spec): a greeting, `qmp_capabilities`, then one JSON object per line in
both directions, with events in between. A monitor's socket serves one client at a time; a second client can
connect, but is greeted only when the first has disconnected.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from lab.core.units import NS_PER_S, NS_PER_US
from lab.hypervisor.migration import PASSING, Ask, is_over

CONNECT_S = 5.0
ANSWER_S = 2.0
"""Time limit for an answer, in seconds. QEMU answers in milliseconds, and in tenths of a second on a busy
host."""

NEVER_RAN = frozenset({"inmigrate", "prelaunch", "paused"})
"""States of a successor that has not run yet (query-status; QEMU, qapi/run-state.json)."""


MOST_EVENTS = 256
"""How many events of a process are kept; the oldest are dropped."""


@dataclass(frozen=True)
class QemuEvent:
    """One of QEMU's events with QEMU's own stamp, host CLOCK_REALTIME, truncated to 1 µs. kind: STOP, RESUME,
    SUSPEND, WAKEUP, or MIGRATION with its status, as "MIGRATION completed".

    QEMU sends STOP after the last vCPU has stopped, and RESUME before it starts the guest's clocks and the
    first vCPU (QEMU, softmmu/cpus.c, do_vm_stop and vm_prepare_start), so no guest instruction runs between
    the two.
    """

    kind: str
    real_ns: int


def event_kind(name: str, data: Any) -> str:
    """An event's kind; see QemuEvent. data: its "data" member."""
    return f"MIGRATION {(data or {}).get('status')}" if name == "MIGRATION" else name


def first_since(events: Sequence[QemuEvent], kind: str, since_real_ns: int) -> QemuEvent | None:
    """The first event of this kind at or after host CLOCK_REALTIME `since_real_ns`; None when none has come.
    QEMU truncates to microseconds, so an event in the same microsecond as the call may look earlier."""
    earliest = since_real_ns - NS_PER_US
    return next((e for e in events if e.kind == kind and e.real_ns >= earliest), None)


class MonitorError(Exception):
    """QEMU did not answer in time, refused a command, or has ended."""


class Monitor(Protocol):
    """Runs QMP commands in one QEMU process."""

    def execute(self, command: str, wait_s: float = ANSWER_S, **arguments: Any) -> Any:
        """Run a command and return its result. MonitorError when it fails or takes longer than `wait_s`
        seconds."""

    def close(self) -> None: ...


class QmpSocket:
    """A connection to a monitor's Unix socket. Close it, or use it in a `with` block. Any thread may use it.

    events: QEMU's events that have arrived, oldest first. ended: QEMU has closed its end."""

    def __init__(self, path: Path | str, wait_s: float = CONNECT_S) -> None:
        """Connect. MonitorError when QEMU does not answer within `wait_s` seconds."""
        self._path, self._buffer, self._sequence = str(path), b"", 0
        self.ended = False
        self._lock = threading.RLock()
        self._awaited: dict[int, str] = {}  # commands by number
        self._answers: dict[int, dict[str, Any]] = {}
        self.events: deque[QemuEvent] = deque(maxlen=MOST_EVENTS)
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(wait_s)
            self._socket.connect(self._path)
            self._socket.settimeout(None)
            end = time.monotonic() + wait_s
            while "QMP" not in self._read(end):
                pass
            self.execute("qmp_capabilities", wait_s)
        except OSError as error:
            self.close()
            raise MonitorError(f"its monitor cannot be reached: {error}") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> QmpSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def execute(self, command: str, wait_s: float = ANSWER_S, **arguments: Any) -> Any:
        """Run a command and return its result. MonitorError when QEMU refuses it, does not answer within
        `wait_s` seconds, or has ended."""
        return self.answer(self.send(command, **arguments), wait_s)

    def send(self, command: str, **arguments: Any) -> int:
        """Send a command; answer() waits for its result. Returns its number. MonitorError when QEMU has ended
        or reads nothing."""
        with self._lock:
            self._sequence += 1
            request = {"execute": command, "id": self._sequence}
            if arguments:
                request["arguments"] = arguments
            try:
                self._send(json.dumps(request).encode() + b"\n", time.monotonic() + ANSWER_S)
            except OSError as error:
                raise MonitorError(f"QMP {command}: {error}") from error
            self._awaited[self._sequence] = command
            return self._sequence

    def answer(self, number: int, wait_s: float = ANSWER_S) -> Any:
        """The result of the command with this number. MonitorError when QEMU refuses it, does not answer
        within `wait_s` seconds, or has ended."""
        with self._lock:
            command, end = self._awaited[number], time.monotonic() + wait_s
            try:
                while number not in self._answers:
                    self._read(end)
            except OSError as error:
                raise MonitorError(f"QMP {command}: {error}") from error
            finally:
                del self._awaited[number]
                found = self._answers.pop(number, {})
        if "error" in found:
            raise MonitorError(f"QMP {command}: {found['error'].get('desc')}")
        return found.get("return")

    def wait(self, number: int, wait_s: float) -> bool:
        """Wait at most `wait_s` seconds until the answer to this command has come, for answer(). Returns
        whether it has."""
        end = time.monotonic() + wait_s
        with self._lock, contextlib.suppress(MonitorError, OSError):  # answer() meets it again
            while number not in self._answers:
                self._read(end)
        return number in self._answers

    def refusal(self, number: int) -> str:
        """QEMU's error message for this command, if one has arrived; "" otherwise."""
        return str(self._answers.get(number, {}).get("error", {}).get("desc", ""))

    def last(self, kinds: Sequence[str]) -> str:
        """The last event of these kinds that has arrived; "" without one."""
        return next((e.kind for e in reversed(tuple(self.events)) if e.kind in kinds), "")

    @property
    def resumed_real_ns(self) -> int | None:
        """QEMU's stamp of the last RESUME event that has arrived; None without one."""
        return next((e.real_ns for e in reversed(tuple(self.events)) if e.kind == "RESUME"), None)

    def event(self, kind: str, since_real_ns: int) -> QemuEvent | None:
        """The first event of this kind at or after host CLOCK_REALTIME `since_real_ns` that has arrived."""
        return first_since(tuple(self.events), kind, since_real_ns)

    def fileno(self) -> int:
        return self._socket.fileno()

    def drain(self) -> None:
        """Process what has arrived by now. Does nothing when the other end is gone."""
        with self._lock, contextlib.suppress(MonitorError, OSError):
            while self._line() is not None or self._receive(time.monotonic()):
                pass

    def _send(self, data: bytes, end: float) -> None:
        while data:
            if not select.select([], [self._socket], [], max(0.0, end - time.monotonic()))[1]:
                raise MonitorError("QEMU reads no commands")
            data = data[self._socket.send(data, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT) :]

    def _read(self, end: float) -> dict[str, Any]:
        while (found := self._line()) is None:
            if not self._receive(end):
                raise MonitorError("QEMU gives no answer")
        return found

    def _line(self) -> dict[str, Any] | None:
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            return None
        self._buffer = rest
        message: dict[str, Any] = json.loads(line)
        if "event" in message:
            stamp = message["timestamp"]
            at_ns = stamp["seconds"] * NS_PER_S + stamp["microseconds"] * NS_PER_US
            self.events.append(QemuEvent(event_kind(message["event"], message.get("data")), at_ns))
        elif message.get("id") in self._awaited:  # else the late answer to an earlier command
            self._answers[message["id"]] = message
        return message

    def _receive(self, end: float) -> bool:
        """Receive more data by `end` (time.monotonic, seconds). Returns whether any has come."""
        if not select.select([self._socket], [], [], max(0.0, end - time.monotonic()))[0]:
            return False
        data = b""
        with contextlib.suppress(ConnectionError):
            data = self._socket.recv(1 << 16)
        if not data:
            self.ended = True
            raise MonitorError("QEMU has ended")
        self._buffer += data
        return True


def status(monitor: Monitor) -> str:
    """QEMU's run state: running, paused, inmigrate, io-error, … Raises MonitorError."""
    return str(monitor.execute("query-status")["status"])


def migration_status(monitor: Monitor) -> str:
    """QEMU's status of the process's migration (query-migrate). Raises MonitorError."""
    return str(monitor.execute("query-migrate").get("status", "none"))


def take_port(ask: Ask, port: int) -> str:
    """Make a process's user-mode network forward `port` of 127.0.0.1 to the guest's SSH port; see
    forward_port()."""
    return forward_port(ask, port, 22)


def forward_port(ask: Ask, port: int, guest_port: int) -> str:
    """Make a process's user-mode network forward `port` of 127.0.0.1 to a TCP port of the guest. Returns
    QEMU's error message, "" on success. Raises MonitorError, or what else `ask` raises."""
    line = f"hostfwd_add lab0 tcp:127.0.0.1:{port}-:{guest_port}"
    return str(ask("human-monitor-command", **{"command-line": line})).strip()


def leave_migration(monitor: Monitor, wait_s: float = ANSWER_S) -> None:
    """Wait until a source's migration has ended, or cancel it, because QEMU refuses `cont` until then.
    MonitorError when it has not ended within `wait_s` seconds."""
    end = time.monotonic() + wait_s
    while True:
        state = migration_status(monitor)
        if is_over(state):
            return
        if state not in PASSING:
            with contextlib.suppress(MonitorError):  # it may have ended by now
                monitor.execute("migrate_cancel")
        if time.monotonic() > end:
            raise MonitorError(f"its migration does not end: {state}")
        time.sleep(0.005)
