"""The network of the lab's own: the limits of its links, and the guests' places in it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

HOST = "host"
"""The name of the host's own place, where clients run."""

HOST_ADDRESS = "10.77.0.1/24"
_FIRST_GUEST = 10
_MAC = "52:54:01"
"""Locally administered (IEEE 802, the second bit), and not QEMU's own 52:54:00."""


@dataclass(frozen=True)
class NetworkLimits:
    """The limits of a place. Between two places the stricter of both applies, in each direction.

    delay_ns: from the end of a frame's transmission to its arrival. loss: the share of frames that are lost,
    0 to 1. bits_per_s: the bandwidth of the place's link, each way; 0: no limit. queue: how many frames wait
    for a frozen guest, and for the link's bandwidth; further ones are dropped.
    """

    delay_ns: int = 0
    loss: float = 0.0
    bits_per_s: int = 0
    queue: int = 1000


UNLIMITED = NetworkLimits()


@dataclass(frozen=True)
class NetworkPlace:
    """A guest's place in the lab's network. address: with prefix length."""

    address: str
    limits: NetworkLimits = UNLIMITED

    @property
    def ip(self) -> str:
        return self.address.partition("/")[0]

    @property
    def mac(self) -> str:
        """The address of its network card: the last three bytes are those of its IP address."""
        return ":".join([_MAC, *(f"{int(part):02x}" for part in self.ip.split(".")[1:])])


@dataclass(frozen=True)
class NetworkSpec:
    """The lab's network of a plan. limits: those of the host's place, and of guests without their own. seed:
    of the losses; None: the run chooses and records one. bridge: a Linux bridge forwards the frames, and no
    limits apply."""

    limits: NetworkLimits = UNLIMITED
    seed: int | None = None
    bridge: bool = False


def guest_address(number: int) -> str:
    """The address of the guest with this number, from 0 on, in the order of the playbook."""
    before, _, length = HOST_ADDRESS.partition("/")
    return f"{before.rpartition('.')[0]}.{_FIRST_GUEST + number}/{length}"


@dataclass
class FrameCounts:
    """What passed a guest's place. sent, received: frames that came from the guest, and that it took; the
    bytes are those of these frames. lost: frames for it that were lost on purpose. overflowed: those that
    found its queue full. absent: those that came while no QEMU process was there."""

    sent: int = 0
    received: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    lost: int = 0
    overflowed: int = 0
    absent: int = 0


class MoveCause(StrEnum):
    """The frame that made an address move: the first from the new port, or the one that named the new MAC
    address."""

    ANNOUNCEMENT = "qemu-announcement"  # RARP, from QEMU (net/announce.c)
    GRATUITOUS_ARP = "gratuitous-arp"
    ARP = "arp"
    TRAFFIC = "traffic"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class AddressMove:
    """An address is somewhere else, by the kernel of the host's place. address: a MAC address that has moved
    from one port of the bridge to another ("web-0 port 1"), or an IP address that has moved from one MAC
    address to another. at_raw_ns: host MONOTONIC_RAW at which the kernel's message of it was read.
    sent_raw_ns: when the frame that caused it was about to reach the kernel; None: that is not known."""

    address: str
    before: str
    after: str
    cause: MoveCause
    at_raw_ns: int
    sent_raw_ns: int | None = None
