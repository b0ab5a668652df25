"""The messages between the controller and the dead-man, and the token that only one of them gets.

They use a SOCK_SEQPACKET pair (unix(7)): each packet is a message and may carry file descriptors
(SCM_RIGHTS), and the end of either process is an end of file at the other. Messages that a dead controller
has sent are still read.

    controller: guard {rescue, cycle, until_raw_ns} + descriptors, release {guest}, beat, give up
    dead-man:   armed {guest, why}, beat, acted {guest, act, why}
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

BEAT_S = 0.25
"""Interval of both sides' `beat` messages while a guest is guarded, in seconds."""

SILENT_S = 3.0
"""A side that is silent for this long counts as stopped. On a fully loaded two-core host, a controller's
thread never missed a second."""

_MOST = 1 << 17  # bytes of a message; a domain's XML is the largest, some 6 KiB
_MOST_FILES = 8


class Token:
    """The right to decide a hand-over, which exactly one process gets. The controller takes it before it
    tells the successor to run, the dead-man before it ends the successor. It is an eventfd(2) with the value
    1: the first read takes the token atomically, and later reads find nothing."""

    def __init__(self, handle: int | None = None) -> None:
        self.handle = os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if handle is None else handle
        self._taken = False

    def take(self) -> bool:
        """Take the token. Returns whether this process has it, from now or from before."""
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
    """The two ends of a new socket pair, both non-blocking."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (one, other):
        end.setblocking(False)
    return one, other


def send(end: socket.socket, kind: str, files: list[int] | None = None, **data: Any) -> None:
    """Send one message. OSError when the other end is gone, or its queue is full because it hangs."""
    text = json.dumps({"kind": kind, **data}).encode()
    socket.send_fds(end, [text], files or [], socket.MSG_NOSIGNAL)


def receive(end: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and its descriptors. None at the end of file; BlockingIOError when none has arrived
    yet."""
    try:
        text, files, _flags, _address = socket.recv_fds(end, _MOST, _MOST_FILES, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None
    if not text:
        return None
    message: dict[str, Any] = json.loads(text)
    return message, list(files)
