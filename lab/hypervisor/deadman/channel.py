"""What the controller and the dead-man say to each other, and the token that only one of them gets.

One SOCK_SEQPACKET pair (unix(7)): a datagram is a message, file descriptors travel with it (SCM_RIGHTS), and
the end of either process is an end of file at the other. What a dead controller has sent is still read.

    controller: guard {rescue, cycle, until_raw_ns} + descriptors, release {guest}, beat, give up
    dead-man:   armed {guest, why}, beat, acted {guest, act, why}
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

BEAT_S = 0.25
"""How often both sides say that they are there, while something is guarded."""

SILENT_S = 3.0
"""A side that says nothing for so long is stopped, or as good as that. A thread of a controller on a host
with both cores taken was never seen to miss a second."""

_MOST = 1 << 17  # bytes of a message; a domain's XML is the largest, some 6 KiB
_MOST_FILES = 8


class Token:
    """The right to decide a hand-over, which exactly one process gets: the controller takes it before it
    tells the successor to run, the dead-man before it ends the successor. An eventfd(2) that holds 1: a read
    takes it, atomically, and whoever comes later finds nothing."""

    def __init__(self, handle: int | None = None) -> None:
        self.handle = os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if handle is None else handle
        self._taken = False

    def take(self) -> bool:
        """Whether it is ours, now or since earlier."""
        if not self._taken:
            try:
                os.eventfd_read(self.handle)
            except BlockingIOError:
                return False
            self._taken = True
        return True

    def close(self) -> None:
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends; neither blocks."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (one, other):
        end.setblocking(False)
    return one, other


def send(end: socket.socket, kind: str, files: list[int] | None = None, **data: Any) -> None:
    """Send one message. OSError when the other end is gone, or has not read for so long that it is stuck."""
    text = json.dumps({"kind": kind, **data}).encode()
    socket.send_fds(end, [text], files or [], socket.MSG_NOSIGNAL)


def receive(end: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and its descriptors. None at the end of file; BlockingIOError when there is none
    yet."""
    try:
        text, files, _flags, _address = socket.recv_fds(end, _MOST, _MOST_FILES, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None
    if not text:
        return None
    message: dict[str, Any] = json.loads(text)
    return message, list(files)
