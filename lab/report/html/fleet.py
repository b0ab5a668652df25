"""A rollout: each domain is a lane over the time of the rollout, and shows when it was down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from lab.core.quantities import format_length
from lab.core.units import NS_PER_S
from lab.core.verdict import Outcome
from lab.record.model import EventRecord, RolloutRecord, Run, WaveRecord
from lab.report.html.axis import Span, even, ticks
from lab.report.html.document import PictureIds, markup
from lab.report.numbers import interval

MOST_DOMAINS = 60
LEAST_NS = 4 * NS_PER_S
"""The length of a wave of which only the begin is known, and no later one."""


@dataclass(frozen=True)
class DomainBar:
    """kind: "wave" from its begin to its end, "down" from a guest's freeze to its resume, "late" from there
    until its clock was in time."""

    x: float
    width: float
    kind: str
    text: str


@dataclass(frozen=True)
class DomainLane:
    name: str
    text: str
    outcome: Outcome | None
    bars: Sequence[DomainBar]


def rollout_pictures(run: Run, ids: PictureIds) -> Markup:
    """A picture for each rollout."""
    return Markup().join(_rollout(run, rollout, ids) for rollout in run.rollouts)


def _began_ns(wave: WaveRecord) -> int | None:
    """The begin of a wave, host REALTIME; None if it has not begun."""
    try:
        return round(datetime.fromisoformat(wave.began).timestamp() * 1000) * (NS_PER_S // 1000)
    except ValueError:
        return None


def _events_of(run: Run, wave: WaveRecord) -> list[EventRecord]:
    return [event for event in run.events if wave.cycle is not None and event.cycle == wave.cycle]


def _ends(run: Run, waves: Sequence[WaveRecord]) -> list[int]:
    """All instants of the waves, host REALTIME."""
    found = [began for wave in waves if (began := _began_ns(wave)) is not None]
    for wave in waves:
        for event in _events_of(run, wave):
            moments = [event.resumed, event.gone, *(member.resumed for member in event.members)]
            found += [moment.real_ns for moment in moments if moment is not None]
    return found


def _rollout(run: Run, rollout: RolloutRecord, ids: PictureIds) -> Markup:
    instants = _ends(run, rollout.waves)
    if not instants:
        return Markup()
    first, last = min(instants), max(instants)
    begins = [began for wave in rollout.waves if (began := _began_ns(wave)) is not None]
    last = max(last, max(begins) + LEAST_NS)
    span = Span(0, (last - first) / NS_PER_S * 1.01)
    lanes = [lane for wave in rollout.waves for lane in _lanes(run, rollout, wave, first, last, span)]
    left = len(lanes) - MOST_DOMAINS
    title = f"Domains over time, by {rollout.by.replace('-', ' ')}"
    return markup(
        "fleet.svg.j2",
        id=ids.new(), title=title, lanes=lanes[:MOST_DOMAINS], left=max(0, left),
        description="; ".join(f"{lane.name}: {lane.text}" for lane in lanes[:MOST_DOMAINS]),
        ticks=ticks(span, even(0, span.high, 6), lambda s: format_length(s * NS_PER_S) if s else "begin"),
    )  # fmt: skip


def _lanes(
    run: Run, rollout: RolloutRecord, wave: WaveRecord, first: int, last: int, span: Span
) -> Iterator[DomainLane]:
    began = _began_ns(wave)
    later = [
        at
        for other in rollout.waves
        if (at := _began_ns(other)) is not None and began is not None and at > began
    ]
    for domain in wave.domains:
        name = f"wave {wave.number}: {domain.set} {domain.number}"
        if began is None:
            yield DomainLane(name, wave.state, None, [])
            continue
        ended = min(later, default=last)
        bars = [
            DomainBar(
                *span.across((began - first) / NS_PER_S, (ended - first) / NS_PER_S), "wave", "its turn"
            )
        ]
        bars += _down(run, wave, domain.guests, first, span)
        pause = interval(wave.pause) if wave.pause is not None and wave.guests == 1 else wave.state
        outcome = wave.outcome if wave.state == "done" else None
        yield DomainLane(name, pause if outcome is not None else wave.state, outcome, bars)


def _down(run: Run, wave: WaveRecord, guests: Sequence[str], first: int, span: Span) -> Iterator[DomainBar]:
    """When its guests were down, as far as events tell."""
    for event in _events_of(run, wave):
        for member in event.members:
            if member.guest not in guests or member.frozen is None or member.resumed is None:
                continue
            begin, end = ((m.real_ns - first) / NS_PER_S for m in (member.frozen, member.resumed))
            yield DomainBar(
                *span.across(begin, end), "down", f"{member.guest} down: {interval(member.pause)}"
            )
            if member.in_time is not None and event.published is not None:
                late = (event.published.real_ns + member.in_time.high_ns - first) / NS_PER_S
                if late > end:
                    yield DomainBar(
                        *span.across(end, late, 0.2), "late", f"{member.guest}: clock out of time"
                    )
