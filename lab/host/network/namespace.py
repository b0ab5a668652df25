"""The host's own place in the lab's network: a network namespace of this process, with a tap in it, or with
a bridge.

Without root, a user namespace comes first (user_namespaces(7)): there this process is root, and may make
devices in the network namespace that belongs to it. Devices go with the namespace, and the namespace with
its last process.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TAP, IFF_NO_PI = 2, 0x1000
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x8913, 0x8914, 0x8916, 0x891C  # linux/sockios.h
SIOCSIFHWADDR, SIOCBRADDBR, SIOCBRADDIF = 0x8924, 0x89A0, 0x89A2
ARPHRD_ETHER = 1  # linux/if_arp.h
IFF_UP = 1
DEVICE = "/dev/net/tun"
CARD = "lab0"
_LIBC = ctypes.CDLL(None, use_errno=True)


def enter(address: str) -> int:
    """Move this process, which must have one thread, into a network namespace of its own. address: the
    host's there, with prefix length. The result is the tap's descriptor, non-blocking. OSError, with the
    system's reason, where that is forbidden; this process may be in the namespace all the same."""
    _leave_the_hosts()
    tap = _tap(CARD)
    try:
        _without_ipv6(CARD)
        _addressed(address)
    except OSError:
        os.close(tap)
        raise
    return tap


def enter_with_bridge(address: str, mac: str) -> None:
    """The same with a bridge that has the host's address, and this MAC address, which would otherwise change
    with its ports."""
    _leave_the_hosts()
    _without_ipv6("default")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, SIOCBRADDBR, struct.pack("16s", CARD.encode()))
        except OSError as error:
            raise OSError(error.errno, error.strerror, "no bridge can be made") from error
        hardware = struct.pack("16sH6s16x", CARD.encode(), ARPHRD_ETHER, bytes.fromhex(mac.replace(":", "")))
        fcntl.ioctl(any_socket, SIOCSIFHWADDR, hardware)
    _addressed(address)


def add_port(name: str) -> int:
    """A new port of that bridge: a tap, up, which is there until its descriptor, non-blocking, is closed.
    name: at most 15 characters. OSError."""
    tap = _tap(name)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            index = socket.if_nametoindex(name)
            fcntl.ioctl(any_socket, SIOCBRADDIF, struct.pack("16si20x", CARD.encode(), index))
            _up(any_socket, name.encode())
    except OSError:
        os.close(tap)
        raise
    return tap


def _tap(name: str) -> int:
    tap = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    except OSError:
        os.close(tap)
        raise
    return tap


def _without_ipv6(which: str) -> None:
    with suppress(OSError):  # a kernel without IPv6: nobody asks for neighbours and routers
        Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("1", encoding="ascii")


def _addressed(address: str) -> None:
    """Give the host's card its address, with prefix length."""
    host, _, length = address.partition("/")
    mask = socket.inet_ntoa(struct.pack("!I", (0xFFFFFFFF << (32 - int(length))) & 0xFFFFFFFF))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        _up(any_socket, b"lo")
        fcntl.ioctl(any_socket, SIOCSIFADDR, struct.pack("16s16s8x", CARD.encode(), _inet(host)))
        fcntl.ioctl(any_socket, SIOCSIFNETMASK, struct.pack("16s16s8x", CARD.encode(), _inet(mask)))
        _up(any_socket, CARD.encode())


def _leave_the_hosts() -> None:
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        try:
            _unshare(CLONE_NEWNET)
        except OSError as error:
            if error.errno != errno.EPERM:  # root of a container, for example
                raise
        else:
            return
    _unshare(CLONE_NEWUSER | CLONE_NEWNET)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        Path(f"/proc/self/{name}").write_text(text, encoding="ascii")


def _unshare(flags: int) -> None:
    if _LIBC.unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "unshare")


def _up(any_socket: socket.socket, name: bytes) -> None:
    answer = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sH22x", name, 0))
    flags = struct.unpack_from("16xH", answer)[0] | IFF_UP
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", name, flags))


def _inet(address: str) -> bytes:
    """struct sockaddr_in."""
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
