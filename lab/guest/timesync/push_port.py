"""The host's end of the virtio-serial channel of the program that sets the guest's clock
(inside/clock_setter.py): lines over sockets of QEMU's.

It needs no network, and survives an in-place exchange: the successor has the same channel at a socket of its
own. QEMU records in the device state whether a host is connected, and tells the guest of a change only
(hw/char/virtio-serial-bus.c, virtio_serial_post_load_timer_cb). So the successor's socket is connected before
the freeze, and nothing changes for the guest. If it were connected between the state's arrival and the
resume, QEMU would tell the guest at once, by a write to its RAM of which the predecessor does not know when
the freeze is rolled back. For the same reason nothing is sent before the resume.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from pathlib import Path

from lab.core.clock import Stamp
from lab.errors import GuestError
from lab.ports import Clock


class PushPort:
    """The channel. sockets: returns the present paths of QEMU's sockets, the first is that of the process in
    which the guest runs; () without such a channel."""

    patience_s = 2.0
    """Time limit for an answer, in seconds."""

    def __init__(self, guest: str, clock: Clock, sockets: Callable[[], tuple[Path, ...]]) -> None:
        self.where = f"guest {guest}"
        self._clock, self._sockets = clock, sockets
        self._connected: dict[Path, socket.socket] = {}
        self._unread = b""

    def now(self) -> Stamp:
        """The host's clocks."""
        return self._clock.now()

    def connect(self) -> bool:
        """Connect to the guest's process and to its successor, if there is one. Returns whether the guest's
        is connected. Not between a freeze and its resume."""
        paths = self._sockets()
        for path in set(self._connected) - set(paths):
            self._connected.pop(path).close()
        for path in paths:
            if path not in self._connected:
                made = socket.socket(socket.AF_UNIX)
                made.setblocking(False)
                try:
                    made.connect(str(path))
                except OSError:
                    made.close()
                else:
                    self._connected[path] = made
        return bool(paths) and paths[0] in self._connected

    def send(self, line: str) -> Stamp:
        """Send a line. Returns a host stamp before the sending. GuestError when the channel is lost."""
        self._unread = b""
        for last in (False, True):
            try:
                present = self._present()
                sent = self._clock.now()
                present.sendall(line.encode() + b"\n")
            except OSError as error:
                self._drop()
                if last:
                    raise self._lost() from error
            else:
                return sent
        raise AssertionError  # the last try returns or raises

    def receive(self, timeout_s: float) -> tuple[str, Stamp]:
        """The next line, and a host stamp after its arrival. GuestError when the channel is lost, or no line
        comes in time."""
        deadline, arrived = time.monotonic() + timeout_s, self._clock.now()
        while b"\n" not in self._unread:
            try:
                present = self._present()
                if not select.select([present], [], [], max(0.0, deadline - time.monotonic()))[0]:
                    raise GuestError("no answer in time over virtio-serial", where=self.where)
                data = present.recv(65536)
            except OSError as error:
                self._drop()
                raise self._lost() from error
            arrived = self._clock.now()
            if not data:
                self._drop()
                raise self._lost()
            self._unread += data
        line, self._unread = self._unread.split(b"\n", 1)
        return line.decode(errors="replace"), arrived

    def close(self) -> None:
        """Disconnect. The program goes on."""
        while self._connected:
            self._connected.popitem()[1].close()

    def _present(self) -> socket.socket:
        """The connection to the guest's process; made if it was not there. GuestError without one."""
        paths = self._sockets()
        if not paths or (paths[0] not in self._connected and not self.connect()):
            raise self._lost()
        return self._connected[paths[0]]

    def _drop(self) -> None:
        if (paths := self._sockets()) and (made := self._connected.pop(paths[0], None)) is not None:
            made.close()

    def _lost(self) -> GuestError:
        return GuestError("the virtio-serial channel was lost", where=self.where)
