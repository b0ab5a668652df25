"""A QMP connection of the lab's own to one QEMU process, beside libvirt's: the way in that works when
libvirt, or the process that holds it, does not. Every wait has a limit.

The protocol is QEMU's docs/interop/qmp-spec: a greeting, `qmp_capabilities`, then one JSON object a line in
both directions, with events in between. A monitor's socket serves one client at a time; a second one is
connected at once and greeted when the first has gone.
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
"""QEMU answers in milliseconds; on a host with both cores taken, in some tenths of a second."""

NEVER_RAN = frozenset({"inmigrate", "prelaunch", "paused"})
"""What `query-status` says of a successor that has not run yet (QEMU, qapi/run-state.json)."""


class MonitorError(Exception):
    """QEMU did not answer in time, refused, or has ended."""


class Monitor(Protocol):
    """Commands to one QEMU process."""

    def execute(self, command: str, wait_s: float = ANSWER_S, **arguments: Any) -> Any:
        """What the command returns. MonitorError."""

    def close(self) -> None: ...


class QmpSocket:
    """A connection to a monitor's Unix socket. Close it, or use it in a `with` block. Not for two threads.

    resumed_real_ns: QEMU's own stamp (host CLOCK_REALTIME, 1 µs) of the last RESUME event that has come,
    which it sends before it starts a vCPU (its system/cpus.c, vm_prepare_start); None when none has."""

    def __init__(self, path: Path | str, wait_s: float = CONNECT_S) -> None:
        """MonitorError when nobody answers there within `wait_s` seconds."""
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
        """What the command returns. MonitorError: refused, no answer within `wait_s` seconds, or gone."""
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
        """Take in the events that have come by now; nothing happens when the other end is gone."""
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
        """Whether more has come by `end` (time.monotonic)."""
        if not select.select([self._socket], [], [], max(0.0, end - time.monotonic()))[0]:
            return False
        data = self._socket.recv(1 << 16)
        if not data:
            raise MonitorError("QEMU has ended")
        self._buffer += data
        return True


def status(monitor: Monitor) -> str:
    """QEMU's own word: running, paused, inmigrate, io-error, … MonitorError."""
    return str(monitor.execute("query-status")["status"])


def take_port(ask: Ask, port: int) -> str:
    """Have a process's user-mode network forward `port` of 127.0.0.1 to the guest's SSH; "", or QEMU's words
    when it does not. MonitorError, or what else `ask` raises."""
    line = f"hostfwd_add lab0 tcp:127.0.0.1:{port}-:22"
    return str(ask("human-monitor-command", **{"command-line": line})).strip()


def leave_migration(monitor: Monitor, wait_s: float = ANSWER_S) -> None:
    """Take a source out of a migration, whichever way it went: QEMU refuses `cont` until then. MonitorError
    when it does not come out within `wait_s` seconds."""
    end = time.monotonic() + wait_s
    while True:
        state = str(monitor.execute("query-migrate").get("status", "none"))
        if is_over(state):
            return
        if state not in PASSING:
            with contextlib.suppress(MonitorError):  # it may be over by now
                monitor.execute("migrate_cancel")
        if time.monotonic() > end:
            raise MonitorError(f"its migration does not end: {state}")
        time.sleep(0.005)
