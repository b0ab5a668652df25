"""The controller's end of the channel to a lab host whose kernel is replaced: a virtio serial port, which
QEMU keeps while the lab host's kernels come and go. Orders go in, marks come out.

A mark is a line: its name, the uptime of the kernel that has sent it, and perhaps a text. It is stamped on
arrival, by this machine's clock: what it reports was over by then.
"""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.core.clock import Stamp
from lab.core.units import NS_PER_S
from lab.errors import HypervisorError
from lab.ports import Clock

FAILED = "failed"
_POLL_NS = NS_PER_S // 4


@dataclass(frozen=True)
class Mark:
    """A mark. at: of its arrival. uptime_ns: of the kernel that sent it, when it did, to 10 ms."""

    name: str
    at: Stamp
    uptime_ns: int
    text: str = ""


class KernelLine:
    """The channel. Close it, or use it in a `with` block. marks: those that have arrived, oldest first.

    HypervisorError when the port cannot be reached."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock, self._buffer = clock, b""
        self.marks: list[Mark] = []
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(5.0)
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise HypervisorError(f"its serial port cannot be reached: {error}", where="lab host") from error

    def __enter__(self) -> KernelLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def order(self, text: str) -> None:
        """Send an order. HypervisorError when the lab host has ended."""
        try:
            self._socket.sendall(text.encode("ascii") + b"\n")
        except OSError as error:
            raise HypervisorError(f"its serial port is closed: {error}", where="lab host") from error

    def forget(self) -> None:
        """Forget what has arrived."""
        self.poll(0)
        self.marks = []

    def last(self, name: str) -> Mark | None:
        """The last mark of this name that has arrived; None without one."""
        return next((mark for mark in reversed(self.marks) if mark.name == name), None)

    def wait(self, name: str, until_raw_ns: int) -> Mark | None:
        """The first mark of this name; None when it has not come by CLOCK_MONOTONIC_RAW `until_raw_ns`.
        HypervisorError when a failure is reported instead, or the lab host has ended."""
        while True:
            for mark in self.marks:
                if mark.name == name:
                    return mark
                if mark.name == FAILED:
                    raise HypervisorError(mark.text or "it has failed", where="lab host")
            left = until_raw_ns - self._clock.now().raw_ns
            if left <= 0:
                return None
            self.poll(min(left, _POLL_NS))

    def poll(self, wait_ns: int) -> None:
        """Take what arrives within `wait_ns`. HypervisorError when the lab host has ended."""
        if not select.select([self._socket], [], [], wait_ns / NS_PER_S)[0]:
            return
        data = self._socket.recv(1 << 16)
        at = self._clock.now()
        if not data:
            raise HypervisorError("it has ended", where="lab host")
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            name, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
            uptime, _, text = rest.partition(" ")
            with suppress(ValueError):
                self.marks.append(Mark(name, at, round(float(uptime) * NS_PER_S), text.strip()))
