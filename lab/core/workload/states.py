"""States over time: who claims a role, when a value has changed, and when two guests claimed the same role.

A look shows a value as it was at some instant between its question and its answer, both on the host's clock.
Nothing else is assumed, but that a guest that claims a role in two looks, one after another, has claimed it
in between: a frozen guest cannot give it up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby, pairwise

from lab.core.clock import Interval
from lab.core.workload.sample import StateLook, StateValue


@dataclass(frozen=True)
class StateChange:
    """A value has changed, according to one guest ("": to all). at: when, host MONOTONIC_RAW."""

    name: str
    by: str
    before: StateValue
    after: StateValue
    at: Interval


@dataclass(frozen=True)
class Overlap:
    """Two guests have claimed the same role at the same time. length: for how long, at least and at most.
    from_ns: host MONOTONIC_RAW of the first instant at which both may have."""

    name: str
    holders: tuple[str, str]
    length: Interval
    from_ns: int


@dataclass(frozen=True)
class _Claim:
    """A guest has claimed a role: certainly within `sure`, and at most within `most`."""

    by: str
    sure: Interval
    most: Interval


def looks_of(looks: Sequence[StateLook], name: str) -> dict[str, list[tuple[StateLook, StateValue]]]:
    """The looks at one name, by who was asked, in order of time; those without a value are left out."""
    found: dict[str, list[tuple[StateLook, StateValue]]] = {}
    for look in sorted(looks, key=lambda look: (look.sent_ns, look.done_ns)):
        if look.values.get(name) is not None:
            found.setdefault(look.by, []).append((look, look.values[name]))
    return found


def changes(looks: Sequence[StateLook], name: str) -> list[StateChange]:
    """The changes of a value, each according to who was asked, in order of time."""
    found = []
    for by, own in looks_of(looks, name).items():
        for (before, old), (after, new) in pairwise(own):
            if old != new:
                at = Interval(min(before.sent_ns, after.done_ns), after.done_ns)
                found.append(StateChange(name, by, old, new, at))
    return sorted(found, key=lambda change: (change.at.high_ns, change.at.low_ns))


def agreed_change(looks: Sequence[StateLook], name: str) -> list[StateChange]:
    """The same for a value that all guests share, such as the leader. A guest that shows later what another
    has shown already, or that still shows what it showed before, is no change."""
    current: dict[str, StateValue] = {}
    shown: StateValue = None
    found: list[StateChange] = []
    last = None
    for look in sorted(looks, key=lambda look: (look.done_ns, look.sent_ns)):
        value = look.values.get(name)
        if value is None:
            continue
        before = current.get(look.by)
        current[look.by] = value
        if shown is None:
            shown = value
        elif value not in (shown, before):
            found.append(StateChange(name, "", shown, value, Interval(last or look.sent_ns, look.done_ns)))
            shown = value
        last = min(look.sent_ns, look.done_ns)
    return found


def _claims(own: Sequence[tuple[StateLook, StateValue]]) -> Iterator[_Claim]:
    """The times of a role's claims by one guest: looks that say true."""
    for claimed, group in groupby(enumerate(own), lambda item: item[1][1] is True):
        if not claimed:
            continue
        places = [place for place, _ in group]
        first, last = own[places[0]][0], own[places[-1]][0]
        before = own[places[0] - 1][0].sent_ns if places[0] else first.sent_ns
        after = own[places[-1] + 1][0].done_ns if places[-1] + 1 < len(own) else last.done_ns
        most = Interval(min(before, first.sent_ns), max(after, last.done_ns))
        sure = Interval(first.done_ns, max(first.done_ns, last.sent_ns))
        yield _Claim(first.by, sure, most)


def overlaps(looks: Sequence[StateLook], name: str) -> list[Overlap]:
    """Pairs of guests that claimed the role `name` (its value is true) at the same time, certainly."""
    found = []
    by_guest = [list(_claims(own)) for own in looks_of(looks, name).values()]
    for one, other in combinations(by_guest, 2):
        for mine in one:
            for yours in other:
                low = min(mine.sure.high_ns, yours.sure.high_ns) - max(mine.sure.low_ns, yours.sure.low_ns)
                begin = max(mine.most.low_ns, yours.most.low_ns)
                high = min(mine.most.high_ns, yours.most.high_ns) - begin
                if low > 0:
                    who = (min(mine.by, yours.by), max(mine.by, yours.by))
                    found.append(Overlap(name, who, Interval(low, max(low, high)), begin))
    return sorted(found, key=lambda overlap: overlap.from_ns)
