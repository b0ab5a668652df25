"""One SNTP exchange (RFC 4330): whether a server answers, and the time that it serves."""

from __future__ import annotations

import secrets
import socket
import struct
from dataclasses import dataclass

from lab.core.clock import Interval
from lab.core.units import NS_PER_S
from lab.ports import Clock

_PACKET = struct.Struct("!BBbbIII8s8s8s8s")
"""RFC 5905, figure 8: LI/VN/mode, stratum, poll, precision, root delay, root dispersion, reference id,
then the reference, originate, receive and transmit timestamps."""

_CLIENT = 4 << 3 | 3
_MODE_SERVER = 4
_LEAP_UNKNOWN = 3
_TO_UNIX_S = 2_208_988_800
"""Seconds from the start of NTP era 0 (1900) to the Unix epoch: RFC 5905, figure 4."""


@dataclass(frozen=True)
class SntpAnswer:
    """A server's answer. offset: bounds of the server's clock minus this host's CLOCK_REALTIME, in ns."""

    stratum: int
    offset: Interval


def query(address: str, port: int, clock: Clock, timeout_s: float) -> SntpAnswer:
    """Query the server once. OSError (TimeoutError) when no answer comes, ValueError when the answer is not
    from a synchronised NTP server, or not to this query."""
    cookie = secrets.token_bytes(8)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(timeout_s)
        link.connect((address, port))
        sent = clock.now().real_ns
        link.send(_PACKET.pack(_CLIENT, 0, 0, 0, 0, 0, 0, bytes(8), bytes(8), bytes(8), cookie))
        reply = link.recv(512)
        received = clock.now().real_ns
    if len(reply) < _PACKET.size:
        raise ValueError(f"{len(reply)} bytes are not an NTP packet")
    flags, stratum, *_rest, originate, arrived, departed = _PACKET.unpack_from(reply)
    if flags & 7 != _MODE_SERVER or originate != cookie:
        raise ValueError("not a server's answer to this query")
    if flags >> 6 == _LEAP_UNKNOWN or not 1 <= stratum <= 15:
        raise ValueError(f"the server is not synchronised (stratum {stratum})")
    low, high = _unix_ns(departed) - received, _unix_ns(arrived) - sent
    return SntpAnswer(stratum, Interval(min(low, high), max(low, high)))


def _unix_ns(stamp: bytes) -> int:
    seconds, fraction = struct.unpack("!II", stamp)
    # Era 1 begins in 2036 with seconds from 0: a stamp before 1968 is read as one after 2036.
    if seconds < 1 << 31:
        seconds += 1 << 32
    return int((seconds - _TO_UNIX_S) * NS_PER_S + (fraction * NS_PER_S >> 32))
