"""A cycle from the notice to the clock in time again: each witness of the pause is a lane with its interval.

The notice, the pause and the way back differ by orders of magnitude, so each has a scale of its own and a
fixed share of the width. A second picture shows the ends of the witnesses' intervals, which are too close
together for the first one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

from markupsafe import Markup

from lab.core.clock import Interval
from lab.core.quantities import (
    format_at_latest,
    format_interval,
    format_length,
    format_magnitude,
    format_ms,
    format_seconds,
)
from lab.core.scheduled.cloud import Cloud
from lab.core.units import NS_PER_MS, format_duration
from lab.record.model import CycleRecord, EventRecord, MemberRecord
from lab.report.html.axis import Span, even, ticks
from lab.report.html.document import PictureIds, markup
from lab.report.html.parts import kind_of
from lab.report.numbers import NOT_MEASURED, interval
from lab.report.resyncs import TOLERANCE_NS, watched_ns

SHARES = {"announced": 27.0, "pause": 43.0}
WAY_BACK = 30.0
"""The share of each phase of the width, in percent; the others are scaled up where one is missing."""
WITNESSES = ("hypervisor", "lag", "gap", "silence")
STAMPS = "QEMU's stamps"
FELT = "felt pause"
"""With the cost of proving the memory."""
ZOOM = 1.6
"""The half of the second picture, in half widths of the agreeing witnesses' intervals, at their median."""


@dataclass(frozen=True)
class LaneBar:
    """kind: its CSS class. left, right: it goes on outside of the picture."""

    x: float
    width: float
    kind: str
    text: str = ""
    left: bool = False
    right: bool = False


@dataclass(frozen=True)
class LaneMark:
    x: float
    text: str


@dataclass(frozen=True)
class Lane:
    name: str
    text: str
    bars: Sequence[LaneBar] = ()
    marks: Sequence[LaneMark] = ()
    style: str = ""


@dataclass(frozen=True)
class Phase:
    name: str
    text: str
    span: Span

    @property
    def x(self) -> float:
        return self.span.x

    @property
    def width(self) -> float:
        return self.span.width


def timeline(
    whose: str, cycle: CycleRecord, event: EventRecord | None, guest: str, ids: PictureIds
) -> Markup:
    """The picture of a cycle with a freeze; empty when it was not stopped."""
    if not cycle.steps and cycle.pause is None:
        return Markup()
    member = next((m for m in event.members if m.guest == guest), None) if event is not None else None
    phases = list(_phases(cycle, event, member))
    by_name = {phase.name: phase.span for phase in phases}
    lanes = [
        *_notice(by_name.get("announced"), event, member),
        *_host(by_name["pause"], cycle),
        *_witnesses(by_name["pause"], cycle),
        *_way_back(phases[-1].span if phases[-1].name not in SHARES else None, cycle),
    ]
    said = "; ".join(f"{lane.name}: {lane.text}" for lane in lanes)
    caption = "Each phase has a scale of its own." if len(phases) > 1 else ""
    return markup(
        "timeline.svg.j2",
        id=ids.new(), title=f"Timeline of {whose}", phases=phases, lanes=lanes,
        description=f"{'; '.join(f'{phase.name} {phase.text}' for phase in phases)}. {said}.",
        caption=f"Solid: certain, light: within the bounds. {caption}",
    )  # fmt: skip


def _phases(cycle: CycleRecord, event: EventRecord | None, member: MemberRecord | None) -> Iterator[Phase]:
    shown: list[tuple[str, str, float, float]] = []
    frozen = member.frozen if member is not None else None
    if event is not None and frozen is not None and frozen.since_ns:
        shown.append(("announced", format_seconds(frozen.since_ns), 0, frozen.since_ns))
    shown.append(("pause", _length(cycle), 0, _end(cycle)))
    resync = cycle.resync
    if resync is not None and _is_down(cycle) and watched_ns(resync) > 0:
        if resync.time_ns is not None:
            word, text, end = "in time after", format_at_latest(resync.time_ns), max(1, resync.time_ns)
        else:
            word = "not in time" if resync.outcome == "not synced" else resync.outcome
            text, end = f"in {format_length(watched_ns(resync))}", max(1, watched_ns(resync))
        shown.append((word, text, 0, end * 1.08))
    whole = sum(SHARES.get(name, WAY_BACK) for name, *_ in shown)
    x = 0.0
    for name, text, low, high in shown:
        width = round(100 * SHARES.get(name, WAY_BACK) / whole, 3)
        yield Phase(name, text, Span(low, high, x, width))
        x = round(x + width, 3)


def _is_down(cycle: CycleRecord) -> bool:
    return cycle.pause is not None or cycle.outage_ns is not None


def _length(cycle: CycleRecord) -> str:
    if cycle.outage_ns is not None:
        return f"down {format_magnitude(cycle.outage_ns)}"
    return interval(cycle.pause)


def _end(cycle: CycleRecord) -> int:
    """The end of the pause's phase, since the stop: a little after everything in it."""
    ends = [step.at_ns + step.length_ns for step in cycle.steps]
    ends += [cycle.pause.high_ns] if cycle.pause is not None else []
    ends += [cycle.outage_ns] if cycle.outage_ns is not None else []
    return round(max([1, *ends]) * 1.02)


def _notice(span: Span | None, event: EventRecord | None, member: MemberRecord | None) -> Iterator[Lane]:
    if span is None or event is None or member is None:
        return
    moments = (
        ("published", event.published), ("seen", member.seen or event.seen),
        ("approved", member.approved or event.approved or event.released), ("started", event.started),
    )  # fmt: skip
    known = [
        (name, moment.since_ns)
        for name, moment in moments
        if moment is not None and moment.since_ns is not None
    ]
    texts = [f"{name} {format_seconds(at)}" for name, at in known if at]
    x, width = span.across(0, span.high)
    otherwise = "not approved" if Cloud(event.cloud).traits.approvals else texts[-1] if texts else ""
    yield Lane(
        "announcement",
        next((text for text in texts if text.startswith("approved")), otherwise),
        [LaneBar(x, width, "maybe", f"frozen {format_seconds(round(span.high))} after its publication")],
        [LaneMark(span.place(at), f"{name} {format_seconds(at)}") for name, at in known],
    )


def _host(span: Span, cycle: CycleRecord) -> Iterator[Lane]:
    bars = []
    for step in cycle.steps:
        x, width = span.across(step.at_ns, step.at_ns + step.length_ns, 0.2)
        bars.append(LaneBar(x, width, kind_of(step.name), f"{step.name}: {format_ms(step.length_ns)} ms"))
    if bars:
        yield Lane("host", f"{cycle.method}, {cycle.patch}", bars)


def _witnesses(span: Span, cycle: CycleRecord) -> Iterator[Lane]:
    for name in WITNESSES:
        known: Interval | None = getattr(cycle.witnesses, name)
        if known is not None:
            agrees = name in cycle.agreeing
            yield Lane(
                name,
                _bounds(known, cycle, name),
                _from_stop(span, known, agrees),
                style="" if agrees else "soft",
            )
        elif cycle.frozen and cycle.pause is not None:
            yield Lane(name, NOT_MEASURED, style="soft")
    for name, measure in ((FELT, cycle.felt), ("pause", cycle.pause)):
        if measure is not None:
            whole = Interval(max(0, measure.low_ns), max(0, measure.high_ns))
            yield Lane(name, interval(measure), _from_stop(span, whole, True), style="strong")


def _bounds(known: Interval, cycle: CycleRecord, name: str) -> str:
    text = format_interval(known)
    if name not in cycle.disagreeing:
        return text
    if name == "silence" and cycle.silent_after_ns:
        return f"{text}, longer than the pause"
    return f"{text}, contradicts the pause"


def _from_stop(span: Span, known: Interval, agrees: bool) -> list[LaneBar]:
    """A bar from the stop to the lower bound, and a light one to the upper bound."""
    bars = []
    low, high = max(0, known.low_ns), max(0, known.high_ns)
    if low > 0:
        x, width = span.across(0, low)
        bars.append(LaneBar(x, width, "sure" if agrees else "sure off"))
    if high > low:
        x, width = span.across(low, high)
        bars.append(LaneBar(x, width, "maybe"))
    return bars


def _way_back(span: Span | None, cycle: CycleRecord) -> Iterator[Lane]:
    resync = cycle.resync
    if span is None or resync is None:
        return
    limit = format_duration(resync.tolerance_ns or TOLERANCE_NS)
    if resync.time_ns is None:
        x, width = span.across(0, watched_ns(resync))
        certain = resync.outcome == "not synced"
        text = f"not within ± {limit}" if certain else resync.outcome
        yield Lane("clock", text, [LaneBar(x, width, "sure" if certain else "maybe")])
        return
    low, high = resync.time_low_ns or 0, resync.time_ns
    if high <= 0:
        yield Lane("clock", f"within ± {limit} all the time")
        return
    yield Lane(
        "clock",
        f"within ± {limit} after {format_at_latest(high)}",
        _from_stop(span, Interval(min(low, high), high), True),
    )


def witnesses(whose: str, cycle: CycleRecord, ids: PictureIds) -> Markup:
    """The picture of the intervals' ends; empty when no witness bounds the pause. They bound what the guest
    felt: with the proof of its memory."""
    felt = cycle.felt or cycle.pause
    known = [(name, each) for name in WITNESSES if (each := getattr(cycle.witnesses, name)) is not None]
    agreeing = [each for name, each in known if name in cycle.agreeing]
    if felt is None or not agreeing:
        return Markup()
    if cycle.stamps is not None:
        known.append((STAMPS, cycle.stamps))
    whole = Interval(felt.low_ns, felt.high_ns)
    half = max(1000.0, ZOOM * median(each.half_width_ns for each in agreeing), 1.3 * whole.half_width_ns)
    middle = (whole.low_ns + whole.high_ns) / 2
    span = Span(middle - half, middle + half)
    result = FELT if cycle.felt is not None else "pause"
    lanes = [_around(span, name, each, name in cycle.agreeing) for name, each in known]
    lanes.append(replace(_around(span, result, whole, True), text=interval(felt), style="strong"))
    x, width = span.across(whole.low_ns, whole.high_ns)
    names = ", ".join(cycle.agreeing)
    caption = f"Only {names} bounds the {result}."
    if len(cycle.agreeing) > 1:
        caption = f"{names} agree: the {result} lies where their intervals meet."
    if cycle.felt is not None:
        caption += " The pause is without the proof of its memory."
    return markup(
        "witnesses.svg.j2",
        id=ids.new(), title=f"Bounds of the pause of {whose} by each witness", lanes=lanes, caption=caption,
        result=LaneBar(x, width, "result"),
        ticks=ticks(span, [v * NS_PER_MS for v in even(span.low / NS_PER_MS, span.high / NS_PER_MS, 4)], _ms),
        description="; ".join(f"{lane.name} {lane.text}" for lane in lanes) + ".",
    )  # fmt: skip


def _ms(ns: float) -> str:
    return f"{ns / NS_PER_MS:,.6g} ms".replace(",", "\u00a0")


def _around(span: Span, name: str, known: Interval, agrees: bool) -> Lane:
    """A lane with the part of the interval that lies in the picture; without a bar when none does."""
    text, style = format_interval(known), "" if agrees or name == STAMPS else "soft"
    low, high = max(known.low_ns, span.low), min(known.high_ns, span.high)
    if low > high:
        return Lane(name, text, style=style)
    x, width = span.across(low, high, 0.6)
    kind = "sure" if name in ("pause", FELT) else "maybe" if agrees else "wait"
    outside = known.low_ns < span.low, known.high_ns > span.high
    return Lane(name, text, [LaneBar(x, width, kind, "", *outside)], style=style)
