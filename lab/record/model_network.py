"""run.json's members about the lab's own network."""

from __future__ import annotations

from dataclasses import dataclass

from lab.core.network import FrameCounts, MoveCause, NetworkLimits
from lab.record.model_clock import Measure


@dataclass(frozen=True)
class PlaceRecord:
    """A guest's place, or "host", that of clients. address: with prefix length. counts: null when the run was
    cut off before they were known."""

    name: str
    address: str
    limits: NetworkLimits
    counts: FrameCounts | None


@dataclass(frozen=True)
class MoveRecord:
    """An address has moved, as the kernel of the host's place saw it: a guest's MAC address from one port of
    the bridge to another ("web-0 port 1"), or an IP address from one MAC address to another, each as its
    guest's name where that is known. cause: the frame that told it. cycle: the last one in which a guest was
    stopped before; null before the first. since_stop: since that guest's stop, or the first one's of the
    cycle. since_resume: since its resume, or the last one's of the cycle; negative in the pause; null when it
    was not resumed."""

    address: str
    guest: str
    before: str
    after: str
    cause: MoveCause
    cycle: int | None
    since_stop: Measure | None
    since_resume: Measure | None


@dataclass(frozen=True)
class NetworkRecord:
    """The lab's own network. kind: "lab". seeds: of its losses; one for each set of guests, as cells of a
    matrix may have their own. no_host: why clients of the host had no place in it, "" when they had. bridge:
    a Linux bridge forwarded the frames. moves: addresses that have moved, in order of time."""

    kind: str
    seeds: tuple[int, ...]
    places: tuple[PlaceRecord, ...]
    no_host: str = ""
    bridge: bool = False
    moves: tuple[MoveRecord, ...] = ()
