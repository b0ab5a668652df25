"""The resync curve: |offset| over the time since the resume, its bounds as a band, the forecast behind it.
The scale is logarithmic, and the bounds in each column are those of the terminal's curve."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lab.core.clock import Interval
from lab.core.quantities import format_edge, format_step
from lab.record.model import CycleRecord, ForecastRecord
from lab.report.curve import DECADES, CurveScale, bounds_in_columns, curve_scale, rounded_end, tick_text
from lab.report.html.axis import Span, ticks
from lab.report.html.blocks import BlockPage
from lab.report.html.document import PictureIds, markup
from lab.report.resyncs import TOLERANCE_NS, verdict
from lab.report.sections import drawn_points, resync_line

HEIGHT = 170
COLUMNS = 250
WIDE = 1000
"""The width of the band's own coordinates."""
MARGIN = 0.3
"""Above and below the scale, in decades."""


@dataclass(frozen=True)
class ForecastBox:
    """Where the forecast says that the offset is. x, width: percent; y, height: pixels."""

    x: float
    width: float
    y: float
    height: float


@dataclass(frozen=True)
class Decade:
    y: float
    text: str


@dataclass(frozen=True)
class StepMark:
    x: float
    mark: str
    text: str


def _y(scale: CurveScale, ns: float) -> float:
    """The place of a magnitude, in pixels from the top."""
    decades = scale.top + MARGIN - math.log10(max(1.0, ns))
    return round(min(1.0, max(0.0, decades / (scale.top - scale.bottom + 2 * MARGIN))) * HEIGHT, 1)


def resync_curve(whose: str, cycle: CycleRecord, ids: PictureIds) -> Markup:
    """The picture of a cycle; empty without readings after the resume."""
    resync = cycle.resync
    if resync is None or not resync.curve:
        return Markup()
    points, until = drawn_points(cycle, resync)
    if until <= 0:
        return Markup()
    until = rounded_end(until)
    seen = [point for point in points if point.at_ns <= until]
    if not seen:
        return Markup()
    tolerance = resync.tolerance_ns or TOLERANCE_NS
    scale, span = curve_scale(seen, tolerance), Span(0, until)
    columns = bounds_in_columns(points, resync.steps or (), until, COLUMNS)
    text, forecast = resync_line(BlockPage(), resync, cycle), resync.forecast
    boxes = list(_forecast(scale, span, cycle, forecast)) if forecast is not None else []
    if forecast is not None:
        shown = verdict(forecast)[0]
        text += f". Predicted: {'' if shown.endswith(forecast.text) else f'{forecast.text}: '}{shown}"
    return markup(
        "curve.svg.j2",
        id=ids.new(), title=f"Offset of the guest's clock after the resume, {whose}", height=HEIGHT,
        description=f"{text}.",
        caption=f"{text}." + (" Hatched: the forecast." if boxes else ""),
        decades=[Decade(_y(scale, 10.0**n), DECADES[n]) for n in range(scale.bottom, scale.top + 1)],
        limit_y=_y(scale, tolerance), limit_text=f"in time: ± {format_edge(tolerance)}",
        forecast=boxes,
        areas=[_area(scale, run, start) for start, run in _runs(columns)],
        steps=[
            StepMark(span.place(s.at_ns), "▲" if s.by_ns > 0 else "▼", f"step of {format_step(s.by_ns)}")
            for s in (resync.steps or ())[:40] if s.at_ns <= until
        ],
        ticks=ticks(span, [until * part / 4 for part in range(5)], _since),
    )  # fmt: skip


def _since(ns: float) -> str:
    return tick_text(ns) if ns else "0"


def _runs(columns: Sequence[tuple[int, int] | None]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Neighbouring columns that are known, and the number of the first."""
    run: list[tuple[int, int]] = []
    for number, known in enumerate([*columns, None]):
        if known is not None:
            run.append(known)
        elif run:
            yield number - len(run), run
            run = []


def _area(scale: CurveScale, run: Sequence[tuple[int, int]], start: int) -> str:
    """The path around a run of columns: along the upper bounds, and back along the lower ones."""
    wide = WIDE // COLUMNS
    tops = [round(_y(scale, high)) for _, high in run]
    bottoms = [max(round(_y(scale, low)), top) for (low, _), top in zip(run, tops, strict=True)]
    path = [f"M{start * wide} {tops[0]}"]
    path += _along(tops, [(start + number + 1) * wide for number in range(len(run))])
    path += _along(bottoms[::-1], [(start + number) * wide for number in reversed(range(len(run)))])
    return "".join(path) + "Z"


def _along(heights: Sequence[int], ends: Sequence[int]) -> Iterator[str]:
    """Horizontal lines at heights, each to its end; those at the same height are one."""
    for number, (height, end) in enumerate(zip(heights, ends, strict=True)):
        if number == 0 or heights[number - 1] != height:
            yield f"V{height}"
        if number + 1 == len(heights) or heights[number + 1] != height:
            yield f"H{end}"


def _forecast(
    scale: CurveScale, span: Span, cycle: CycleRecord, forecast: ForecastRecord
) -> Iterator[ForecastBox]:
    """Until the correction the offset is where it was; then somewhere on its way; afterwards it is the
    residual."""
    residual, first = forecast.residual, cycle.offset.at_resume
    if residual is None or first is None:
        return
    start, end = Interval(first.low_ns, first.high_ns), Interval(residual.low_ns, residual.high_ns)
    within = forecast.within or Interval(0, 0)
    low, high = max(0, within.low_ns), max(0, within.high_ns)
    if low > 0:
        yield _box(scale, span, 0, low, start.smallest_ns, start.largest_ns)
    if high > low and low < span.high:
        between = (end.smallest_ns, max(start.largest_ns, end.largest_ns))
        yield _box(scale, span, low, high, *between)
    if high < span.high:
        yield _box(scale, span, high, round(span.high), end.smallest_ns, end.largest_ns)


def _box(scale: CurveScale, span: Span, begin: int, end: int, small: int, large: int) -> ForecastBox:
    x, width = span.across(begin, end)
    top, bottom = _y(scale, large), _y(scale, small)
    return ForecastBox(x, width, top, max(2.0, round(bottom - top, 1)))
