"""States over time: who claims a role, when a value has changed, and when two guests claimed the same role.

A look shows a value as it was at some instant between its question and its answer, both on the host's clock.
Two things are assumed besides. A guest that claims a role in two looks, one after another, has claimed it in
between: a frozen guest cannot give it up. And of two looks at one guest the one that was answered first is
the older one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby, pairwise

from lab.core.clock import Interval
from lab.core.workload.sample import StateLook, StateValue


@dataclass(frozen=True)
class StateChange:
    """A value has changed, according to one guest ("": to all). at: when, host MONOTONIC_RAW; of a value that
    all share, when the first of the guests that were asked has learned it."""

    name: str
    by: str
    before: StateValue
    after: StateValue
    at: Interval


@dataclass(frozen=True)
class Overlap:
    """Two guests have claimed the same role at the same time. length: for how long, at least and at most; at
    least 0: it may be that they have not. from_ns: host MONOTONIC_RAW of the first instant at which both may
    have."""

    name: str
    holders: tuple[str, str]
    length: Interval
    from_ns: int


@dataclass(frozen=True)
class _Claim:
    """A guest has claimed a role: certainly within each of `sure`, and at most within `most`."""

    by: str
    sure: tuple[Interval, ...]
    most: Interval


def looks_of(looks: Sequence[StateLook], name: str) -> dict[str, list[tuple[StateLook, StateValue]]]:
    """The looks at one name, by who was asked, in order of their answers; those without a value are left
    out."""
    found: dict[str, list[tuple[StateLook, StateValue]]] = {}
    for look in _in_order(looks):
        if look.values.get(name) is not None:
            found.setdefault(look.by, []).append((look, look.values[name]))
    return found


def _in_order(looks: Sequence[StateLook]) -> list[StateLook]:
    return sorted(looks, key=lambda look: (look.done_ns, look.sent_ns))


def changes(looks: Sequence[StateLook], name: str) -> list[StateChange]:
    """The changes of a value, each according to who was asked, in order of time."""
    found = []
    for by, own in looks_of(looks, name).items():
        for (before, old), (after, new) in pairwise(own):
            if old != new:
                at = Interval(min(before.sent_ns, after.sent_ns), after.done_ns)
                found.append(StateChange(name, by, old, new, at))
    return sorted(found, key=lambda change: (change.at.high_ns, change.at.low_ns))


def agreed_change(looks: Sequence[StateLook], name: str) -> list[StateChange]:
    """The same for a value that all guests share, such as the leader: only the changes that are certain.

    No change is shown by a guest that learns late what another has shown already, by one that is asked for
    the first time (what it shows may be old), nor by one alone that shows an earlier value again, as after a
    restart: another one has to follow it.
    """
    guests = {look.by for look in looks if look.values.get(name) is not None}
    return _Agreed(name, alone=len(guests) == 1).all(looks)


class _Agreed:
    """The values that were agreed on, one after another, and how far each guest is in them: the place of
    what it shows; None: it has shown nothing that was agreed on."""

    def __init__(self, name: str, *, alone: bool) -> None:
        self._name, self._alone = name, alone
        self._values: list[StateValue] = []
        self._place: dict[str, int | None] = {}
        self._shown: dict[str, tuple[StateValue, int]] = {}
        self._gone_back: dict[str, StateValue] = {}
        self._since: int | None = None

    def all(self, looks: Sequence[StateLook]) -> list[StateChange]:
        found = []
        for look in _in_order(looks):
            value = look.values.get(self._name)
            if value is None:
                continue
            if self._since is None:
                self._since = look.sent_ns
            if self._is_new(look.by, value):
                at = Interval(self._earliest(look, value), look.done_ns)
                found.append(StateChange(self._name, "", self._values[-1], value, at))
                self._append(look.by, value, at.low_ns)
            self._shown[look.by] = (value, look.sent_ns)
        return found

    def _earliest(self, look: StateLook, value: StateValue) -> int:
        """No guest had learned it when it was last asked; one that shows it already may have since then."""
        known = [sent for shown, sent in self._shown.values() if shown != value]
        if len(known) < len(self._shown) and self._since is not None:
            known.append(self._since)
        return min([*known, look.sent_ns])

    def _append(self, by: str, value: StateValue, since: int) -> None:
        self._values.append(value)
        self._since = since
        for one in {by, *(one for one, back in self._gone_back.items() if back == value)}:
            self._place[one] = len(self._values) - 1
            self._gone_back.pop(one, None)

    def _is_new(self, by: str, value: StateValue) -> bool:
        if not self._values:
            self._values.append(value)
        if by not in self._shown:
            self._place[by] = self._last(value)
            return False
        if self._shown[by][0] == value:
            return False
        self._gone_back.pop(by, None)
        place = self._place[by]
        later = self._first(value, 0 if place is None else place + 1)
        if later is not None:
            self._place[by] = later
            return False
        if place is None:
            return False
        if self._alone or self._last(value) is None or value in self._gone_back.values():
            return True
        self._gone_back[by], self._place[by] = value, self._last(value)
        return False

    def _first(self, value: StateValue, start: int) -> int | None:
        return next((at for at in range(start, len(self._values)) if self._values[at] == value), None)

    def _last(self, value: StateValue) -> int | None:
        return next((at for at in reversed(range(len(self._values))) if self._values[at] == value), None)


def _claims(
    own: Sequence[tuple[StateLook, StateValue]], began_ns: int | None, ended_ns: int | None
) -> Iterator[_Claim]:
    """The times of a role's claims by one guest: looks that say true."""
    denied = [look for look, value in own if value is not True]
    for claimed, group in groupby(enumerate(own), lambda item: item[1][1] is True):
        if not claimed:
            continue
        places = [place for place, _ in group]
        within = [own[place][0] for place in places]
        first, last = within[0].done_ns, max(look.sent_ns for look in within)
        earliest, latest = min(look.sent_ns for look in within), within[-1].done_ns
        if places[0]:
            earliest = min(earliest, own[places[0] - 1][0].sent_ns)
        elif began_ns is not None:
            earliest = min(earliest, began_ns)
        if places[-1] + 1 < len(own):
            latest = max(latest, own[places[-1] + 1][0].done_ns)
        elif ended_ns is not None:
            latest = max(latest, ended_ns)
        yield _Claim(within[0].by, tuple(_without(first, last, denied)), Interval(earliest, latest))


def _without(low: int, high: int, denied: Sequence[StateLook]) -> Iterator[Interval]:
    """What is left of [low, high] without the looks at which the guest, at some instant, did not claim it:
    those that overlap with others, as when one waits for the end of a freeze."""
    for look in sorted(denied, key=lambda look: look.sent_ns):
        if look.done_ns > low and look.sent_ns < high:
            if look.sent_ns > low:
                yield Interval(low, look.sent_ns)
            low = max(low, look.done_ns)
    if low < high:
        yield Interval(low, high)


def overlaps(
    looks: Sequence[StateLook], name: str, began_ns: int | None = None, ended_ns: int | None = None
) -> list[Overlap]:
    """Pairs of guests that claimed the role `name` (its value is true) at the same time, certainly. began_ns,
    ended_ns: host MONOTONIC_RAW between which a guest may have claimed it without being looked at."""
    return [found for found in possible_overlaps(looks, name, began_ns, ended_ns) if found.length.low_ns > 0]


def possible_overlaps(
    looks: Sequence[StateLook], name: str, began_ns: int | None = None, ended_ns: int | None = None
) -> list[Overlap]:
    """The same with those that are not certain: the looks do not exclude them. Their length is at least 0."""
    found = []
    by_guest = [list(_claims(own, began_ns, ended_ns)) for own in looks_of(looks, name).values()]
    for one, other in combinations(by_guest, 2):
        for mine in one:
            for yours in other:
                begin = max(mine.most.low_ns, yours.most.low_ns)
                high = min(mine.most.high_ns, yours.most.high_ns) - begin
                if high > 0:
                    who = (min(mine.by, yours.by), max(mine.by, yours.by))
                    low = sum(_common(a, b) for a in mine.sure for b in yours.sure)
                    found.append(Overlap(name, who, Interval(low, max(low, high)), begin))
    return sorted(found, key=lambda overlap: overlap.from_ns)


def _common(one: Interval, other: Interval) -> int:
    return max(0, min(one.high_ns, other.high_ns) - max(one.low_ns, other.low_ns))
