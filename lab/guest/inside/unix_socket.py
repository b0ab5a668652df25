"""How a program in a guest is reached again: the part of all that go on without their first connection.

A Unix socket without a name in the file system: it is bound by one for a moment only, and kept by its
inode, which connect(2) takes as /proc/PID/fd/N. The kernel opens that to the same user only, and it is
gone when the program is. sshd connects to it, for a channel of the kind direct-streamlocal.

A program that sudo has made root keeps the name, because sshd is the user's: it is the user's file.
"""

import atexit
import os
import socket
import struct
from binascii import hexlify

FOLDERS = ("/run", "/dev/shm", "/tmp")  # noqa: S108 - the name in it is random, and gone at once


def caller() -> int:
    """The user who may connect: who called sudo, or who runs this."""
    by_sudo = os.environ.get("SUDO_UID", "")
    return int(by_sudo) if by_sudo.isdigit() and os.getuid() == 0 else os.getuid()


def remove_file(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def listen() -> "tuple[socket.socket, str]":
    """A listening socket, and the path to connect to; "" when there is no folder to bind it in."""
    listener = socket.socket(socket.AF_UNIX)
    listener.setblocking(False)
    before = os.umask(0o177)
    try:
        for folder in FOLDERS:
            path = "%s/freezelab-%s" % (folder, hexlify(os.urandom(16)).decode())
            try:
                listener.bind(path)
            except OSError:
                continue
            listener.listen(4)
            if caller() != os.getuid():
                os.chown(path, caller(), -1)
                atexit.register(remove_file, path)
                return listener, path
            inode = os.open(path, os.O_PATH)
            os.unlink(path)
            return listener, "/proc/%d/fd/%d" % (os.getpid(), inode)
    finally:
        os.umask(before)
    return listener, ""


def accept(listener: socket.socket) -> "socket.socket | None":
    """Who connected, when it is a process of ours or of the caller's."""
    try:
        peer = listener.accept()[0]
    except OSError:
        return None
    user = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
    if user not in (os.getuid(), caller()):
        peer.close()
        return None
    peer.setblocking(False)
    return peer


def receive_request(listener: socket.socket, patience_s: float) -> "tuple[socket.socket | None, bytes]":
    """Who connected, if accept() takes them, and the line that they sent; b"" when none came in time."""
    peer = accept(listener)
    if peer is None:
        return None, b""
    peer.settimeout(patience_s)
    try:
        return peer, peer.makefile("rb").readline(100).strip()
    except OSError:
        return peer, b""


def send_answer(peer: socket.socket, answer: bytes) -> None:
    """The last of a connection. Who has gone gets none."""
    try:
        peer.sendall(answer)
    except OSError:
        pass
    peer.close()
