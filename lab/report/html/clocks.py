"""Offsets and drift: one lane a cycle, with the offset before the freeze, at the resume and at the end, and
the drift before and after."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lab.core.drift import Drift
from lab.record.model import Measure, Run
from lab.report.cycles import Row, rows_of
from lab.report.html.axis import Span, Tick, even, ticks
from lab.report.html.cycles import name_of
from lab.report.html.document import PictureIds, markup
from lab.report.numbers import drift, interval

MOST_ROWS = 40
LINEAR_NS = 100_000
"""Offsets below 0.1 ms are in the middle of their scale, which is logarithmic to both sides."""
_DECADES = {5: "0.1 ms", 6: "1 ms", 7: "10 ms", 8: "100 ms", 9: "1 s", 10: "10 s", 11: "100 s", 12: "17 min",
            13: "2.8 h", 14: "28 h", 15: "12 d"}  # fmt: skip


@dataclass(frozen=True)
class ClockMark:
    """An interval. kind: "before", "resume" or "final"."""

    x: float
    width: float
    middle: float
    kind: str
    text: str


@dataclass(frozen=True)
class ClockLane:
    name: str
    text: str
    marks: Sequence[ClockMark]


def _decades(value: float) -> float:
    """A value on the scale of offsets."""
    if abs(value) <= LINEAR_NS:
        return value / LINEAR_NS * 0.5
    return math.copysign(0.5 + math.log10(abs(value) / LINEAR_NS), value)


def _label(run: Run, row: Row) -> str:
    return ", ".join(filter(None, [row.guest.cell, name_of(run, row)]))


def _rows(run: Run) -> list[Row]:
    return [row for row in rows_of(run) if row.cycle is not None and not row.cycle.control][:MOST_ROWS]


def offsets(run: Run, ids: PictureIds) -> Markup:
    """The picture of the offsets; empty without any."""
    shown: list[tuple[str, list[tuple[str, Measure]]]] = []
    for row in _rows(run):
        offset = row.cycle.offset if row.cycle is not None else None
        given = [
            (kind, measure)
            for kind, measure in (
                ("before", offset.before if offset else None),
                ("resume", offset.at_resume if offset else None),
                ("final", offset.final if offset else None),
            )
            if measure is not None
        ]
        if given:
            shown.append((_label(run, row), given))
    if not shown:
        return Markup()
    ends = [abs(v) for _, given in shown for _, m in given for v in (m.low_ns, m.high_ns)]
    most = max(1.5, _decades(max(ends)) * 1.04)
    span = Span(-most, most)
    lanes = [
        ClockLane(
            name,
            "; ".join(f"{_WORDS[kind]} {interval(m, signed=True)}" for kind, m in given),
            [_mark(span, kind, m, f"{_WORDS[kind]} {interval(m, signed=True)}") for kind, m in given],
        )
        for name, given in shown
    ]
    return _picture("Offset of the guest's clock", "guest minus host; the scale is logarithmic", lanes,
                    list(_offset_ticks(span, most)), ids, ("before", "resume", "final"))  # fmt: skip


_WORDS = {"before": "before", "resume": "at the resume", "final": "at the end"}


def _mark(span: Span, kind: str, measure: Measure, text: str) -> ClockMark:
    x, width = span.across(_decades(measure.low_ns), _decades(measure.high_ns), 0.2)
    return ClockMark(x, width, span.place(_decades(measure.value_ns)), kind, text)


def _offset_ticks(span: Span, most: float) -> Iterator[Tick]:
    powers = [power for power in _DECADES if power > 5 and _decades(10.0**power) <= most]
    step = max(1, math.ceil(len(powers) / 2))
    chosen = powers[::-1][::step][::-1]
    values = [*(-(10.0**power) for power in reversed(chosen)), 0.0, *(10.0**power for power in chosen)]
    for value in values:
        x = span.place(_decades(value))
        text = "0" if not value else f"{'+' if value > 0 else '-'}{_DECADES[round(math.log10(abs(value)))]}"
        yield Tick(x, text, "" if x < 6 else "end" if x > 94 else "mid")


def drifts(run: Run, ids: PictureIds) -> Markup:
    """The picture of the drift before and after; empty without any."""
    shown: list[tuple[str, list[tuple[str, Drift]]]] = []
    for row in _rows(run):
        known = row.cycle.drift if row.cycle is not None else None
        pairs = [("before", known.before), ("final", known.after)] if known is not None else []
        given = [(kind, rate) for kind, rate in pairs if rate is not None]
        if given:
            shown.append((_label(run, row), given))
    if not shown:
        return Markup()
    most = max(max(abs(rate.low), abs(rate.high)) for _, given in shown for _, rate in given) * 1.05
    span = Span(-most, most)
    words = {"before": "before", "final": "after"}
    lanes = [
        ClockLane(
            name,
            "; ".join(f"{words[kind]} {drift(rate)}" for kind, rate in given),
            [
                ClockMark(*span.across(rate.low, rate.high, 0.2), span.place(rate.ppm), kind, drift(rate))
                for kind, rate in given
            ],
        )
        for name, given in shown
    ]
    marks = ticks(span, even(-most, most, 6), lambda ppm: f"{ppm:+g} ppm" if ppm else "0")
    return _picture("Drift of the guest's clock", "against the host's MONOTONIC_RAW", lanes, marks, ids,
                    ("before", "final"))  # fmt: skip


def _picture(
    title: str,
    note: str,
    lanes: Sequence[ClockLane],
    marks: Sequence[Tick],
    ids: PictureIds,
    kinds: Sequence[str],
) -> Markup:
    words = {**_WORDS, "final": "after" if "resume" not in kinds else _WORDS["final"]}
    return markup(
        "clocks.svg.j2",
        id=ids.new(), title=title, note=note, lanes=lanes, ticks=marks,
        legend=[(kind, words[kind]) for kind in kinds],
        description="; ".join(f"{lane.name}: {lane.text}" for lane in lanes),
    )  # fmt: skip


def clock_pictures(run: Run, ids: PictureIds) -> Markup:
    """Both pictures, and how many cycles they leave out."""
    drawn = offsets(run, ids) + drifts(run, ids)
    rows = sum(row.cycle is not None and not row.cycle.control for row in rows_of(run))
    more = (
        Markup('<p class="dim">{} more cycles are in cycles.csv.</p>').format(rows - MOST_ROWS)
        if rows > MOST_ROWS
        else ""
    )
    return Markup('<div class="figures">{}</div>{}').format(drawn, more) if drawn else Markup()
