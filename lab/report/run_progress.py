"""A run in progress, from the events of its history: each guest's state, and the time that is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from rich.cells import cell_len
from rich.text import Text

from lab.core.clock import GuestClock, Interval, intersect
from lab.core.history import (
    CycleBegan,
    CycleEnded,
    GuestBooted,
    GuestsFrozen,
    ReadingsTaken,
    ResumeCalled,
    RunStarted,
)
from lab.core.plan import Plan
from lab.core.quantities import format_interval, format_length, format_seconds
from lab.core.units import NS_PER_S
from lab.record.events import Entry
from lab.record.milestones import EarlierRun, Mark, Marks
from lab.report.live_rollout import NAME
from lab.report.text import clean, counted, shortened

Earlier = Callable[[Plan], Sequence[EarlierRun]]
"""Finds the earlier runs of a plan. It takes some time, and is called in the view's thread."""

MOST_GUESTS = 8
STARTING, READY, MEASURING, FROZEN = "starting", "ready", "measuring", "frozen"
RESUMED, IN_TIME, BEHIND, AHEAD, DONE = "resumed", "in time", "behind", "ahead", "done"
_STYLES = {STARTING: "dim", FROZEN: "bold blue", IN_TIME: "green", BEHIND: "yellow", AHEAD: "yellow"}
_URGENT = (FROZEN, BEHIND, AHEAD, RESUMED, MEASURING, STARTING, READY, IN_TIME, DONE)
"""The order in which guests are shown where there is no room for all."""
_WATCHED = (RESUMED, IN_TIME, BEHIND, AHEAD)


@dataclass(frozen=True)
class GuestProgress:
    """A guest. offset: of its REALTIME, by the last readings; None while it is not known."""

    name: str
    state: str = STARTING
    since_raw_ns: int = 0
    offset: Interval | None = None
    tolerance_ns: int = 0


@dataclass
class RunProgress:
    """Is fed with the events of a run, in their order. earlier: None: the time left is not known."""

    earlier: Earlier | None = None
    plan: Plan | None = None
    guests: dict[str, GuestProgress] = field(default_factory=dict)
    begun_raw_ns: int | None = None
    _marks: Marks = field(default_factory=Marks)
    _reached: tuple[Mark, int] | None = None
    _known: Sequence[EarlierRun] = ()

    def add(self, entry: Entry) -> None:
        """Take an event in."""
        event, at = entry.event, entry.at.raw_ns
        match event:
            case RunStarted():
                self.plan, self.begun_raw_ns = event.plan, at
                names = dict.fromkeys(clean(g.name) for part in event.plan.parts for g in part.guests)
                self.guests = {name: GuestProgress(name, since_raw_ns=at) for name in names}
                self._known = self.earlier(event.plan) if self.earlier is not None else ()
            case GuestBooted():
                self._set(event.guest, at, READY)
            case CycleBegan():
                self._set(event.guest, at, MEASURING)
            case GuestsFrozen():
                for name in event.guests:
                    self._set(name, at, FROZEN, offset=None)
            case ResumeCalled():
                self._set(event.guest, event.call.returned.raw_ns, RESUMED, offset=None)
            case CycleEnded():
                self._set(event.guest, at, DONE)
            case ReadingsTaken():
                self._read(event, at)
            case _:
                pass
        mark = self._marks.count(entry.kind)
        if mark is not None and (self._reached is None or any(mark in one.left_ns for one in self._known)):
            self._reached = mark, at

    def _set(self, name: str, at: int, state: str, **changes: Interval | None) -> None:
        name = clean(name)
        known = self.guests.get(name, GuestProgress(name))
        since = known.since_raw_ns if known.state == state else at
        self.guests[name] = replace(known, state=state, since_raw_ns=since, **changes)  # type: ignore[arg-type]

    def _read(self, event: ReadingsTaken, at: int) -> None:
        offsets = [one.offset(GuestClock.REAL) for one in event.readings if GuestClock.REAL in one.t3]
        known = self.guests.get(clean(event.guest))
        if not offsets or known is None:
            return
        offset = intersect(offsets) or offsets[-1]
        state = known.state
        if state in _WATCHED:
            tolerance = self._tolerance_ns(event.guest)
            if -tolerance <= offset.low_ns and offset.high_ns <= tolerance:
                state = IN_TIME
            elif offset.high_ns < -tolerance or offset.low_ns > tolerance:
                state = BEHIND if offset.high_ns < 0 else AHEAD
        self._set(event.guest, at, state, offset=offset)

    def _tolerance_ns(self, guest: str) -> int:
        parts = self.plan.parts if self.plan is not None else ()
        found = [p.expectations.tolerance_ns for p in parts if any(g.name == guest for g in p.guests)]
        return found[0] if found else 0

    def left(self, now_raw_ns: int) -> str:
        """ "about 42 s left (38–55 s, from 5 runs)"; "" when no earlier run tells."""
        if self._reached is None:
            return ""
        mark, at = self._reached
        lefts = sorted(one.left_ns[mark] for one in self._known if mark in one.left_ns)
        if not lefts:
            return ""
        passed = now_raw_ns - at
        middle, least, most = (max(0, ns - passed) for ns in (round(median(lefts)), lefts[0], lefts[-1]))
        runs = counted(len(lefts), "run")
        if not most:
            return f"{format_length(passed - lefts[-1])} longer than {runs} before"
        if middle < NS_PER_S // 2:
            return f"at most {_round(max(NS_PER_S, most))} left (from {runs})"
        return f"about {_round(middle)} left ({_span(least, most)}from {runs})"

    def share(self, now_raw_ns: int) -> float | None:
        """How far the run is, from 0 to 1, by the time that is left; None when that is not known."""
        if self._reached is None or self.begun_raw_ns is None:
            return None
        mark, at = self._reached
        lefts = sorted(one.left_ns[mark] for one in self._known if mark in one.left_ns)
        if not lefts:
            return None
        passed = max(0, now_raw_ns - self.begun_raw_ns)
        left = max(0, round(median(lefts)) - (now_raw_ns - at))
        return min(0.99, passed / max(1, passed + left))

    def lines(self, now_raw_ns: int, width: int, most: int) -> list[Text]:
        """A line for each guest, at most so many."""
        guests = list(self.guests.values())
        most = max(1, min(most, MOST_GUESTS))
        shown = guests
        if len(guests) > most:
            urgent = sorted(guests, key=lambda one: _URGENT.index(one.state))[: most - 1]
            shown = [one for one in guests if one in urgent]
        room = max(NAME, min(24, max((cell_len(one.name) + 2 for one in shown), default=0)))
        lines = [_line(one, now_raw_ns, width, room) for one in shown]
        if len(shown) < len(guests):
            lines.append(_rest([one for one in guests if one not in shown]))
        return lines


def _line(guest: GuestProgress, now: int, width: int, room: int) -> Text:
    """ "  web-0        behind     -4 981.9 ± 0.8 ms                 0.3 s"."""
    line = Text(no_wrap=True, overflow="crop")
    line.append(("  " + shortened(guest.name, room - 2)).ljust(room) + "  ")
    line.append(guest.state.ljust(9), _STYLES.get(guest.state, "cyan"))
    time = format_seconds(now - guest.since_raw_ns, 1)
    offset = format_interval(guest.offset, signed=True) if guest.offset is not None else ""
    space = width - cell_len(line.plain) - len(time) - 2
    line.append("  " + (offset if cell_len(offset) + 2 <= space else "").ljust(max(0, space)))
    line.append(time, "dim")
    return line


def _rest(guests: Sequence[GuestProgress]) -> Text:
    counts: Mapping[str, int] = {
        state: sum(one.state == state for one in guests) for state in dict.fromkeys(g.state for g in guests)
    }
    text = ", ".join(f"{count} {state}" for state, count in counts.items())
    return Text(f"  and {len(guests)} more: {text}", "dim", no_wrap=True, overflow="crop")


def _round(ns: int) -> str:
    """To a second: how long a run takes is not known better."""
    return format_length(ns) if ns >= 10 * NS_PER_S else f"{round(ns / NS_PER_S)} s"


def _span(least: int, most: int) -> str:
    low, high = _round(least), _round(most)
    if low == high:
        return ""
    number, _, unit = low.rpartition(" ")
    return f"{number if high.endswith(f' {unit}') and ' ' not in number else low}–{high}, "
