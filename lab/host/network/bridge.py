"""A Linux bridge at the host's own place, in which each QEMU process has a port of its own, a tap.

QEMU could not open a tap in that namespace without root. So QEMU's frames come over its socket, as in the
lab's own switch, and this process passes them on to that QEMU's tap, and back: who gets a frame is decided by
the bridge alone. A guest that goes on in another QEMU comes on another port, where the bridge finds its
address with its first frame; until then frames go to the port of the old one. A frozen guest's frames wait in
its tap, as with any tap (txqueuelen, 1000); those that wait for a QEMU that ends are lost.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.core.network import HOST, FrameCounts
from lab.host.network import namespace
from lab.host.network.moves import AddressMoves
from lab.host.network.orders import AT_ONCE, LARGEST_FRAME, NetworkProcess, connected, why

HOST_MAC = "52:54:01:4d:00:01"


class BridgePort:
    """The port of one QEMU process. its: the path that this process listens at. held: a frame that it does
    not take now; the others wait in the tap. counts: of the guest."""

    def __init__(self, interface: str, its: str, counts: FrameCounts) -> None:
        self.interface, self._its, self._counts = interface, its, counts
        self.tap = namespace.add_port(interface)
        self.index = socket.if_nametoindex(interface)
        self.sender: socket.socket | None = None
        self.held: bytes | None = None
        self.refused = False

    def put(self, frame: bytes) -> None:
        """The QEMU has sent a frame."""
        with suppress(OSError):  # the interface is down
            os.write(self.tap, frame)

    def take(self) -> bool:
        """Pass on a frame that the bridge has sent here. False when there is none, or it is not taken now."""
        frame = self.held
        if frame is None:
            try:
                frame = os.read(self.tap, LARGEST_FRAME)
            except OSError:
                return False
        self.held = None
        for _ in range(2):  # another process may have the same path
            try:
                if self.sender is None:
                    self.sender = connected(self._its)
                self.sender.send(frame)
            except BlockingIOError:
                self.held = frame
                return False
            except OSError:
                self._hang_up()
            else:
                self.refused = False
                self._counts.received += 1
                self._counts.received_bytes += len(frame)
                return True
        self.refused = True
        self._counts.absent += 1
        return True

    def _hang_up(self) -> None:
        if self.sender is not None:
            self.sender.close()
            self.sender = None

    def close(self) -> None:
        """The port is gone, and with it the addresses that the bridge has found there."""
        self._hang_up()
        os.close(self.tap)


class BridgeGuest:
    """A guest, by the path that its QEMU processes send to. ports: by the path that each listens at; current:
    the port of the one that was heard last."""

    def __init__(self, name: str, number: int, ours: str) -> None:
        self.name, self._number, self._ours = name, number, ours
        self.counts = FrameCounts()
        self.ports: dict[str, BridgePort] = {}
        self.current: BridgePort | None = None
        self._made = 0
        self.receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.receiver.setblocking(False)
        self.receiver.bind(ours)

    def port(self, its: str, moves: AddressMoves) -> BridgePort:
        """The port of the QEMU that listens at this path. It may be a new one. OSError."""
        found = self.ports.get(its)
        if found is None:
            self._made += 1
            found = self.ports[its] = BridgePort(f"g{self._number}.{self._made}", its, self.counts)
            moves.add_port(found.index, f"{self.name} port {self._made}")
        return found

    def tidy(self) -> None:
        """Remove the ports of former QEMU processes that have ended."""
        for its, port in list(self.ports.items()):
            if port.refused and port is not self.current:
                while port.take():  # what waited for it
                    pass
                self.counts.overflowed += dropped().get(port.interface, 0)
                port.close()
                del self.ports[its]

    def close(self) -> None:
        for port in self.ports.values():
            port.close()
        self.receiver.close()
        with suppress(OSError):
            Path(self._ours).unlink()


class BridgeProcess(NetworkProcess):
    """Passes frames between QEMU processes and their ports."""

    def __init__(self, control: socket.socket) -> None:
        super().__init__(control)
        self._guests: dict[str, BridgeGuest] = {}

    def start(self, order: Mapping[str, Any]) -> str:
        """Make the bridge. Returns why there is none, "" when there is."""
        try:
            namespace.enter_with_bridge(order["host"], HOST_MAC)
            self.moves = AddressMoves()
            for number, (name, place) in enumerate(order["places"].items()):
                guest = self._guests[name] = BridgeGuest(name, number, place["ours"])
                guest.current = guest.port(place["its"], self.moves)
        except OSError as error:
            return why(error)
        return ""

    def serve(self) -> bool:
        ports = [port for guest in self._guests.values() for port in guest.ports.values()]
        free = {port.tap: port for port in ports if port.held is None}
        full = {port.sender.fileno(): port for port in ports if port.held is not None and port.sender}
        doors = {guest.receiver.fileno(): guest for guest in self._guests.values()}
        told = [self.moves.fileno()] if self.moves is not None else []
        ready, writers, _ = select.select([self.control.fileno(), *told, *doors, *free], [*full], [])
        for at in ready:
            if at == self.control.fileno():
                if not self.obey():
                    return False
            elif at in doors:
                self._from(doors[at])
        for port in [*(free[at] for at in ready if at in free), *(full[at] for at in writers)]:
            for _ in range(AT_ONCE):
                if not port.take():
                    break
        if self.moves is not None:
            self.moves.read()
        for guest in self._guests.values():
            guest.tidy()
        return True

    def _from(self, guest: BridgeGuest) -> None:
        """Pass on what a guest has sent."""
        for _ in range(AT_ONCE):
            try:
                frame, its = guest.receiver.recvfrom(LARGEST_FRAME)
            except BlockingIOError:
                return
            if not its or self.moves is None:
                continue
            try:
                guest.current = port = guest.port(its, self.moves)
            except OSError:
                continue
            guest.counts.sent += 1
            guest.counts.sent_bytes += len(frame)
            moves = self.moves.sent(frame, port.index)
            port.put(frame)
            if moves:
                self.moves.read()

    def counts(self) -> dict[str, FrameCounts]:
        """The host's are those of the bridge's own interface. overflowed: those that found a tap full."""
        lost, found = dropped(), {}
        for name, guest in self._guests.items():
            more = sum(lost.get(port.interface, 0) for port in guest.ports.values())
            found[name] = replace(guest.counts, overflowed=guest.counts.overflowed + more)
        return {HOST: _of_the_host(), **found}

    def freeze(self, guest: str) -> None:
        """Nothing is to be done: its frames wait in its tap."""

    def thaw(self, guest: str, its: str) -> None:
        """Its port has to be there."""
        if self.moves is not None:
            with suppress(OSError):
                self._guests[guest].port(its, self.moves)

    def close(self) -> None:
        for guest in self._guests.values():
            guest.close()
        if self.moves is not None:
            self.moves.close()


def dropped() -> dict[str, int]:
    """How many frames found each interface of this namespace full, by its name."""
    return {name: words[11] for name, words in _interfaces().items()}


def _of_the_host() -> FrameCounts:
    words = _interfaces().get(namespace.CARD, [0] * 16)
    return FrameCounts(sent=words[9], received=words[1], sent_bytes=words[8], received_bytes=words[0])


def _interfaces() -> dict[str, list[int]]:
    """/proc/net/dev: bytes, packets, errors, drops and four more of what came in, then of what went out."""
    lines = Path("/proc/self/net/dev").read_text(encoding="ascii").splitlines()[2:]
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): [int(word) for word in rest.split()] for name, _, rest in pairs}
