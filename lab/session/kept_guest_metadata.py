"""Makes a metadata service reachable inside kept guests, and restores the connection when it is lost."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from lab.errors import GuestError
from lab.events.service import MetadataService
from lab.guest.forward import MetadataForward
from lab.guest.host_names import MetadataHostNames
from lab.guest.ssh import SSH
from lab.ports import Clock
from lab.session.kept_guests import KeptGuest
from lab.session.parallel import enter_together

LOGIN_S = 10.0


class KeptGuestLogin:
    """A kept guest's SSH connection. A context manager; called by the forward, for as long as it is open."""

    def __init__(self, guest: KeptGuest, clock: Clock) -> None:
        self._guest, self._clock = guest, clock
        self._ssh: SSH | None = None

    def __enter__(self) -> KeptGuestLogin:
        """GuestError when the guest does not answer."""
        self._ssh = SSH.connect(self._guest.address, self._clock, LOGIN_S)
        return self

    def __exit__(self, *_: object) -> None:
        if self._ssh is not None:
            self._ssh.close()

    def __call__(self) -> SSH | None:
        """The present connection, or a new one; None while the guest does not answer."""
        if self._ssh is None or not self._ssh.alive:
            try:
                self._ssh = SSH.connect(self._guest.address, self._clock, LOGIN_S)
            except GuestError:
                return None
        return self._ssh


def bring_inside(stack: ExitStack, service: MetadataService, guests: list[KeptGuest], clock: Clock) -> None:
    """Make the service reachable in each guest at its usual address until `stack` is left. GuestError when a
    guest does not answer, or its sshd does not allow it."""
    logins = [KeptGuestLogin(guest, clock) for guest in guests]
    enter_together(stack, logins)
    forwards = [
        MetadataForward(guest.name, login, partial(service.connect, guest.name))
        for guest, login in zip(guests, logins, strict=True)
    ]
    enter_together(stack, forwards)
    names = service.answers.cloud.traits.host_names
    enter_together(stack, [MetadataHostNames(login, names) for login in logins])
