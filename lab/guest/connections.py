"""What ends all waiting for a guest: it has ended, it sleeps, it was reset, or nobody wants it any more.

A guest that is gone does not say so: what was sent to it stays unanswered, and TCP tries again for minutes.
But libvirt knows at once. So every connection to a guest belongs to its Life, and whoever learns that it is
over cuts them all: those that wait are woken, and raise why.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from lab.errors import GuestGone


class Link:
    """A connection that can be cut from any thread. why: None until it was."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.why: GuestGone | None = None

    def cut(self, why: GuestGone) -> None:
        self.why = why
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes whoever reads or writes, which closing does not


class GuestConnections:
    """One guest's connections. look: raises GuestGone when what is known of the guest leaves no hope.
    Safe from any thread."""

    def __init__(self, look: Callable[[], None] = lambda: None) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._links: list[Link] = []
        self._over: GuestGone | None = None

    def check(self) -> None:
        """GuestGone when there is no hope of an answer."""
        if self._over is not None:
            raise self._over.again()
        self._look()

    def link(self, sock: socket.socket) -> Link:
        """A connection, from now until it is dropped. GuestGone when it is over."""
        link = Link(sock)
        with self._lock:
            if self._over is not None:
                raise self._over.again()
            self._links.append(link)
        return link

    def drop(self, link: Link) -> None:
        with self._lock, suppress(ValueError):
            self._links.remove(link)

    def cut(self, why: GuestGone) -> None:
        """End the connections that there are; others may be made."""
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            link.cut(why)

    def end(self, why: GuestGone) -> None:
        """End them, for good."""
        with self._lock:
            self._over = self._over or why
        self.cut(why)
