"""What a connection to a guest's sshd needs: how it is reached, which host key it must show, who logs in."""

from __future__ import annotations

import base64
import shlex
import socket
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import paramiko

from lab.errors import GuestError, MachineError
from lab.guest.banner import wait_for_banner

# Under TCG the guest has no AES instructions worth the name; measured in images/debian/README.md.
CIPHERS = ("aes128-gcm@openssh.com", "aes128-ctr", "aes256-ctr")


class SshServer(Protocol):
    """A guest's sshd: Address for guests that the lab starts, SshRoute for domains of the user's own. str()
    is how messages call it."""

    @property
    def guest(self) -> str: ...

    @property
    def refused(self) -> str:
        """What to do when the login is refused."""

    def login(self) -> Callable[[paramiko.Transport], None]:
        """Load the keys. Returns what logs in with them: it raises paramiko's AuthenticationException when
        none is accepted. MachineError when they cannot be used."""

    def reach(self, deadline_s: float, alive: Callable[[], None], longest_s: float) -> socket.socket:
        """A connection to it, by CLOCK_MONOTONIC `deadline_s`; see wait_for_banner. GuestError when the way
        to it is blocked."""

    def arrange(self, options: paramiko.SecurityOptions) -> None:
        """Choose the algorithms of a connection to it."""

    def verify(self, shown: paramiko.PKey) -> None:
        """RefusedError when this is not its host key."""

    def command(self, command: str) -> str:
        """The shell command that executes `command` there, as root where that can be had."""


@dataclass(frozen=True)
class Address:
    """A guest's sshd: its address, and the keys of both sides.

    host_key: the public key line ("ssh-ed25519 AAAA…") that the guest must show.
    """

    guest: str
    host: str
    port: int
    user: str
    key: Path
    host_key: str

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"

    @property
    def refused(self) -> str:
        return f"the guest does not accept the lab's key {self.key}"

    def login(self) -> Callable[[paramiko.Transport], None]:
        key = load_key(self.key)
        return lambda transport: _ignored(transport.auth_publickey(self.user, key))

    def reach(self, deadline_s: float, alive: Callable[[], None], longest_s: float) -> socket.socket:
        return wait_for_banner(self.host, self.port, deadline_s, alive, longest_s)

    def arrange(self, options: paramiko.SecurityOptions) -> None:
        options.ciphers = [c for c in CIPHERS if c in options.ciphers] or options.ciphers
        options.kex = [k for k in options.kex if k.startswith("curve25519")] or options.kex
        options.key_types = ["ssh-ed25519"]

    def verify(self, shown: paramiko.PKey) -> None:
        if shown != paramiko.Ed25519Key(data=base64.b64decode(self.host_key.split()[1])):
            raise RefusedError(
                f"another host key than the pinned one at {self}",
                where=f"guest {self.guest}",
                hint="another machine answers there; nothing was sent to it",
            )

    def command(self, command: str) -> str:
        return command if self.user == "root" else by_sudo(command)


def by_sudo(command: str) -> str:
    """The shell command that executes `command` as root, where sudo asks for no password."""
    return f"sudo -n -- sh -c {shlex.quote(command)}"


def preferred(wanted: Sequence[str], offered: Sequence[str]) -> list[str]:
    """What is offered, with what is wanted first."""
    return [*(one for one in wanted if one in offered), *(one for one in offered if one not in wanted)]


def _ignored(_result: object) -> None:
    return None


def load_key(path: Path) -> paramiko.PKey:
    """The private key at `path`. MachineError when it is missing, unreadable, open to others, or
    no Ed25519 key."""
    try:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise MachineError("private key can be read by others", where=str(path), hint=f"chmod 600 {path}")
        return paramiko.Ed25519Key.from_private_key_file(str(path))
    except OSError as error:
        raise MachineError(f"cannot read the private key: {error.strerror}", where=str(path)) from error
    except paramiko.SSHException as error:
        hint = "remove it; a new one is created"
        raise MachineError("not an Ed25519 private key", where=str(path), hint=hint) from error


class RefusedError(GuestError):
    """The host key is another one, or the login is refused. Trying again does not help."""
