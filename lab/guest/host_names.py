"""Host names of the metadata service in a guest: a line in its /etc/hosts, as some clouds' images have it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

import paramiko

from lab.errors import GuestError
from lab.guest.forward import ADDRESS
from lab.guest.ssh import SSH

_MARK = "# added by freezelab"
_ADD = f"grep -qs '{_MARK}$' /etc/hosts || echo '{ADDRESS} %s {_MARK}' >>/etc/hosts"
_REMOVE = f"grep -qs '{_MARK}$' /etc/hosts && sed -i '/{_MARK}$/d' /etc/hosts"
_LIMIT_S = 20.0


class MetadataHostNames:
    """A context manager: while it is open, these names lead to the service's address in the guest. ssh: the
    guest's SSH connection, or None while there is none. Without names it does nothing, and a /etc/hosts that
    cannot be written stays as it is."""

    def __init__(self, ssh: Callable[[], SSH | None], names: Sequence[str]) -> None:
        self._ssh, self._names = ssh, names

    def __enter__(self) -> MetadataHostNames:
        """GuestError when the guest does not answer."""
        ssh = self._ssh()
        if self._names and ssh is not None:
            ssh.run(_ADD % " ".join(self._names), _LIMIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        ssh = self._ssh()
        if self._names and ssh is not None and ssh.alive:
            with suppress(GuestError, paramiko.SSHException, OSError, EOFError):
                ssh.run(_REMOVE, _LIMIT_S)
