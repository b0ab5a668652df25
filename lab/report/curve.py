"""The resync curve in a terminal: |offset| over the time since the resume, in braille, its scale logarithmic.

A column of dots covers the bounds of the offset at that time; bounds wider than a dot are drawn at their full
height. Between readings less than a second apart the bounds are joined by straight lines, except over a step:
before it the clock kept the last reading's offset, and after it has the next one's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lab.core.quantities import format_edge
from lab.core.resync import LARGEST_BLIND_NS
from lab.core.units import NS_PER_S
from lab.record.model import Moved, PointRecord
from lab.report.page import Page
from lab.report.table import Piece

ROWS_PER_DECADE = 2
DOTS = 4  # of a braille character, one above the other; two beside each other
_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # by column, from the top (Unicode, U+2800)
DECADES = {
    4: "10 µs", 5: "0.1 ms", 6: "1 ms", 7: "10 ms", 8: "100 ms", 9: "1 s", 10: "10 s", 11: "100 s",
    12: "17 min", 13: "2.8 h", 14: "28 h",
}  # fmt: skip
LEAST_DECADE, MOST_DECADE = 5, 14
AXIS = 8
TICKS = 4
OUT, IN = "yellow", "green"


@dataclass(frozen=True)
class CurveScale:
    """The scale: powers of ten of nanoseconds at the bottom and at the top, each in the middle of its row."""

    bottom: int
    top: int

    @property
    def rows(self) -> int:
        return (self.top - self.bottom) * ROWS_PER_DECADE + 1

    def dot(self, ns: float) -> int:
        """The dot of a value, counted from the bottom; values outside of the scale are on its edge."""
        if ns <= 0:
            return 0
        decades = math.log10(ns) - self.bottom
        return max(0, min(self.rows * DOTS - 1, math.floor((decades * ROWS_PER_DECADE + 0.5) * DOTS)))

    def label(self, row: int) -> str:
        """The label of a row, counted from the top; "" between two powers of ten."""
        decades, rest = divmod(row, ROWS_PER_DECADE)
        return "" if rest else DECADES[self.top - decades]


def curve_scale(points: Sequence[PointRecord], tolerance_ns: int) -> CurveScale:
    """The scale for points, with the tolerance in it."""
    largest = max(max(abs(p.low_ns), abs(p.high_ns)) for p in points)
    # Where the best of them end: bounds that contain zero have no smallest magnitude.
    smallest = min(max(abs(p.low_ns), abs(p.high_ns)) for p in points)
    top = math.ceil(math.log10(max(largest, tolerance_ns, 10)) + 1e-9)
    bottom = math.floor(math.log10(max(1, min(smallest, tolerance_ns))))
    bottom = max(LEAST_DECADE, min(bottom, MOST_DECADE - 1))
    return CurveScale(bottom, max(bottom + 1, min(MOST_DECADE, top)))


def bounds_in_columns(
    points: Sequence[PointRecord], steps: Sequence[Moved], until_ns: int, width: int
) -> list[tuple[int, int] | None]:
    """For each column of dots the least and the largest |offset| in it; None where it is not known."""
    found: list[tuple[int, int] | None] = [None] * width

    def put(at_ns: float, low: float, high: float) -> None:
        column = min(width - 1, int(at_ns * width / until_ns))
        small = 0 if low <= 0 <= high else min(abs(low), abs(high))
        large = max(abs(low), abs(high))
        known = found[column]
        found[column] = (
            (round(small), round(large))
            if known is None
            else (min(known[0], round(small)), max(known[1], round(large)))
        )

    for point in points:
        if point.at_ns <= until_ns:
            put(point.at_ns, point.low_ns, point.high_ns)
    for one, two in pairwise(points):
        if one.at_ns > until_ns or two.at_ns - one.at_ns > LARGEST_BLIND_NS:
            continue
        moved = [s.at_ns for s in steps if one.at_ns <= s.at_ns <= two.at_ns]
        for at in _between(one.at_ns, two.at_ns, until_ns, width):
            if moved:
                chosen = one if at < moved[0] else two if at >= moved[-1] else None
                if chosen is not None:
                    put(at, chosen.low_ns, chosen.high_ns)
                continue
            share = (at - one.at_ns) / (two.at_ns - one.at_ns)
            put(
                at,
                one.low_ns + share * (two.low_ns - one.low_ns),
                one.high_ns + share * (two.high_ns - one.high_ns),
            )
    return found


def _between(begin: int, end: int, until_ns: int, width: int) -> Iterator[float]:
    """The middles of the columns of dots that lie between two instants."""
    first, last = begin * width // until_ns + 1, end * width // until_ns
    return ((column + 0.5) * until_ns / width for column in range(first, min(last, width)))


def _braille(columns: Sequence[tuple[int, int] | None], scale: CurveScale) -> list[str]:
    """Lines of characters, the top one first."""
    cells = [[0] * (len(columns) // 2) for _ in range(scale.rows)]
    for x, known in enumerate(columns):
        if known is None:
            continue
        for y in range(scale.dot(known[0]), scale.dot(known[1]) + 1):
            row, dot = divmod(scale.rows * DOTS - 1 - y, DOTS)
            cells[row][x // 2] |= _BITS[x % 2][dot]
    return ["".join(chr(0x2800 + bits) if bits else " " for bits in line) for line in cells]


def show_curve(
    page: Page,
    points: Sequence[PointRecord],
    steps: Sequence[Moved],
    until_ns: int,
    tolerance_ns: int,
    indent: int,
) -> None:
    """Print the plot, with its axes and the line of the tolerance; nothing without points. indent: empty
    columns to the left of it."""
    if until_ns <= 0:
        return
    until_ns = rounded_end(until_ns)
    visible = [p for p in points if p.at_ns <= until_ns]
    if not visible:
        return
    scale = curve_scale(visible, tolerance_ns)
    note = f" ± {format_edge(tolerance_ns)}"
    width = max(16, min(72, page.width - indent - AXIS - 1 - len(note))) // TICKS * TICKS
    lines = _braille(bounds_in_columns(points, steps, until_ns, 2 * width), scale)
    line_of = scale.rows - 1 - scale.dot(tolerance_ns) // DOTS
    for row, line in enumerate(lines):
        label = scale.label(row)
        style = OUT if row < line_of else IN
        shown: list[Piece] = [(line, style)]
        if row == line_of:
            shown = [*_with_line(line, style), (note, "dim")]
        page.put((f"{' ' * indent}{label:>{AXIS}}{'┤' if label else '│'}", "dim"), *shown)
    page.put((f"{' ' * (indent + AXIS)}└", "dim"), *_axis(steps, until_ns, width))
    page.put((" " * (indent + AXIS + 1) + _times(until_ns, width), "dim"))


def rounded_end(until_ns: int) -> int:
    """The end of the axis: the least time with readable ticks that is at most a twentieth below
    `until_ns`."""
    power = 10.0 ** math.floor(math.log10(until_ns))
    return next(
        round(factor * power) for factor in (1, 1.2, 2, 3, 4, 6, 8, 10) if factor * power >= until_ns * 0.95
    )


def _with_line(line: str, style: str) -> list[Piece]:
    """A line with the tolerance drawn where nothing else is."""
    pieces: list[Piece] = []
    for char in line:
        piece = ("╌", "dim") if char == " " else (char, style)
        if pieces and pieces[-1][1] == piece[1]:
            pieces[-1] = (pieces[-1][0] + piece[0], piece[1])
        else:
            pieces.append(piece)
    return pieces


def _axis(steps: Sequence[Moved], until_ns: int, width: int) -> list[Piece]:
    """The time axis, with a triangle at each step of the clock."""
    chars = ["┴" if i and not i % (width // TICKS) else "─" for i in range(width)]
    for step in steps:
        if step.at_ns <= until_ns:
            chars[min(width - 1, step.at_ns * width // until_ns)] = "▲" if step.by_ns > 0 else "▼"
    return [(char, "bold" if char in "▲▼" else "dim") for char in chars]


def _times(until_ns: int, width: int) -> str:
    """The times of the ticks, each below its tick."""
    text = ["0"]
    length = 1
    for number in range(1, TICKS + 1):
        label = tick_text(until_ns * number / TICKS)
        place = min(number * (width // TICKS) - len(label) // 2, width - len(label))
        text.append(" " * max(1, place - length) + label)
        length = max(length + 1, place) + len(label)
    return "".join(text)


def tick_text(ns: float) -> str:
    """ "20 ms", "1.5 s"."""
    seconds = ns / NS_PER_S
    return f"{seconds * 1000:.3g} ms" if seconds < 0.1 else f"{seconds:.3g} s"
