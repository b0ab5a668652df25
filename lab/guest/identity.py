"""The host's end of inside/golden_probe.py: prepares a guest for copying, and gives each copy its own
identity.

It uses the guest's virtio-serial channel, which needs neither network nor login, because both are changed.
"""

from __future__ import annotations

import binascii
import json
import os
import select
import socket
import time
import uuid as uuids
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import paramiko

from lab.core.units import NS_PER_S
from lab.errors import GuestError
from lab.guest import program
from lab.guest.client import START_S, ChannelLines, last_error
from lab.guest.probe import Waiting
from lab.guest.ssh import SSH
from lab.ports import Clock

PROGRAM = "golden_probe"
SEED_BYTES = 64
_LOOK_S = 0.25


@dataclass(frozen=True)
class Identity:
    """A guest's new identity.

    uuid: its machine's uuid in QEMU. address: eth0's address with its prefix length; gateway: "" for none.
    files: (content, mode) by absolute path: its names, keys and machine-id. boot_id, random: values that were
    never used before.
    """

    name: str
    uuid: str
    address: str
    gateway: str
    files: Mapping[str, tuple[bytes, int]]
    boot_id: str = field(default_factory=lambda: str(uuids.uuid4()))
    random: bytes = field(default_factory=lambda: os.urandom(SEED_BYTES), repr=False)

    def order(self) -> bytes:
        """The line that sends the identity to the guest."""
        encoded = {path: (mode, _base64(content)) for path, (content, mode) in self.files.items()}
        return b"be %s" % json.dumps(
            {
                "name": self.name,
                "uuid": self.uuid,
                "boot_id": self.boot_id,
                "random": self.random.hex(),
                "network": {"address": self.address, "gateway": self.gateway},
                "files": encoded,
            }
        ).encode("ascii")


@dataclass(frozen=True)
class CloneResult:
    """A copy with its new identity. mac: its network card's address, as the guest reports it. clock_ns: its
    CLOCK_REALTIME was set to the host's, and is behind by at most this."""

    mac: str
    clock_ns: int


def source() -> bytes:
    """The source of the program that waits in a golden guest."""
    return program.source(PROGRAM)


def wait_inside(ssh: SSH) -> Waiting:
    """Start the program that waits in a golden guest. GuestError when it does not start."""
    channel = ssh.channel(program.start_command(PROGRAM))
    hello = json.loads(_first_line(ssh, channel, "H "))
    return Waiting(str(hello["path"]), int(hello["resolution_ns"]))


def _first_line(ssh: SSH, channel: paramiko.Channel, begins: str) -> str:
    """The program's first line, without its prefix `begins`. GuestError when there is none."""
    where = f"guest {ssh.address.guest}"
    line = ""
    try:
        line = ChannelLines(channel).read(time.monotonic() + START_S).decode(errors="replace")
    except EOFError:
        pass
    except OSError as error:
        raise GuestError(
            f"the program that waits in the guest does not start: {error}", where=where
        ) from error
    if not line.startswith(begins):
        raise GuestError(
            f"the program that waits in the guest ended: {last_error(channel) or line}", where=where
        )
    return line.removeprefix(begins)


class CloneClient:
    """The channel to inside/golden_probe.py in one guest. A context manager.

    path: QEMU's socket. alive: called while waiting; raises when the guest cannot answer any more.
    Every method raises GuestError when no answer comes by CLOCK_MONOTONIC_RAW `deadline_raw_ns`, or the guest
    fails.
    """

    def __init__(
        self, guest: str, path: Path, clock: Clock, deadline_raw_ns: int, alive: Callable[[], None]
    ) -> None:
        self._where, self._clock, self._deadline, self._alive = (
            f"guest {guest}",
            clock,
            deadline_raw_ns,
            alive,
        )
        self._unread = b""
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise GuestError(f"it has no serial channel: {error.strerror}", where=self._where) from error

    def __enter__(self) -> CloneClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()  # does nothing after hand_over()

    def settle(self) -> None:
        """Prepare the guest for copying. Nobody may be logged in, and nobody can log in from now on."""
        self._ask(b"settle", b"settled")

    def personalise(self, identity: Identity) -> CloneResult:
        """Give the guest its new identity."""
        self._set_time()  # so that all later changes have the right time
        reply = json.loads(self._ask(identity.order(), b"is "))
        return CloneResult(str(reply["mac"]), self._set_time())

    def hand_over(self) -> socket.socket:
        """QEMU's socket, which belongs to the caller from now on."""
        return socket.socket(socket.AF_UNIX, fileno=self._socket.detach())

    def _set_time(self) -> int:
        """Set the guest's clock. Returns by how many ns it may be behind: it was set when the guest
        answered, at the latest."""
        sent = self._clock.now()
        self._ask(b"time %d" % sent.real_ns, b"time ")
        return self._clock.now().raw_ns - sent.raw_ns

    def _ask(self, line: bytes, begins: bytes) -> bytes:
        try:
            self._socket.sendall(b"g %s\n" % line)
            answer = self._line()
        except OSError as error:
            raise GuestError(f"its serial channel failed: {error.strerror}", where=self._where) from error
        if not answer.startswith(b"G " + begins):
            raise GuestError(answer.decode(errors="replace").removeprefix("E "), where=self._where)
        return answer.removeprefix(b"G " + begins)

    def _line(self) -> bytes:
        while b"\n" not in self._unread:
            left_s = (self._deadline - self._clock.now().raw_ns) / NS_PER_S
            if left_s <= 0:
                raise GuestError("it does not answer over its serial channel", where=self._where)
            if not select.select([self._socket], [], [], min(left_s, _LOOK_S))[0]:
                self._alive()
                continue
            data = self._socket.recv(1 << 16)
            if not data:
                raise GuestError("its serial channel was closed", where=self._where)
            self._unread += data
        line, self._unread = self._unread.split(b"\n", 1)
        return line


def _base64(content: bytes) -> str:
    return binascii.b2a_base64(content, newline=False).decode("ascii")
