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
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from lab.hypervisor.migration import PASSING, Ask, is_over

CONNECT_S = 5.0
ANSWER_S = 2.0
"""Time limit for an answer, in seconds. QEMU answers in milliseconds, and in tenths of a second on a busy
host."""

NEVER_RAN = frozenset({"inmigrate", "prelaunch", "paused"})
"""States of a successor that has not run yet (query-status; QEMU, qapi/run-state.json)."""


class MonitorError(Exception):
    """QEMU did not answer in time, refused a command, or has ended."""


class Monitor(Protocol):
    """Runs QMP commands in one QEMU process."""

    def execute(self, command: str, wait_s: float = ANSWER_S, **arguments: Any) -> Any:
        """Run a command and return its result. MonitorError when it fails or takes longer than `wait_s`
        seconds."""

    def close(self) -> None: ...


class QmpSocket:
    """A connection to a monitor's Unix socket. Close it, or use it in a `with` block. It is not thread-safe.

    resumed_real_ns: QEMU's stamp (host CLOCK_REALTIME, 1 µs) of the last RESUME event that has arrived. QEMU
    sends the event before it starts a vCPU (QEMU, system/cpus.c, vm_prepare_start). None without one."""

    def __init__(self, path: Path | str, wait_s: float = CONNECT_S) -> None:
        """Connect. MonitorError when QEMU does not answer within `wait_s` seconds."""
        self._path, self._buffer, self._sequence = str(path), b"", 0
        self.resumed_real_ns: int | None = None
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
        self._sequence += 1
        request = {"execute": command, "id": self._sequence}
        if arguments:
            request["arguments"] = arguments
        end = time.monotonic() + wait_s
        try:
            self._send(json.dumps(request).encode() + b"\n", end)
            while True:
                answer = self._read(end)
                if answer.get("id") != self._sequence:
                    continue  # an event, or the late answer to an earlier command
                if "error" in answer:
                    raise MonitorError(f"QMP {command}: {answer['error'].get('desc')}")
                return answer.get("return")
        except OSError as error:
            raise MonitorError(f"QMP {command}: {error}") from error

    def drain(self) -> None:
        """Process the events that have arrived by now. Does nothing when the other end is gone."""
        try:
            while self._line() is not None or self._receive(time.monotonic()):
                pass
        except (MonitorError, OSError):
            return

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
        if message.get("event") == "RESUME":
            stamp = message["timestamp"]
            self.resumed_real_ns = (stamp["seconds"] * 1_000_000 + stamp["microseconds"]) * 1000
        return message

    def _receive(self, end: float) -> bool:
        """Receive more data by `end` (time.monotonic, seconds). Returns whether any has come."""
        if not select.select([self._socket], [], [], max(0.0, end - time.monotonic()))[0]:
            return False
        data = self._socket.recv(1 << 16)
        if not data:
            raise MonitorError("QEMU has ended")
        self._buffer += data
        return True


def status(monitor: Monitor) -> str:
    """QEMU's run state: running, paused, inmigrate, io-error, … Raises MonitorError."""
    return str(monitor.execute("query-status")["status"])


def take_port(ask: Ask, port: int) -> str:
    """Make a process's user-mode network forward `port` of 127.0.0.1 to the guest's SSH port. Returns QEMU's
    error message, "" on success. Raises MonitorError, or what else `ask` raises."""
    line = f"hostfwd_add lab0 tcp:127.0.0.1:{port}-:22"
    return str(ask("human-monitor-command", **{"command-line": line})).strip()


def leave_migration(monitor: Monitor, wait_s: float = ANSWER_S) -> None:
    """Wait until a source's migration has ended, or cancel it, because QEMU refuses `cont` until then.
    MonitorError when it has not ended within `wait_s` seconds."""
    end = time.monotonic() + wait_s
    while True:
        state = str(monitor.execute("query-migrate").get("status", "none"))
        if is_over(state):
            return
        if state not in PASSING:
            with contextlib.suppress(MonitorError):  # it may have ended by now
                monitor.execute("migrate_cancel")
        if time.monotonic() > end:
            raise MonitorError(f"its migration does not end: {state}")
        time.sleep(0.005)
