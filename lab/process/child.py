"""A running program. Child: its output is read as it arrives, a pidfd reports its end, and its whole process
group is killed afterwards. Started: it stays until it is stopped."""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import signal
import subprocess
from collections.abc import Callable, Iterator

import psutil

from lab.core.units import NS_PER_S
from lab.ports import Clock
from lab.process.scope import Scope, descendants

_CHUNK = 1 << 16

_KILLED_S = 3.0
"""How long `Started.stop` waits for a process after SIGKILL."""

OnLine = Callable[[str], bool | None]
"""Called with each line of output, stripped, as it arrives; blank lines are left out. It returns True when
the program may be killed because no more output is needed."""


class Child:
    """Reads the output of a program that was started in its own session, until finish().

    output_max: how many bytes of each output are kept; the oldest are dropped. on_line: gets the lines of
    stdout. scope: the scope in which the program was started; None: only its process group is killed.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        clock: Clock,
        output_max: int,
        *,
        on_line: OnLine | None = None,
        scope: Scope | None = None,
    ) -> None:
        self._process, self._clock, self._max = process, clock, output_max
        self._scope, self._over = scope, False
        self._descendants: list[psutil.Process] = []
        self._output = {"stdout": bytearray(), "stderr": bytearray()}
        self._on_line, self._lines = on_line, _Lines(output_max)
        self.truncated, self.enough = False, False
        self._selector = selectors.DefaultSelector()
        self._pidfd = os.pidfd_open(process.pid)
        self._selector.register(self._pidfd, selectors.EVENT_READ, "end")
        for name, stream in (("stdout", process.stdout), ("stderr", process.stderr)):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                self._selector.register(stream, selectors.EVENT_READ, name)

    def wait(self, until_raw_ns: int) -> bool:
        """Read until the program has ended or on_line returns True, at most until CLOCK_MONOTONIC_RAW
        `until_raw_ns`. Returns whether that happened in time. Does not wait for the program's children, which
        may still have its output open."""
        while (left := until_raw_ns - self._clock.now().raw_ns) > 0:
            for key, _events in self._selector.select(left / NS_PER_S):
                if key.data == "end":
                    self._over = True
                    self._drain()
                    return True
                self._read(key.fd, key.data)
                if self.enough:
                    return True
        return False

    def mute(self) -> None:
        """Stop calling on_line, whose exception is being handled."""
        self._on_line = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program's process group."""
        if self._scope is not None and not self._over:
            with contextlib.suppress(psutil.Error):
                self._descendants += descendants(psutil.Process(self._process.pid))
        # The leader is not reaped before finish(), so its number cannot be another group's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def finish(self, until_raw_ns: int, *, everything: bool) -> int | None:
        """Kill the rest of the process group and reap the program. everything: kill all that the program has
        started as well. Returns the exit status; None when the program is not gone by `until_raw_ns`."""
        self.mute()
        self.enough = False
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
        """The kept output. name: "stdout" or "stderr"."""
        return self._output[name].decode("utf-8", "replace")

    def _drain(self) -> None:
        """Read what is in the pipes now, without waiting for children that go on writing."""
        for key in list(self._selector.get_map().values()):
            for _ in range(self._max // _CHUNK + 1):
                if key.data == "end" or not self._read(key.fd, key.data):
                    break
        self._pass_on(self._lines.rest())

    def _read(self, handle: int, name: str) -> bool:
        """Read one chunk. Returns whether there was one."""
        try:
            chunk = os.read(handle, _CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            self._selector.unregister(handle)
            return False
        buffer = self._output[name]
        buffer += chunk
        if len(buffer) > self._max:
            del buffer[: len(buffer) - self._max]
            self.truncated = True
        if name == "stdout":
            self._pass_on(self._lines.split(chunk))
        return True

    def _pass_on(self, lines: Iterator[str]) -> None:
        for line in lines:
            if self._on_line is not None and self._on_line(line):
                self.enough = True


class Started:
    """A process that stays, the leader of its own session. It runs until stop(), even without a reference to
    it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    @property
    def status(self) -> int | None:
        """The exit status; -N when signal N ended the process; None while it runs."""
        return self._process.poll()

    def stop(self, patience_s: float, first: signal.Signals | None = signal.SIGTERM) -> None:
        """Send `first` to the process group, wait `patience_s` seconds for the process to end, then send
        SIGKILL and reap it. first: None: the process is about to end by itself. Interrupted passes through
        after the group was killed; with first=None it is not killed then."""
        if self.status is not None:
            return
        try:
            if first is not None:
                self.send(first)
            self._await_end(patience_s)
        except BaseException:
            if first is not None:
                self._kill()
            raise
        self._kill()

    def wait(self, patience_s: float) -> bool:
        """Wait up to `patience_s` seconds for the process to end by itself, and reap it. Whether it has
        ended."""
        if self.status is None:
            self._await_end(patience_s)
        return self.status is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process group, unless that has ended."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _kill(self) -> None:
        self.send(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_KILLED_S)

    def _await_end(self, patience_s: float) -> None:
        """Wait for the end without reaping, so that the process's number stays reserved for its group."""
        pidfd = os.pidfd_open(self.pid)
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(patience_s * 1000)
        finally:
            os.close(pidfd)


class _Lines:
    """Splits chunks of bytes into lines. A line ends with \\n or \\r, or when it is longer than `longest`
    bytes."""

    def __init__(self, longest: int) -> None:
        self._longest, self._begun = longest, b""

    def split(self, chunk: bytes) -> Iterator[str]:
        *whole, self._begun = (self._begun + chunk).replace(b"\r", b"\n").split(b"\n")
        yield from self._texts(whole)
        if len(self._begun) > self._longest:
            yield from self.rest()

    def rest(self) -> Iterator[str]:
        """The last line, which has no line end yet."""
        last, self._begun = self._begun, b""
        yield from self._texts([last])

    def _texts(self, lines: list[bytes]) -> Iterator[str]:
        for line in lines:
            if text := line.decode("utf-8", "replace").strip():
                yield text
