"""Runs the probe's program on this host, with the same receiving end as a guest's. It reads the host's
clocks, so its true offset and drift are zero: what it measures is the lab's own noise.

It uses a TCP connection on the loopback, like a guest's forwarded port, but without SSH.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import cast

from lab.errors import MachineError
from lab.guest.probe import GuestProbe
from lab.guest.ssh import SSH
from lab.guest.stamped_socket import Wire
from lab.ports import Clock
from lab.process import runner
from lab.process.child import Started

NAME = "this host"
_END_S = 2.0


def host_probe(clock: Clock) -> GuestProbe:
    """A probe of this host. A context manager; MachineError when its process cannot be started."""
    return GuestProbe(NAME, lambda: cast(SSH, _Shell(clock)))


class _Shell:
    """The part of guest.ssh.SSH that a probe uses."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ours, self._theirs = _pair()
        self.wire = Wire(self._ours, clock)
        self._process: Started | None = None

    gone = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.status is None

    def channel(self, command: str, timeout_s: float = 30.0) -> _Channel:  # noqa: ARG002 - SSH's
        its = self._theirs.fileno()
        try:
            # It has its own session: Ctrl-C ends the measurement, which then ends this process.
            self._process = runner.start(["/bin/sh", "-c", command], stdin=its, stdout=its)
        except MachineError as error:
            raise MachineError(f"the probe cannot be started on this host: {error.what}") from error
        self._theirs.close()
        return _Channel(self.wire)

    def socket(self, path: str, timeout_s: float = 30.0) -> None:
        """None: a lost program cannot be reached again, so the probe starts another one."""

    def again(self, timeout_s: float) -> _Shell:  # noqa: ARG002 - SSH's
        return _Shell(self._clock)

    def close(self) -> None:
        # Wakes the reading thread, which close() does not.
        with suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)
        for sock in (self._ours, self._theirs):
            sock.close()
        if self._process is not None:
            self._process.stop(_END_S)


class _Channel:
    """The part of paramiko.Channel that a probe uses."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def sendall(self, data: bytes) -> None:
        while data:
            data = data[self._wire.send(data) :]

    def recv(self, size: int) -> bytes:
        return self._wire.recv(size)

    def recv_stderr_ready(self) -> bool:
        return False

    def exit_status_ready(self) -> bool:
        return False

    def close(self) -> None:
        return None


def _pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a TCP connection on the loopback. Connections of other programs are refused."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname(), timeout=_END_S)
        while True:
            theirs, peer = listener.accept()
            if peer == ours.getsockname():
                break
            theirs.close()
    ours.settimeout(None)
    for sock in (ours, theirs):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs
