"""The lab's own network in run.json."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from lab.core.clock import Interval
from lab.core.history import NetworkEnded, NetworkStarted, ResumeCalled, StopCalled
from lab.core.network import HOST, HOST_ADDRESS, AddressMove, FrameCounts
from lab.core.timeline import Call
from lab.record.journal import History
from lab.record.model_clock import Measure
from lab.record.model_network import MoveRecord, NetworkRecord, PlaceRecord
from lab.record.parts import parts_of


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
    parts = [part for _, part in parts_of(history)]
    places = {HOST: PlaceRecord(HOST, HOST_ADDRESS, starts[-1].limits, counts.get(HOST))}
    for start in starts:
        for name, place in start.places.items():
            places[name] = PlaceRecord(name, place.address, place.limits, counts.get(name))
    return NetworkRecord(
        kind="lab",
        seeds=tuple(start.seed for start in starts),
        places=tuple(places.values()),
        no_host=starts[-1].no_host,
        bridge=starts[-1].bridge,
        moves=tuple(move for part in parts or [history] for move in _moves(part)),
    )


def _moves(history: History) -> Iterator[MoveRecord]:
    """Those of one host, whose times are on one scale."""
    starts, ends = list(history.of(NetworkStarted)), list(history.of(NetworkEnded))
    names = {place.mac: name for start in starts for name, place in start.places.items()}
    owners = names | {place.ip: name for start in starts for name, place in start.places.items()}
    stops = [(one.cycle, one.guest, one.call) for one in history.of(StopCalled)]
    resumes = {(one.cycle, one.guest): one.call for one in history.of(ResumeCalled)}
    for move in sorted((one for end in ends for one in end.moves), key=lambda one: one.at_raw_ns):
        guest = owners.get(move.address, "")
        began = [one for one in stops if one[2].called.raw_ns <= move.at_raw_ns]
        cycle = max((one[0] for one in began), default=None)
        of_cycle = [one for one in began if one[0] == cycle]
        own = [one for one in of_cycle if one[1] == guest] or of_cycle
        stop = min((call for _, _, call in own), key=lambda call: call.called.raw_ns, default=None)
        ran = [resumes.get((number, name)) for number, name, _ in own]
        known = [call for call in ran if call is not None]
        last = max(known, key=lambda call: call.called.raw_ns, default=None)
        yield MoveRecord(
            address=move.address,
            guest=guest,
            before=names.get(move.before, move.before),
            after=names.get(move.after, move.after),
            cause=move.cause,
            cycle=cycle,
            since_stop=_since(move, stop),
            since_resume=_since(move, last) if len(known) == len(ran) else None,
        )


def _since(move: AddressMove, call: Call | None) -> Measure | None:
    """How long after a call; what it does may happen anywhere in it."""
    if call is None:
        return None
    first = move.at_raw_ns if move.sent_raw_ns is None else move.sent_raw_ns
    return Measure.of(Interval(first - call.returned.raw_ns, move.at_raw_ns - call.called.raw_ns))
