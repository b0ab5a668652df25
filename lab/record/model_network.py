"""run.json's members about the lab's own network."""

from __future__ import annotations

from dataclasses import dataclass

from lab.core.network import FrameCounts, NetworkLimits


@dataclass(frozen=True)
class PlaceRecord:
    """A guest's place, or "host", that of clients. address: with prefix length. counts: null when the run was
    cut off before they were known."""

    name: str
    address: str
    limits: NetworkLimits
    counts: FrameCounts | None


@dataclass(frozen=True)
class NetworkRecord:
    """The lab's own network. kind: "lab". seeds: of its losses; one for each set of guests, as cells of a
    matrix may have their own. no_host: why clients of the host had no place in it, "" when they had."""

    kind: str
    seeds: tuple[int, ...]
    places: tuple[PlaceRecord, ...]
    no_host: str = ""
