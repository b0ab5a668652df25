"""A plan's announcement: the event, the notice, the handler, and deliberate faults."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from lab.core.announcement import RATE_LIMIT, duration_s, event_type, notice_ns, service_notice_ns
from lab.core.plan import Announcement, CycleSpec, NoticeExpectations, Plan
from lab.core.quantities import format_as_written
from lab.core.scheduled.model import UNKNOWN_S, Enabling, EventType
from lab.core.units import NS_PER_S, format_duration
from lab.report.page import Page

WIDTH = 16  # of the labels


def announcement(page: Page, plan: Plan) -> None:
    """Print the announcement in words; nothing when there is none."""
    spec = plan.cycle.announce
    if spec is None:
        return
    head = f"before each freeze, through {spec.cloud.traits.notices}"
    page.labelled("announced", head, label_style="bold", width=len("announced"))
    for label, text in _lines(spec, {cell.cycle for cell in plan.parts}):
        page.labelled(f"  {label}", text, label_style="", width=WIDTH)
    page.blank()


def _lines(spec: Announcement, cycles: set[CycleSpec]) -> Iterator[tuple[str, str]]:
    kinds = sorted({event_type(spec, cycle.patch) for cycle in cycles})
    frozen = [cycle for cycle in cycles if event_type(spec, cycle.patch) is EventType.FREEZE]
    spans = sorted({duration_s(spec, EventType.FREEZE, cycle) for cycle in frozen})
    spans_text = [str(span) if span != UNKNOWN_S else "unknown" for span in spans]
    lasting = f", DurationInSeconds {' or '.join(spans_text)}" if spans_text else ""
    yield "event", f"{' or '.join(kinds)}{lasting}, source {spec.source}"
    if spec.description:
        yield "", f'"{spec.description}"'
    if spec.time_factor != 1:
        yield "time", f"the service's is {spec.time_factor:g} times as fast as real time"
    notices = dict.fromkeys(service_notice_ns(spec, kind) for kind in kinds)
    if any(notices):
        ends = " or ".join(_scaled(spec, notice) for notice in notices)
        until = ", until a guest approves or until NotBefore" if spec.cloud.traits.approvals else ""
        yield "notice", f"{ends}{until}"
    else:
        yield "notice", "none: Started at once"
    if spec.cancel_after_ns is not None:
        yield "called off", f"after {_scaled(spec, spec.cancel_after_ns)}, unless it has started by then"
    for other in spec.others:
        wait = other.notice_ns if other.notice_ns is not None else spec.cloud.notice_s(other.type) * NS_PER_S
        when = f"in {_scaled(spec, wait)}" if wait else "at once"
        yield "also", f"{other.type} {when}, source {other.source}; no action follows"
    yield "Started", f"shown for at least {format_duration(spec.started_ns)} before the freeze"
    if spec.handler:
        program, *arguments = spec.handler
        yield "handler", f"{shlex.join([program.rsplit('/', 1)[-1], *arguments])}, in every guest"
    else:
        told = spec.cloud.traits.enabling is Enabling.EVERYBODY
        yield (
            "handler",
            "none" if told else "none; guests that never ask get no event, and nothing waits for them",
        )
    wrong = "; ".join(_faults(spec))
    if wrong:
        yield "faults", wrong


def _scaled(spec: Announcement, service_ns: int) -> str:
    """ "15 min (15 s here)": a span of the service's time, and of real time."""
    spans_text = format_duration(service_ns)
    if spec.time_factor == 1:
        return spans_text
    return f"{spans_text} ({format_as_written(spec.real_ns(service_ns))} here)"


def _faults(spec: Announcement) -> Iterator[str]:
    service = spec.service
    if service.first_answer_ns:
        yield f"first answer late by {_scaled(spec, service.first_answer_ns)}"
    if service.answers:
        yield f"answers to each guest: {', '.join(map(str, service.answers))}, then correct ones"
    if service.restarts:
        yield "incarnation restarts at 1"
    if service.rate_limit:
        yield f"429 to more than {RATE_LIMIT} requests a second of a guest"


def longest_notice_ns(cycle: CycleSpec) -> int:
    """The longest time for which a cycle may wait for its guests' approval, in real time."""
    spec = cycle.announce
    if spec is None:
        return 0
    if not spec.handler and spec.cloud.traits.enabling is not Enabling.EVERYBODY:
        return 0  # nobody asks, so nobody waits
    notice = notice_ns(spec, event_type(spec, cycle.patch))
    return notice if spec.cancel_after_ns is None else min(notice, spec.real_ns(spec.cancel_after_ns))


def expected(asked: NoticeExpectations) -> str:
    """The announcement's expected course, in words; "" without expectations."""
    low, high = asked.at_least_ns, asked.at_most_ns
    parts = [
        _yes(asked.acknowledged, "acknowledged by a guest", "acknowledged by none"),
        _yes(asked.seen, "seen by all affected guests", "seen by none"),
        _yes(asked.started_seen, "seen as Started", "not seen as Started"),
        _yes(asked.kept, "pause as announced or shorter", "pause longer than announced"),
        _yes(asked.cancelled, "called off, and no guest frozen", "not called off"),
        f"Started after {format_duration(low)} at least" if low is not None else "",
        f"Started after {format_duration(high)} at most" if high is not None else "",
    ]
    return "; ".join(filter(None, parts))


def _yes(value: bool | None, yes: str, no: str) -> str:
    return "" if value is None else yes if value else no
