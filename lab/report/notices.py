"""Announcements: a row for each event's timeline, and the announced duration beside the pause."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from lab.core.clock import Interval
from lab.core.quantities import LONG_NS, UP, format_as_written, format_length, format_number, format_seconds
from lab.core.scheduled.cloud import Cloud
from lab.core.scheduled.model import EventType
from lab.core.units import NS_PER_S
from lab.core.verdict import Outcome
from lab.record.model import EventRecord, EventTotals, Measure, Moment, Run
from lab.report.numbers import interval
from lab.report.page import Page
from lab.report.table import ALWAYS, Column, Piece, Table, forms
from lab.report.text import counted, names, shortened

MOST_EVENTS = 8
WIDE = 18  # of an event's name, for its type to be told though it is a Freeze
NONE = "–"

_ORDER = (Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.PASSED)
_Cell = Callable[[EventRecord], Piece]


def _seconds(ns: int) -> str:
    return format_number(ns, NS_PER_S, 2 if abs(ns) < 1000 * NS_PER_S else 0)


def _moment(get: Callable[[EventRecord], Moment | None], who: bool) -> _Cell:
    def cell(event: EventRecord) -> Piece:
        moment = get(event)
        if moment is None or moment.since_ns is None:
            return NONE, "dim"
        below = f"\n{shortened(moment.guest, 12)}" if who and moment.guest else ""
        return _seconds(moment.since_ns) + below, ""

    return cell


def _in_time(event: EventRecord) -> Piece:
    if event.in_time is None:
        return NONE, "dim"
    return format_number(event.in_time.high_ns, NS_PER_S, 2, UP), ""


def _started(event: EventRecord) -> Piece:
    if event.state == "cancelled":
        return "called off", "yellow"
    return _moment(lambda e: e.started, False)(event)


def _approved(who: bool) -> _Cell:
    def cell(event: EventRecord) -> Piece:
        if event.approved is None and event.released is not None and event.released.since_ns is not None:
            return _seconds(event.released.since_ns) + ("\nby hand" if who else ""), ""
        return _moment(lambda e: e.approved, who)(event)

    return cell


def _gone(event: EventRecord) -> Piece:
    return _moment(lambda e: e.gone or e.cancelled, False)(event)


def _first_seen(who: bool) -> _Cell:
    def cell(event: EventRecord) -> Piece:
        if event.state == "unheard":
            return "never asked", "yellow"
        shown, style = _moment(lambda e: e.seen, who)(event)
        return ("by no guest", "yellow") if shown == NONE else (shown, style)

    return cell


def _name(width: int) -> _Cell:
    def cell(event: EventRecord) -> Piece:
        many = event.resources
        of = many[0] if len(many) == 1 else counted(len(many), "guest")
        whom = f"{event.type} of {of}"
        if width < WIDE:
            whom = of if event.type == EventType.FREEZE else f"{event.type}, {of}"
        return shortened(event.cell or event.group, width) + "\n" + shortened(whom, width), "bold"

    return cell


def _published(event: EventRecord) -> Piece:
    if event.published is None:
        return NONE, "dim"
    return datetime.fromtimestamp(event.published.real_ns / 1e9, UTC).strftime("%H:%M:%S"), ""


def _with_guest(head: str, cell: Callable[[bool], _Cell]) -> Column[EventRecord]:
    """A column with an instant, and below it its guest."""
    return forms(Column(head, cell(True), right=True, rank=5), Column(head, cell(False), right=True))


def _columns(several: bool, approvable: bool) -> list[Column[EventRecord]]:
    """The columns. several: there are several cycles. approvable: guests can approve one of the events."""
    widths = {24: 2.0, 20: 3, 14: 5, 12: ALWAYS}
    return [
        forms(*(Column("event", _name(width), rank=rank) for width, rank in widths.items())),
        *([Column("cycle", lambda event: (str(event.cycle), ""), right=True)] if several else []),
        Column("published", _published, right=True, rank=2),
        _with_guest("seen", _first_seen),
        *([_with_guest("approved", _approved)] if approvable else []),
        Column("started", _started, right=True),
        Column("frozen", _moment(lambda e: e.frozen, False), right=True),
        Column("resumed", _moment(lambda e: e.resumed, False), right=True),
        Column("in time", _in_time, right=True),
        Column("gone", _gone, right=True),
    ]


def has_approvals(run: Run) -> bool:
    """Whether guests can approve the run's events. In some clouds they cannot."""
    return not run.events or any(Cloud(event.cloud).traits.approvals for event in run.events)


def approvals(events: EventTotals | None) -> Piece:
    """How many of the announcements of a cell or of a wave were approved; "all" when all were."""
    if events is None:
        return NONE, "dim"
    wanted = events.count - events.cancelled
    if not wanted:
        return "called off", "yellow"
    if events.approved == wanted:
        return "all" if wanted > 1 else "yes", ""
    return f"{events.approved} of {wanted}", "yellow"


def show_events(page: Page, run: Run, most: int = MOST_EVENTS) -> None:
    """Print a row for each event; if there are more than MOST_EVENTS, only the worst ones."""
    if not run.events:
        return
    shown: Sequence[EventRecord] = run.events
    which = "announcements"
    if len(shown) > page.most(most):
        shown = sorted(shown, key=lambda event: _ORDER.index(event.outcome))[:most]
        which = f"the {len(shown)} worst of {counted(len(run.events), 'announcement')}"
        if all(event.outcome is Outcome.PASSED for event in run.events):
            which = f"the first {len(shown)} of {counted(len(run.events), 'announcement')}, all as expected"
    page.blank()
    page.parts([f"{which}: seconds since publication, and by whom"], "dim")
    several = len({event.cycle for event in run.events}) > 1
    table = Table(_columns(several, has_approvals(run)), shown, gaps={3: 1, 2: 4, 1: ALWAYS})
    if page.width < LEAST_TABLE or page.table(table, cut=False) is None:
        for event in shown:
            _line(page, event)
    page.labelled("announced", announced_text(run.events))
    if trouble := _trouble(run.events):
        page.labelled("", trouble)


LEAST_TABLE = 60
"""A narrower page has a line of text for each event in place of the table."""


def _line(page: Page, event: EventRecord) -> None:
    """ "seen 0.40 web-0, approved 0.90 web-0, started 0.90, ...", for narrow pages."""
    steps = (
        ("seen", _first_seen(True)(event)[0]),
        ("approved", _approved(True)(event)[0]),
        ("started", _started(event)[0]),
        ("frozen", _moment(lambda e: e.frozen, False)(event)[0]),
        ("resumed", _moment(lambda e: e.resumed, False)(event)[0]),
        ("in time", _in_time(event)[0]),
        ("gone", _gone(event)[0]),
    )
    text = ", ".join(f"{name} {shown.replace(chr(10), ' ')}" for name, shown in steps if shown != NONE)
    page.labelled(shortened(event.group, 10), text, width=10)


def _range(values: Sequence[int]) -> str:
    """ "0.90 s", or "0.90 s to 1.20 s"."""
    low, high = format_seconds(min(values)), format_seconds(max(values))
    return low if low == high else f"{low} to {high}"


def _notice(events: Sequence[EventRecord]) -> str:
    """ "15 min notice (15 s at 60x)"."""
    found = []
    for event in events:
        if event.notice_ns <= 0:
            found.append("no notice")
            continue
        service = round(event.notice_ns * event.time_factor)
        text = f"{format_length(service) if service >= LONG_NS else format_as_written(service)} notice"
        if event.time_factor != 1:
            text += f" ({format_as_written(event.notice_ns)} at {event.time_factor:g}x)"
        if event.notice_ns < event.minimum_ns:
            text += f" instead of {format_length(round(event.minimum_ns * event.time_factor))}"
        found.append(text)
    return names(list(dict.fromkeys(found)), 3)


def _duration(events: Sequence[EventRecord]) -> str:
    given = {event.duration_s for event in events}
    known = sorted(seconds for seconds in given if seconds >= 0)
    parts = [f"{seconds} s" for seconds in known]
    if len(known) < len(given):
        parts.append("a pause of unknown length")
    return "for " + names(parts, 3) if parts else ""


def announced_text(events: Sequence[EventRecord]) -> str:
    """The announced and the actual pauses, over all events."""
    shown = ", ".join(filter(None, [_notice(events), _duration(events)]))
    deaf = sum(event.state == "unheard" for event in events)
    if deaf == len(events):
        shown = f"to no guest, because {'the group' if deaf == 1 else 'the groups'} never asked"
    elif deaf:
        shown += f", {deaf} of {len(events)} to no guest"
    felt = []
    frozen = [e for e in events if e.frozen is not None]
    given = [e.frozen.since_ns for e in frozen if e.frozen is not None and e.frozen.since_ns is not None]
    if given:
        felt.append(f"frozen after {_range(given)}")
    after = [e.after_not_before for e in frozen if e.after_not_before is not None and e.state != "unheard"]
    if after:
        felt.append(_against(after))
    pauses = [e.longest for e in frozen if e.longest is not None]
    if pauses:
        longest: Measure = max(pauses, key=lambda pause: pause.high_ns)
        word = "for" if len(pauses) == 1 and len(events[0].resources) == 1 else "for at most"
        felt.append(f"{word} {interval(longest)}{_within_announced(events)}")
    if not felt:
        off = all(event.state == "cancelled" for event in events)
        felt.append("called off, and no guest was frozen" if off else "no freeze on record")
    return f"{shown}; measured: {', '.join(felt)}"


def _against(after: Sequence[Interval]) -> str:
    """The time of the freeze relative to NotBefore."""
    early = [-bounds.high_ns for bounds in after if bounds.high_ns < 0]
    late = [bounds.low_ns for bounds in after if bounds.low_ns >= 0]
    if len(early) == len(after):
        return f"{_range(early)} before NotBefore"
    if len(late) == len(after):
        return f"{_range(late)} after NotBefore"
    return f"{len(early)} of {len(after)} before NotBefore"


def _within_announced(events: Sequence[EventRecord]) -> str:
    enabled = [event for event in events if event.state != "unheard" and event.frozen is not None]
    known = [event.kept for event in enabled if event.duration_s >= 0]
    if not known:
        return ""
    if all(known):
        return ": kept"
    longer = sum(within is False for within in known)
    if longer == len(known):
        return ": longer than announced"
    undecided = sum(within is None for within in known)
    if undecided == len(known):
        return ": the bounds do not show whether it was kept"
    return f": kept by {sum(within is True for within in known)} of {len(known)} events"


def _trouble(events: Sequence[EventRecord]) -> str:
    """Other actions of the service."""
    refused, restarts = sum(e.refused for e in events), sum(e.restarts for e in events)
    parts = [f"{counted(refused, 'request')} answered with an error or a deliberate fault"] if refused else []
    if restarts:
        parts.append(f"the incarnation restarted at 1{'' if restarts == 1 else f' {restarts} times'}")
    return ", ".join(parts)
