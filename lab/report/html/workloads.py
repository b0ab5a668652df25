"""Workloads: each cycle's outage beside the pause, latencies, and when states changed; and the searches for
the shortest pause that they fail at."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lab.core.quantities import format_edge, format_magnitude
from lab.core.units import NS_PER_MS, NS_PER_S, format_duration
from lab.core.verdict import Outcome
from lab.core.workload.latency import quantiles_of
from lab.record.model import Run, ToleranceRecord, WorkloadRecord
from lab.record.model_clock import Measure
from lab.record.model_workload import OverlapRecord, StateChangeRecord, WorkloadCycleRecord
from lab.report.html.axis import Span, Tick, even, ticks
from lab.report.html.document import PictureIds, markup
from lab.report.numbers import size
from lab.report.workloads import longest_pause

MOST_LANES = 48
LEAST_NS = 100 * NS_PER_MS
"""The least length of an axis."""
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


@dataclass(frozen=True)
class WorkloadMark:
    """kind: its CSS class; a mark without a width is a point."""

    x: float
    width: float
    kind: str
    text: str


@dataclass(frozen=True)
class WorkloadLane:
    name: str
    text: str
    outcome: Outcome | None
    marks: Sequence[WorkloadMark]


def workload_pictures(run: Run, ids: PictureIds) -> Markup:
    """The pictures of each workload, in the order of the record."""
    drawn = []
    for name in dict.fromkeys(one.name for one in run.workloads):
        records = [one for one in run.workloads if one.name == name]
        drawn += [
            _outages(run, name, records, ids),
            _latencies(name, records, ids),
            _changes(name, records, ids),
        ]
    return Markup('<div class="figures">{}</div>').format(Markup().join(drawn)) if any(drawn) else Markup()


def _cycles(records: Sequence[WorkloadRecord]) -> list[tuple[WorkloadRecord, WorkloadCycleRecord]]:
    return [(record, cycle) for record in records for cycle in record.cycles][:MOST_LANES]


def _label(record: WorkloadRecord, cycle: WorkloadCycleRecord) -> str:
    kind = "control" if cycle.control else "freeze"
    return ", ".join(filter(None, [record.cell, f"cycle {cycle.cycle} {kind}"]))


@dataclass(frozen=True)
class LanePicture:
    """Lanes over a common axis. note: beside the title; legend: kinds of marks, and what they mean."""

    title: str
    note: str
    lanes: Sequence[WorkloadLane]
    ticks: Sequence[Tick]
    legend: Sequence[tuple[str, str]]

    def drawn(self, ids: PictureIds) -> Markup:
        """The picture; empty without lanes."""
        if not self.lanes:
            return Markup()
        said = [f"{lane.name}: {lane.text} {lane.outcome or ''}".rstrip() for lane in self.lanes]
        return markup("lanes.svg.j2", id=ids.new(), picture=self, description="; ".join(said))


def _outages(run: Run, name: str, records: Sequence[WorkloadRecord], ids: PictureIds) -> Markup:
    given = [(r, c, longest_pause(run, r.cell, c.cycle)) for r, c in _cycles(records) if c.outage is not None]
    ends = [m.high_ns for _, c, pause in given for m in (c.outage, pause) if m is not None]
    span = Span(0, max([LEAST_NS, *ends]) / NS_PER_S * 1.02)
    lanes = []
    for record, cycle, pause in given:
        lengths = [("pause", "pause", pause), ("out", "outage", cycle.outage)]
        marks = [_stretch(span, kind, word, length) for kind, word, length in lengths if length is not None]
        text = f"out for {size(cycle.outage)}" if cycle.outage is not None else ""
        lanes.append(WorkloadLane(_label(record, cycle), text, cycle.outcome, marks))
    axis = ticks(span, even(0, span.high, 6), _seconds)
    legend = (("out", "outage"), ("pause", "pause"))
    return LanePicture(f"{name}: outages", "beside the pause", lanes, axis, legend).drawn(ids)


def _stretch(span: Span, kind: str, word: str, measure: Measure) -> WorkloadMark:
    x, width = span.across(0, max(0, measure.value_ns) / NS_PER_S)
    return WorkloadMark(x, width, kind, f"{word} {size(measure)}")


def _seconds(value: float) -> str:
    return f"{value:g} s"


def _latencies(name: str, records: Sequence[WorkloadRecord], ids: PictureIds) -> Markup:
    given = []
    for record, cycle in _cycles(records):
        if cycle.latencies is not None:
            values = quantiles_of(cycle.latencies, list(SHARES.values()))
            given.append(
                (record, cycle, [*zip(SHARES, values, strict=True), ("max", cycle.latencies.max_ns)])
            )
    everything = [max(1, value) for _, _, values in given for _, value in values]
    if not everything:
        return Markup()
    span = _logarithmic(everything)
    lanes = [
        WorkloadLane(
            _label(record, cycle),
            f"p50 {format_magnitude(values[0][1])}, p99 {format_magnitude(values[2][1])}",
            None,
            [
                WorkloadMark(
                    *span.across(math.log10(max(1, values[0][1])), math.log10(max(1, values[-1][1]))),
                    "range", "from the median to the longest",
                ),
                *(
                    WorkloadMark(span.place(math.log10(max(1, value))), 0, f"q{number}",
                                 f"{share} {format_magnitude(value)}")
                    for number, (share, value) in enumerate(values)
                ),
            ],
        )
        for record, cycle, values in given
    ]  # fmt: skip
    legend = [(f"q{number}", share) for number, share in enumerate([*SHARES, "max"])]
    return LanePicture(f"{name}: latencies", "logarithmic", lanes, list(_powers(span)), legend).drawn(ids)


def _logarithmic(values: Sequence[int]) -> Span:
    """A scale of powers of ten around the values."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max(0.15, (high - low) * 0.04)
    return Span(low - room, high + room)


def _powers(span: Span) -> Iterator[Tick]:
    powers = range(math.ceil(span.low), math.floor(span.high) + 1)
    step = max(1, math.ceil(len(powers) / 6))
    yield from ticks(
        span, [float(power) for power in powers[::step]], lambda power: format_edge(round(10**power))
    )


def _changes(name: str, records: Sequence[WorkloadRecord], ids: PictureIds) -> Markup:
    """When values of the workload's state changed, since the stop."""
    given = [(r, c) for r, c in _cycles(records) if c.changes or c.overlaps]
    ends = [change.at.high_ns for _, c in given for change in c.changes]
    ends += [one.at_ns + one.length.high_ns for _, c in given for one in c.overlaps]
    span = Span(0, max([LEAST_NS, *ends]) / NS_PER_S * 1.04)
    lanes = []
    for record, cycle in given:
        marks = [_overlap(span, one) for one in cycle.overlaps]
        marks += [_change(span, one) for one in cycle.changes]
        names = [one.name for one in cycle.changes] + [f"two {one.name}" for one in cycle.overlaps]
        lanes.append(WorkloadLane(_label(record, cycle), ", ".join(dict.fromkeys(names)), None, marks))
    axis = ticks(span, even(0, span.high, 6), _seconds)
    legend = (("change", "a value changed"), ("both", "two held it"))
    return LanePicture(f"{name}: states", "changes since the stop", lanes, axis, legend).drawn(ids)


def _overlap(span: Span, one: OverlapRecord) -> WorkloadMark:
    x, width = span.across(one.at_ns / NS_PER_S, (one.at_ns + one.length.value_ns) / NS_PER_S)
    return WorkloadMark(x, width, "both", f"{' and '.join(one.holders)} were both {one.name}")


def _change(span: Span, one: StateChangeRecord) -> WorkloadMark:
    at = max(0, one.at.value_ns)
    text = f"{one.name} {one.before} → {one.after} after {format_magnitude(at)}"
    return WorkloadMark(span.place(at / NS_PER_S), 0, "change", text)


def searches(run: Run, ids: PictureIds) -> Markup:
    """The tries of each search, over the length of the pause; empty without any."""
    shown = [record for record in run.tolerances if record.tries]
    pauses = [max(1, one.pause_ns) for record in shown for one in record.tries]
    if not pauses:
        return Markup()
    span = _logarithmic(pauses)
    lanes = [_search(span, record) for record in shown[:MOST_LANES]]
    legend = (
        ("t-passed", "passed"),
        ("t-failed", "failed"),
        ("t-inconclusive", "inconclusive"),
        ("edge", "between the longest that passed and the shortest that failed"),
    )
    values = [10.0**power * factor for power in range(4, 14) for factor in (1, 2, 5)]
    values = [value for value in values if span.low <= math.log10(value) <= span.high]
    shown_values = values[:: max(1, math.ceil(len(values) / 6))]
    axis = ticks(span, [math.log10(v) for v in shown_values], lambda power: format_edge(round(10**power)))
    title, note = "The shortest pause that a workload fails at", "each try, by the length of its pause"
    return LanePicture(title, note, lanes, axis, legend).drawn(ids)


def _search(span: Span, record: ToleranceRecord) -> WorkloadLane:
    passed, failed = record.longest_passed_ns, record.shortest_failed_ns
    texts = [
        f"passed {format_duration(passed)}" if passed is not None else "",
        f"failed {format_duration(failed)}" if failed is not None else "",
        "" if record.complete else record.why or "not to its end",
    ]
    marks = []
    if passed and failed and passed < failed:
        x, width = span.across(math.log10(passed), math.log10(failed))
        marks.append(WorkloadMark(x, width, "edge", "the shortest pause that it fails at lies here"))
    for one in record.tries:
        text = f"{format_duration(one.pause_ns)}: {one.outcome}"
        marks.append(WorkloadMark(span.place(math.log10(max(1, one.pause_ns))), 0, f"t-{one.outcome}", text))
    name = ", ".join(filter(None, [record.workload, record.cell, record.method]))
    return WorkloadLane(name, ", ".join(filter(None, texts)), None, marks)
