"""The network's process: the lab's own switch, and its sockets; or a bridge (see bridge).

A process of its own, because a thread of the controller would wait for the controller's other threads, and
the network would be measured with that.

Each guest has a socket here that its QEMU sends to, so that a frame's origin is certain. Frames go to where
the guest's last one came from: after a hand-over that is the successor, which announces itself (QEMU,
net/announce.c). For frames that waited during the freeze the controller names the successor's path before.
"""

from __future__ import annotations

import os
import select
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.core.network import HOST, FrameCounts, NetworkLimits
from lab.host.network import namespace
from lab.host.network.bridge import BridgeProcess
from lab.host.network.moves import AddressMoves
from lab.host.network.orders import AT_ONCE, LARGEST_FRAME, NetworkProcess, connected, next_order, why
from lab.host.network.switch import Switch, SwitchPort, Taken

_AGAIN_S = 0.005
"""How often a frozen guest is looked for whose QEMU is not there."""


class GuestSocket:
    """A guest's place. ours: the path that its QEMU sends to; its: the path that this QEMU listens at."""

    def __init__(self, ours: str, its: str) -> None:
        self._its, self._former = its, ""
        self._receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._receiver.setblocking(False)
        self._receiver.bind(ours)
        self._sender: socket.socket | None = None
        self._ours = ours

    def readable(self) -> int:
        return self._receiver.fileno()

    def writable(self) -> int | None:
        """What can be waited for after Taken.LATER."""
        return self._sender.fileno() if self._sender is not None else None

    def receive(self) -> bytes | None:
        """The next frame; None when there is none now."""
        try:
            frame, origin = self._receiver.recvfrom(LARGEST_FRAME)
        except BlockingIOError:
            return None
        if origin:
            self.move(origin)
        return frame

    def move(self, its: str) -> None:
        """Send to this path from now on."""
        if its != self._its:
            self._its, self._former = its, self._its
            self._hang_up()

    def send(self, frame: bytes) -> Taken:
        for _ in range(2):
            if self._sender is None and not self._connect():
                return Taken.ABSENT
            try:
                self._sender.send(frame)  # type: ignore[union-attr]
            except BlockingIOError:
                return Taken.LATER
            except OSError:  # that process has ended
                self._hang_up()
            else:
                return Taken.YES
        return Taken.ABSENT

    def _connect(self) -> bool:
        """Connect to the guest's QEMU or, when that has ended, to the one before: a hand-over that failed
        after the successor had announced itself."""
        for path in filter(None, (self._its, self._former)):
            try:
                self._sender = connected(path)
            except OSError:
                continue
            if path == self._former:
                self._its, self._former = path, ""
            return True
        return False

    def _hang_up(self) -> None:
        if self._sender is not None:
            self._sender.close()
            self._sender = None

    def close(self) -> None:
        self._hang_up()
        self._receiver.close()
        with suppress(OSError):
            Path(self._ours).unlink()


class HostTap:
    """The host's own place."""

    def __init__(self, tap: int) -> None:
        self._tap = tap

    def readable(self) -> int:
        return self._tap

    def writable(self) -> int | None:
        return self._tap

    def receive(self) -> bytes | None:
        """The next frame; None when there is none now."""
        try:
            return os.read(self._tap, LARGEST_FRAME)
        except OSError:  # none now, or the interface is down
            return None

    def send(self, frame: bytes) -> Taken:
        try:
            os.write(self._tap, frame)
        except BlockingIOError:
            return Taken.LATER
        except OSError:  # the interface is down
            return Taken.ABSENT
        return Taken.YES

    def close(self) -> None:
        os.close(self._tap)


End = GuestSocket | HostTap


class SwitchProcess(NetworkProcess):
    """The lab's own switch."""

    def __init__(self, control: socket.socket) -> None:
        super().__init__(control)
        self._switch = Switch(0)
        self._ends: list[tuple[End, SwitchPort]] = []
        self._guests: dict[str, tuple[GuestSocket, SwitchPort]] = {}

    def serve(self) -> bool:
        for end, port in self._ends:
            if port.waiting and end.writable() is None and not port.absent and not port.frozen:
                port.flush()  # its QEMU has changed: there is nothing yet to wait for
        busy = [(end, port) for end, port in self._ends if port.waiting]
        there = [(end, port) for end, port in busy if not port.absent and not port.frozen]
        writable = {at: port for end, port in there if (at := end.writable()) is not None}
        readable = {end.readable(): (end, port) for end, port in self._ends}
        ready, writers, _ = select.select(
            [self.control.fileno(), *self._told(), *readable],
            list(writable),
            [],
            self._wait_s(len(busy) > len(there)),
        )
        now = time.monotonic_ns()
        self._switch.deliver(now)
        for at in ready:
            if at == self.control.fileno():
                if not self.obey():
                    return False
                continue
            if at not in readable:
                continue
            end, port = readable[at]
            for _ in range(AT_ONCE):
                if (frame := end.receive()) is None:
                    break
                if self.moves is not None and port.name != HOST:
                    self.moves.sent(frame)
                self._switch.forward(port, frame, now)
        for at in writers:
            writable[at].flush()
        for _, port in busy:
            if port.absent:
                port.flush()
        if self.moves is not None:
            self.moves.read()
        return True

    def _wait_s(self, absent: bool) -> float | None:
        waits = [_AGAIN_S] if absent else []
        if self._switch.due_ns is not None:
            waits.append(max(0, self._switch.due_ns - time.monotonic_ns()) / 1e9)
        return min(waits, default=None)

    def _told(self) -> list[int]:
        return [self.moves.fileno()] if self.moves is not None else []

    def start(self, order: dict[str, Any]) -> str:
        """Start it. Returns why the host has no place, "" when it has one."""
        self._switch = Switch(order["seed"])
        for name, place in order["places"].items():
            end = GuestSocket(place["ours"], place["its"])
            self._guests[name] = end, self._add(end, name, place["limits"])
        try:
            tap = namespace.enter(order["host"])
            self.moves = AddressMoves()
        except OSError as error:
            return why(error)
        self._add(HostTap(tap), HOST, order["limits"])
        return ""

    def counts(self) -> dict[str, FrameCounts]:
        return {name: port.counts for name, port in self._switch.ports.items()}

    def freeze(self, guest: str) -> None:
        self._guests[guest][1].freeze(time.monotonic_ns())

    def thaw(self, guest: str, its: str) -> None:
        end, port = self._guests[guest]
        end.move(its)
        port.thaw()

    def close(self) -> None:
        for end, _ in self._ends:
            end.close()
        if self.moves is not None:
            self.moves.close()

    def _add(self, end: End, name: str, limits: dict[str, Any]) -> SwitchPort:
        port = SwitchPort(name, NetworkLimits(**limits), end.send)
        self._switch.add(port)
        self._ends.append((end, port))
        return port


def main(control: int) -> None:
    """Serve the controller at this descriptor, of a SOCK_SEQPACKET pair."""
    with socket.socket(fileno=control) as end:
        order = next_order(end)
        if order is None:
            return
        process = BridgeProcess(end) if order["bridge"] else SwitchProcess(end)
        process.answer(why=process.start(order))
        process.run()
