"""Cuts a guest's connections when the guest has ended, sleeps, was reset, or is no longer needed.

A guest that is gone does not close its connections: requests stay unanswered, and TCP retries for minutes.
But libvirt knows at once. So every connection to a guest belongs to its GuestConnections, and the thread that
learns of the guest's end cuts them all. Waiting threads wake up and raise the reason.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from lab.errors import GuestGone


class Link:
    """A connection that can be cut from any thread. why: the reason; None until it was cut."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.why: GuestGone | None = None

    def cut(self, why: GuestGone) -> None:
        self.why = why
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes waiting readers and writers; close() does not


class GuestConnections:
    """One guest's connections. look: raises GuestGone when the guest is known to be unable to answer. Safe
    from any thread."""

    def __init__(self, look: Callable[[], None] = lambda: None) -> None:
        self._look = look
        self._lock = threading.Lock()
        self._links: list[Link] = []
        self._over: GuestGone | None = None

    def check(self) -> None:
        """GuestGone when the guest cannot answer."""
        if self._over is not None:
            raise self._over.again()
        self._look()

    def link(self, sock: socket.socket) -> Link:
        """Register a connection, until it is dropped. GuestGone when the connections have been ended for
        good."""
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
        """Cut all present connections; new ones may be made."""
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            link.cut(why)

    def end(self, why: GuestGone) -> None:
        """Cut all connections for good; no new ones can be made."""
        with self._lock:
            self._over = self._over or why
        self.cut(why)
