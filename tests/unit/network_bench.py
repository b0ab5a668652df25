"""Two places of the lab's own network, with sockets where QEMU would be."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.core.network import UNLIMITED, NetworkLimits, NetworkPlace, guest_address
from lab.host.network import Attachment, LabNetwork

MACS = {"a": b"\x52\x54\x01\x4d\x00\x0a", "b": b"\x52\x54\x01\x4d\x00\x0b"}
EVERYBODY = b"\xff" * 6


class Qemu:
    """A QEMU process's end: a datagram socket."""

    def __init__(self, path: Path, switch: Path, mac: bytes) -> None:
        self.path, self._switch, self.mac = path, switch, mac
        path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(5)

    def send(self, to: bytes, content: bytes) -> None:
        self.socket.sendto(to + self.mac + content, str(self._switch))

    def receive(self) -> bytes:
        """The next frame's content, but for IP multicasts: a bridge sends some of its own accord."""
        while (frame := self.socket.recv(2000))[:3] == b"\x01\x00\x5e":
            pass
        return frame[12:]

    def nothing_within(self, seconds: float) -> bool:
        self.socket.settimeout(seconds)
        try:
            self.receive()
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(5)
        return False


class Bench:
    """A network of a and b, and their QEMUs. bridge: with a Linux bridge."""

    def __init__(self, folder: Path, limits: NetworkLimits = UNLIMITED, *, bridge: bool = False) -> None:
        self.folder = folder
        self.guests = {
            name: Attachment(
                NetworkPlace(guest_address(number), limits), folder / f"s{number}", folder / f"q{number}"
            )
            for number, name in enumerate("ab")
        }
        self.network = LabNetwork(self.guests, limits, bridge=bridge)

    def qemu(self, name: str, path: Path | None = None) -> Qemu:
        one = self.guests[name]
        return Qemu(path or one.its, one.ours, MACS[name])


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets, and which has to be empty at the end."""
    made = Path(f"/tmp/fl-net-{os.getpid()}")
    made.mkdir()
    yield made
    for path in made.iterdir():
        path.unlink()
    made.rmdir()


def settle(bench: Bench, *pairs: tuple[Qemu, Qemu]) -> None:
    """Have the switch know everybody."""
    for one, other in pairs:
        one.send(EVERYBODY, b"hello")
        assert other.receive() == b"hello"
        other.send(EVERYBODY, b"hello")
        assert one.receive() == b"hello"
