"""The lab's own network in run.json."""

from __future__ import annotations

from dataclasses import asdict

from lab.core.history import NetworkEnded, NetworkStarted
from lab.core.network import HOST, HOST_ADDRESS, FrameCounts
from lab.record.journal import History
from lab.record.model_network import NetworkRecord, PlaceRecord


def network_of(history: History) -> NetworkRecord | None:
    """The network of a run; None when it had none. Guests of several cells have one after another, of which
    the counts are added up."""
    starts, ends = list(history.of(NetworkStarted)), list(history.of(NetworkEnded))
    if not starts:
        return None
    counts: dict[str, FrameCounts] = {}
    for end in ends:
        for name, each in end.counts.items():
            before = asdict(counts.get(name, FrameCounts()))
            counts[name] = FrameCounts(**{what: before[what] + count for what, count in asdict(each).items()})
    places = {HOST: PlaceRecord(HOST, HOST_ADDRESS, starts[-1].limits, counts.get(HOST))}
    for start in starts:
        for name, place in start.places.items():
            places[name] = PlaceRecord(name, place.address, place.limits, counts.get(name))
    return NetworkRecord(
        kind="lab",
        seeds=tuple(start.seed for start in starts),
        places=tuple(places.values()),
        no_host=starts[-1].no_host,
    )
