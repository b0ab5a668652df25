"""Connections between SSH channels and sockets: what comes on one goes to the other."""

from __future__ import annotations

import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import paramiko

from lab.errors import FreezelabError
from lab.threads import Worker

END_S = 5.0

_BLOCK = 1 << 16
_ENOUGH = 1 << 18  # bytes in hand for one side: no more are read from the other
_WINDOW_S = 0.02  # until a guest that takes nothing is tried again


class _Arrived(threading.Event):
    """What paramiko sets when something has come on a channel, or its end."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._wake = tell

    def set(self) -> None:
        super().set()
        self._wake()


class _RelayedConnection:
    """An SSH channel and a socket, and what is on its way between them."""

    def __init__(self, channel: paramiko.Channel, sock: socket.socket) -> None:
        self.channel, self.sock = channel, sock
        self.inward, self.outward = bytearray(), bytearray()  # to the service, to the guest
        self.guest_ended = self.service_ended = False
        self.watched = 0

    def pump(self) -> bool:
        """Move what can be moved now; whether there is more to come. OSError when either side is gone."""
        self._to_service()
        self._to_guest()
        if self.channel.closed and self.guest_ended and not self.inward:
            return False  # nobody is there to be told anything
        return not (self.guest_ended and self.service_ended and not self.inward and not self.outward)

    def _to_service(self) -> None:
        while True:
            while len(self.inward) < _ENOUGH and not self.guest_ended:
                try:
                    data = self.channel.recv(_BLOCK)
                except TimeoutError:
                    break
                self.inward += data
                self.guest_ended = not data
                if self.guest_ended and not self.inward:
                    self._no_more_for_service()
            if not self.inward:
                return
            try:
                sent = self.sock.send(self.inward)
            except BlockingIOError:
                return
            del self.inward[:sent]
            if self.guest_ended and not self.inward:
                self._no_more_for_service()

    def _no_more_for_service(self) -> None:
        with suppress(OSError):  # it may have closed first
            self.sock.shutdown(socket.SHUT_WR)

    def _to_guest(self) -> None:
        while True:
            if not self.outward and not self.service_ended:
                try:
                    self.outward += self.sock.recv(_BLOCK)
                except BlockingIOError:
                    return
                self.service_ended = not self.outward
                if self.service_ended:
                    self.channel.shutdown_write()
            if not self.outward:
                return
            try:
                sent = self.channel.send(bytes(self.outward))
            except TimeoutError:
                return
            if not sent:
                raise ConnectionResetError
            del self.outward[:sent]

    @property
    def wanted(self) -> int:
        """What to be told of by the selector."""
        read = 0 if self.outward or self.service_ended else selectors.EVENT_READ
        return read | (selectors.EVENT_WRITE if self.inward else 0)

    def close(self) -> None:
        self.sock.close()
        with suppress(OSError, EOFError, paramiko.SSHException):
            self.channel.close()


class ChannelRelay:
    """All connections through one forward, in one thread, with one descriptor each. connect: gives a new
    stream socket, which may fail. name: of the thread."""

    def __init__(self, connect: Callable[[], socket.socket], name: str) -> None:
        self._connect = connect
        self._lines: set[_RelayedConnection] = set()
        self._new: deque[tuple[paramiko.Channel, Callable[[], socket.socket]]] = deque()
        self._moved: deque[_RelayedConnection] = deque()
        self._closed = False
        self._selector = selectors.DefaultSelector()
        self._wake_end, self._wake_sender = socket.socketpair()
        self._wake_end.setblocking(False)
        self._wake_sender.setblocking(False)
        self._selector.register(self._wake_end, selectors.EVENT_READ)
        self._thread = Worker(target=self._run, name=f"relay-{name}", daemon=True)
        self._thread.start()

    def add(self, channel: paramiko.Channel, connect: Callable[[], socket.socket] | None = None) -> None:
        """Take a connection. Called in paramiko's thread, which must not wait. connect: gives the socket of
        this one."""
        if self._closed:
            channel.close()
            return
        self._new.append((channel, connect or self._connect))
        self._wake()

    def close(self) -> None:
        self._closed = True
        self._wake()
        self._thread.join(END_S)

    def _wake(self) -> None:
        # Full: told already. Closed: the relay has ended, and paramiko still has a channel to end.
        with suppress(OSError):
            self._wake_sender.send(b".")

    def _run(self) -> None:
        try:
            while not self._closed:
                stalled = [line for line in self._lines if line.outward]
                ready_keys = self._selector.select(_WINDOW_S if stalled else None)
                ready = set(stalled)
                for key, _ in ready_keys:
                    if key.data is None:
                        with suppress(BlockingIOError):
                            self._wake_end.recv(_BLOCK)
                    else:
                        ready.add(key.data)
                while self._moved:
                    ready.add(self._moved.popleft())
                while self._new:
                    self._open(*self._new.popleft())
                for line in ready & self._lines:
                    self._pump(line)
        finally:
            self._end()

    def _open(self, channel: paramiko.Channel, connect: Callable[[], socket.socket]) -> None:
        try:
            sock = connect()
        except (OSError, FreezelabError):
            channel.close()
            return
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        channel.settimeout(0)
        line = _RelayedConnection(channel, sock)
        self._lines.add(line)
        self._selector.register(sock, selectors.EVENT_READ, line)
        line.watched = selectors.EVENT_READ

        def moved() -> None:
            self._moved.append(line)
            self._wake()

        # At once when something is there already. Channel.fileno() would take two more descriptors.
        channel.in_buffer.set_event(_Arrived(moved))

    def _pump(self, line: _RelayedConnection) -> None:
        try:
            more = line.pump()
        except (OSError, EOFError, paramiko.SSHException):
            more = False
        if not more:
            self._watch(line, 0)
            self._lines.discard(line)
            line.close()
        else:
            self._watch(line, line.wanted)

    def _watch(self, line: _RelayedConnection, events: int) -> None:
        if events == line.watched:
            return
        if not events:
            self._selector.unregister(line.sock)
        elif not line.watched:
            self._selector.register(line.sock, events, line)
        else:
            self._selector.modify(line.sock, events, line)
        line.watched = events

    def _end(self) -> None:
        for line in self._lines:
            line.close()
        for channel, _ in self._new:
            with suppress(OSError, EOFError, paramiko.SSHException):
                channel.close()
        self._lines.clear()
        self._selector.close()
        self._wake_end.close()
        self._wake_sender.close()
