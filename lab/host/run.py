"""The one door to programs on the host: argv lists, a process group each, a deadline, capped output.

Whatever happens, the whole process group has been killed when a function here returns or raises: at the
deadline, on an interrupt, and also after a success, so that nothing of a patch runs on behind the lab's
back. A service that a program starts for good leaves the group (setsid), as daemons do; with `tree` it is
killed all the same when the program overran or was interrupted (scope.py says how surely). `launch` is for
those that the lab itself starts for good.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from lab.core.units import NS_PER_MS, NS_PER_S, format_duration
from lab.errors import MachineError
from lab.host.clocks import HostClock
from lab.host.scope import Scope
from lab.ports import Clock

GRACE_NS = 250 * NS_PER_MS
"""From SIGTERM to the end: a program has all but the last part of it to leave by itself."""

_REAP_NS = 120 * NS_PER_MS
"""Of the grace, what SIGKILL and the reaping get: a spinning program took over 25 ms on a busy host."""

_LAST_NS = 15 * NS_PER_MS
"""Of that, what is left to return in."""

_CHUNK = 1 << 16
OUTPUT_MAX = 1 << 20
"""Bytes kept of each output; beyond it the oldest are dropped."""


@dataclass(frozen=True)
class Finished:
    """A program that was run.

    status: exit status, -N when signal N ended it, None when it could not even be killed in time.
    overran: it had to be killed. took_ns: from the start to its end, CLOCK_MONOTONIC_RAW.
    truncated: more was printed than is kept.
    """

    argv: tuple[str, ...]
    status: int | None
    stdout: str
    stderr: str
    took_ns: int
    overran: bool = False
    truncated: bool = False

    @property
    def ok(self) -> bool:
        return self.status == 0 and not self.overran

    @property
    def why(self) -> str:
        """One line on how it went wrong, "" when it did not."""
        took = format_duration(round(self.took_ns, -8))
        if self.overran:
            return (
                f"still running after {took}, {'killed' if self.status is not None else 'cannot be killed'}"
            )
        if self.status is not None and self.status < 0:
            return f"ended by {_signal_name(-self.status)}"
        return f"exit status {self.status}" if self.status else ""

    @property
    def last_line(self) -> str:
        """The last line it printed, errors first."""
        for text in (self.stderr, self.stdout):
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            if lines:
                return lines[-1][:200]
        return ""


def run(
    argv: Sequence[str],
    timeout_s: float,
    *,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    clock: Clock | None = None,
) -> Finished:
    """Run a program to its end, at most `timeout_s`. MachineError when it is missing, and, with `check`,
    when it overruns or fails; the message holds a command line to paste. Interrupted passes through."""
    clock = clock or HostClock()
    finished = execute(
        argv, clock, stop_at_raw_ns=clock.now().raw_ns + round(timeout_s * NS_PER_S), env=env, cwd=cwd
    )
    if check and not finished.ok:
        said = f": {finished.last_line}" if finished.last_line else ""
        raise MachineError(f"{finished.why}{said}", where=shlex.join(argv))
    return finished


def find(program: str) -> str:
    """The path of a program, as exec would find it. MachineError when it is missing or not executable."""
    found = shutil.which(program)
    if found:
        return found
    if "/" in program and Path(program).exists():
        raise MachineError("not an executable file", where=program, hint=f"chmod +x {shlex.quote(program)}")
    raise MachineError("no such program", where=program, hint="is it installed, and on PATH?")


def execute(
    argv: Sequence[str],
    clock: Clock,
    *,
    stop_at_raw_ns: int,
    grace_ns: int = GRACE_NS,
    output_max: int = OUTPUT_MAX,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    tree: bool = False,
) -> Finished:
    """Run a program; from CLOCK_MONOTONIC_RAW `stop_at_raw_ns` on its group gets SIGTERM and, before
    `grace_ns` is over, SIGKILL. Returns by stop_at + grace whatever the program does. MachineError when it
    cannot be started. Exceptions from signal handlers pass through, the group killed.

    tree: when it overran or was interrupted, all that it has started is killed, in whatever session it is
    by then."""
    find(argv[0])
    with contextlib.closing(Scope()) if tree else contextlib.nullcontext() as scope:
        return _execute(argv, clock, stop_at_raw_ns, grace_ns, output_max, env, cwd, scope)


def _execute(
    argv: Sequence[str],
    clock: Clock,
    stop_at_raw_ns: int,
    grace_ns: int,
    output_max: int,
    env: Mapping[str, str] | None,
    cwd: Path | None,
    scope: Scope | None,
) -> Finished:
    began = clock.now().raw_ns
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env if scope is None else scope.environment(env),
            preexec_fn=None if scope is None else scope.enter,  # noqa: PLW1509 - it makes one system call
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as error:
        raise MachineError(f"cannot be run: {error.strerror}", where=shlex.join(argv)) from error
    child: _Child | None = None
    overran, in_time = False, False
    try:
        child = _Child(process, clock, output_max, scope)
        overran = not child.wait(stop_at_raw_ns)
        ended = clock.now().raw_ns
        if overran:
            child.signal(signal.SIGTERM)
            child.wait(stop_at_raw_ns + grace_ns - min(_REAP_NS, grace_ns // 2))
        in_time = not overran
    finally:
        if child is None:  # interrupted between the two
            os.killpg(process.pid, signal.SIGKILL)
        else:
            last = stop_at_raw_ns + grace_ns - min(_LAST_NS, grace_ns // 4)
            until = last if overran else clock.now().raw_ns + _REAP_NS // 4
            status = child.finish(until, everything=not in_time)
    return Finished(
        tuple(argv),
        status,
        child.text("stdout"),
        child.text("stderr"),
        ended - began,
        overran,
        child.truncated,
    )


def launch(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdout: int, stderr: int
) -> subprocess.Popen[bytes]:
    """Start a service for good: in a session of its own, nothing of it is killed by the lab, and it
    outlives the lab. Its standard input is /dev/null. MachineError when it cannot be started."""
    try:
        service = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )
    except OSError as error:
        raise MachineError(f"cannot be run: {error.strerror}", where=line(argv)) from error
    _SERVICES.append(service)
    return service


def line(argv: Sequence[str]) -> str:
    """A command line to paste."""
    return shlex.join(argv)


_SERVICES: list[subprocess.Popen[bytes]] = []
"""Kept, or Popen would complain about a process that is meant to go on."""


class _Child:
    """A running program: its output is read as it comes, its end is seen through a pidfd."""

    def __init__(
        self, process: subprocess.Popen[bytes], clock: Clock, output_max: int, scope: Scope | None
    ) -> None:
        self._process, self._clock, self._max = process, clock, output_max
        self._scope, self._over = scope, False
        self._descendants: list[psutil.Process] = []
        self._output = {"stdout": bytearray(), "stderr": bytearray()}
        self.truncated = False
        self._selector = selectors.DefaultSelector()
        self._pidfd = os.pidfd_open(process.pid)
        self._selector.register(self._pidfd, selectors.EVENT_READ, "end")
        for name, stream in (("stdout", process.stdout), ("stderr", process.stderr)):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                self._selector.register(stream, selectors.EVENT_READ, name)

    def wait(self, until_raw_ns: int) -> bool:
        """Read until the program itself has ended, at most until `until_raw_ns`; whether it has. What it
        started may still hold its output open: that is not waited for."""
        while (left := until_raw_ns - self._clock.now().raw_ns) > 0:
            for key, _events in self._selector.select(left / NS_PER_S):
                if key.data == "end":
                    self._over = True
                    self._drain()
                    return True
                self._read(key.fd, key.data)
        return False

    def signal(self, number: signal.Signals) -> None:
        if self._scope is not None and not self._over:
            self._descendants += _descendants(self._process.pid)
        # The leader is not reaped before finish(), so its number cannot be another group's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def finish(self, until_raw_ns: int, *, everything: bool) -> int | None:
        """Kill what is left of the group, or of all that it has started, and reap: the status, None when even
        that takes too long."""
        self.signal(signal.SIGKILL)
        if everything and self._scope is not None:
            self._scope.kill_members()
        self.wait(until_raw_ns)
        if everything and self._scope is not None:
            self._scope.kill(self._descendants, lambda: self._clock.now().raw_ns >= until_raw_ns)
        self._selector.close()
        os.close(self._pidfd)
        status = self._process.poll()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        return status

    def text(self, name: str) -> str:
        return self._output[name].decode("utf-8", "replace")

    def _drain(self) -> None:
        """What is in the pipes now, without following a child that goes on writing."""
        for key in list(self._selector.get_map().values()):
            for _ in range(self._max // _CHUNK + 1):
                if key.data == "end" or not self._read(key.fd, key.data):
                    break

    def _read(self, handle: int, name: str) -> bool:
        """Take one chunk; whether there was one."""
        try:
            chunk = os.read(handle, _CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            self._selector.unregister(handle)
            return False
        kept = self._output[name]
        kept += chunk
        if len(kept) > self._max:
            del kept[: len(kept) - self._max]
            self.truncated = True
        return True


def _descendants(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
