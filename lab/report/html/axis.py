"""Places on a picture's axes, in percent of its width."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Tick:
    """A tick of an axis. anchor: the CSS class that puts its text before, upon or behind its place."""

    x: float
    text: str
    anchor: str = "mid"


@dataclass(frozen=True)
class Span:
    """A stretch of values that is drawn from `x` on, over `width`."""

    low: float
    high: float
    x: float = 0.0
    width: float = 100.0

    def place(self, value: float) -> float:
        """The place of a value; values outside are on an edge."""
        share = (value - self.low) / max(1e-12, self.high - self.low)
        return round(self.x + self.width * min(1.0, max(0.0, share)), 3)

    def across(self, low: float, high: float, least: float = 0.35) -> tuple[float, float]:
        """The place and the width of an interval; at least so wide that it can be seen."""
        begin, end = self.place(low), self.place(high)
        width = max(end - begin, least)
        return round(min(begin, self.x + self.width - width), 3), round(width, 3)


def even(low: float, high: float, most: int) -> list[float]:
    """At most `most` round values in [low, high], at equal distances."""
    if high <= low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(
        factor * power for factor in (1, 2, 5, 10, 20, 50) if (high - low) / (factor * power) <= most - 1
    )
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def ticks(span: Span, values: list[float], text: Callable[[float], str]) -> list[Tick]:
    """Ticks at values. Texts at the ends stay inside of the picture."""
    found = []
    for value in values:
        x = span.place(value)
        found.append(Tick(x, text(value), "" if x < 6 else "end" if x > 94 else "mid"))
    return found
