"""Sees addresses move: MAC addresses between the ports of a bridge, and IP addresses between MAC addresses.

The kernel tells both to listeners of rtnetlink(7), as to `bridge monitor fdb` and `ip monitor neigh`. What
made an address move is known from the frames that guests sent: a bridge learns from the first frame that
comes in at another port, and the host's neighbour table from ARP.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TypeVar

from lab.core.network import AddressMove, MoveCause

MOST_MOVES = 2000
"""More are not kept."""

_MOST_ADDRESSES = 4096
_RTMGRP_NEIGH = 1 << 2  # linux/rtnetlink.h
_RTM_NEWNEIGH = 28
_NDA_DST, _NDA_LLADDR = 1, 2  # linux/neighbour.h
_NUD_PERMANENT = 0x80
_AF_BRIDGE = 7
_RARP, _ARP = b"\x80\x35", b"\x08\x06"
_ARP_LENGTH = 42
_LARGEST = 1 << 16
_UNKNOWN = (MoveCause.UNKNOWN, None)
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def raw_ns() -> int:
    """The host's MONOTONIC_RAW."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


def cause_of(frame: bytes) -> MoveCause:
    """What a frame is that a guest, or its QEMU, has sent."""
    kind = frame[12:14]
    if kind == _RARP:
        return MoveCause.ANNOUNCEMENT
    if kind == _ARP and len(frame) >= _ARP_LENGTH:
        return MoveCause.GRATUITOUS_ARP if frame[28:32] == frame[38:42] else MoveCause.ARP
    return MoveCause.TRAFFIC


class AddressMoves:
    """The moves in this process's network namespace, from now on. OSError when the kernel tells none."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind((0, _RTMGRP_NEIGH))
        self._ports: dict[int, str] = {}
        self._where: dict[str, str] = {}
        self._first: dict[tuple[str, int], tuple[MoveCause, int | None]] = {}
        self._named: dict[tuple[str, str], tuple[MoveCause, int | None]] = {}
        self._found: list[AddressMove] = []

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def add_port(self, index: int, name: str) -> None:
        """A port of the bridge, by its interface's index."""
        self._ports[index] = name

    def sent(self, frame: bytes, index: int = 0) -> bool:
        """A guest has sent a frame, which is about to reach the kernel. index: its port; 0: no bridge.
        Returns True when the bridge has not yet seen its sender there."""
        mac = frame[6:12]
        if frame[12:14] == _ARP and len(frame) >= _ARP_LENGTH:
            named = socket.inet_ntoa(frame[28:32]), _text(frame[22:28])
            _keep(self._named, named, (cause_of(frame), raw_ns()))
        if not index or len(mac) < 6 or mac[0] & 1 or self._where.get(_text(mac)) == self._ports.get(index):
            return False
        if (_text(mac), index) not in self._first:
            _keep(self._first, (_text(mac), index), (cause_of(frame), raw_ns()))
        return True

    def read(self) -> None:
        """Read what the kernel has told."""
        while True:
            try:
                data = self._socket.recv(_LARGEST)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: too many at once
                continue
            now = raw_ns()
            for family, index, state, attributes in _messages(data):
                mac = _text(attributes.get(_NDA_LLADDR, b""))
                if family == _AF_BRIDGE and index in self._ports and not state & _NUD_PERMANENT:
                    self._seen(mac, self._ports[index], self._first.pop((mac, index), _UNKNOWN), now)
                elif family == socket.AF_INET and mac and len(attributes.get(_NDA_DST, b"")) == 4:
                    ip = socket.inet_ntoa(attributes[_NDA_DST])
                    self._seen(ip, mac, self._named.get((ip, mac), _UNKNOWN), now)

    def take(self, most: int) -> list[AddressMove]:
        """The oldest moves that were not taken yet."""
        with suppress(OSError):
            self.read()
        taken, self._found = self._found[:most], self._found[most:]
        return taken

    def _seen(self, address: str, where: str, by: tuple[MoveCause, int | None], now: int) -> None:
        before = self._where.get(address)
        if before == where:
            return
        _keep(self._where, address, where)
        if before is not None and len(self._found) < MOST_MOVES:
            self._found.append(AddressMove(address, before, where, by[0], now, by[1]))


def _keep(table: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    """Put it in, and drop all others when a guest invents addresses."""
    if len(table) >= _MOST_ADDRESSES:
        table.clear()
    table[key] = value


def _text(mac: bytes) -> str:
    return mac.hex(":")


def _messages(data: bytes) -> Iterator[tuple[int, int, int, dict[int, bytes]]]:
    """Of each new or changed neighbour: its family, interface and state, and its attributes."""
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        if not 16 <= length <= len(data):
            return
        body, data = data[16:length], data[(length + 3) & ~3 :]
        if kind != _RTM_NEWNEIGH or len(body) < 12:
            continue
        family, index, state = struct.unpack_from("=B3xiH", body)
        attributes: dict[int, bytes] = {}
        rest = body[12:]
        while len(rest) >= 4:
            size, what = struct.unpack_from("=HH", rest)
            if not 4 <= size <= len(rest):
                break
            attributes[what] = rest[4:size]
            rest = rest[(size + 3) & ~3 :]
        yield family, index, state, attributes
