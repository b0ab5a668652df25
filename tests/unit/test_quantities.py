"""Measured quantities: what is shown contains what was measured."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lab.core.quantities import (
    DOWN,
    UP,
    format_about,
    format_at_latest,
    format_at_least,
    format_between,
    format_bounded,
    format_fine,
    format_ms,
    format_seconds,
    format_short,
    format_step,
    format_table_ms,
)
from lab.core.units import NBSP, NS_PER_MS, NS_PER_S

UNITS = {"\N{MICRO SIGN}s": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}
TIMES = st.integers(0, 10**7) | st.integers(0, 10**11) | st.integers(0, 10**14)


def in_ns(text: str) -> Fraction:
    """A time as it is shown, in nanoseconds and exact: "5 006.4 ms", "-2 h 0 min 0.5 s"."""
    sign = -1 if text.startswith("-") else 1
    words = text.lstrip("+-").replace(NBSP, "").split()
    pairs = zip(words[::2], words[1::2], strict=True)
    return sign * sum((Fraction(number) * UNITS[unit] for number, unit in pairs), Fraction())


def shown_interval(text: str) -> tuple[Fraction, Fraction]:
    """Low and high, in nanoseconds and exact, of what format_bounded shows."""
    value, bound = text.split(" ± ")
    middle, side = in_ns(f"{value} {bound.rsplit(' ', 1)[1]}"), in_ns(bound)
    return middle - side, middle + side


SIDES = st.integers(0, 10**5) | st.integers(0, 10**9) | st.integers(0, 10**12)


@given(st.integers(-(10**14), 10**14), SIDES, SIDES)
@example(0, 0, 0)
@example(0, 9_999, 9_999)
@example(0, 99_999, 99_999)
@example(0, 99_999_999, 99_999_999)
@example(0, 100_000_000, 100_000_000)
def test_the_shown_interval_contains_the_measured_one(value: int, below: int, above: int) -> None:
    low, high = shown_interval(format_bounded(value, value - below, value + above))
    assert low <= value - below
    assert value + above <= high


@pytest.mark.parametrize(("value", "side"), [(0, 100_000_001), (500_000, 100_500_001)])
def test_bounds_beyond_100_ms_are_rounded_up_too(value: int, side: int) -> None:
    low, high = shown_interval(format_bounded(value, value - side, value + side))
    assert low <= value - side
    assert value + side <= high


@given(st.integers(-(10**12), 10**12), SIDES)
def test_the_shown_interval_is_not_much_wider(value: int, side: int) -> None:
    low, high = shown_interval(format_bounded(value, value - side, value + side))
    # The last place shown is 1 to 100 % of the bound, or 1 µs; rounding costs two of it at most.
    assert (high - low) / 2 <= side + 2 * max(side, 1_000)


@pytest.mark.parametrize(
    ("value", "low", "high", "signed", "text"),
    [
        (5_006_400_000, 5_005_800_000, 5_007_000_000, False, "5 006.4 ± 0.6 ms"),
        (300_000, -100_000, 700_000, True, "+0.3 ± 0.4 ms"),
        (-300_000, -700_000, 100_000, True, "-0.3 ± 0.4 ms"),
        (-5_006_100_000, -5_006_800_000, -5_005_400_000, True, "-5 006.1 ± 0.7 ms"),
        (1_234_567, 1_234_067, 1_235_067, False, "1.235 ± 0.001 ms"),
        (0, 0, 0, False, "0.000 ± 0.000 ms"),
        (99_999_940_000, 99_999_540_000, 100_000_340_000, False, "99 999.9 ± 0.5 ms"),
        (4_499_296_900_000, 4_499_296_500_000, 4_499_297_300_000, True, "+74 min 59.2969 ± 0.0004 s"),
        (-7_200_500_000_000, -7_200_900_000_000, -7_200_100_000_000, True, "-2 h 0 min 0.50 ± 0.40 s"),
        (2_016_100_000, 1_972_900_000, 2_059_300_000, False, "2 016 ± 44 ms"),
        (3_868_000_000, -1_000_000, 7_737_000_000, False, "3 900 ± 4 000 ms"),
        (504_200_000, 494_240_000, 514_160_000, False, "504 ± 11 ms"),
        (450_000_000_000, 330_000_000_000, 570_000_000_000, False, "7 min 30 ± 120 s"),
    ],
)
def test_how_a_bounded_time_is_shown(value: int, low: int, high: int, signed: bool, text: str) -> None:
    assert format_bounded(value, low, high, signed=signed).replace(NBSP, " ") == text


@pytest.mark.parametrize(
    ("by", "text"),
    [
        (4_997_600_000, "+4 997.6 ms"),
        (-800_000, "-0.800 ms"),
        (4_502_452_200_000, "+75 min 2.452 s"),
        (-7_200_000_000_000, "-2 h 0 min 0.000 s"),
    ],
)
def test_how_a_step_is_shown(by: int, text: str) -> None:
    assert format_step(by).replace(NBSP, " ") == text


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 s"), (1_234_567, "1.23 ms"), (500 * NS_PER_MS, "500 ms"), (999_900_000, "1000 ms"),
        (16 * NS_PER_S, "16 s"), (79 * NS_PER_S, "79 s"), (419_400 * NS_PER_MS, "6.99 min"),
        (4_499 * NS_PER_S, "75 min"), (7_200 * NS_PER_S, "2 h"), (86_400 * NS_PER_S, "24 h"),
        (100 * 86_400 * NS_PER_S, "2400 h"),
    ],
)  # fmt: skip
def test_a_length_that_nobody_needs_exactly_has_three_digits(ns: int, text: str) -> None:
    assert format_about(ns) == text


@given(TIMES)
@example(0)
@example(NS_PER_S // 10)
@example(10 * NS_PER_S)
@example(100 * NS_PER_S)
@example(99 * 60 * NS_PER_S + 1)
def test_a_limit_lies_on_its_own_side(ns: int) -> None:
    for coarse in (False, True):
        assert in_ns(format_at_least(ns, coarse=coarse)) <= ns <= in_ns(format_at_latest(ns, coarse=coarse))
    for form in (format_fine, format_short):
        assert in_ns(form(ns, DOWN)) <= ns <= in_ns(form(ns, UP))
    assert in_ns(format_seconds(ns, 2, DOWN)) <= ns <= in_ns(format_seconds(ns, 2, UP))
    assert in_ns(f"{format_ms(ns, DOWN)} ms") <= ns <= in_ns(f"{format_ms(ns, UP)} ms")
    if ns >= 100 * NS_PER_S:
        assert in_ns(format_table_ms(ns, DOWN)) <= ns <= in_ns(format_table_ms(ns, UP))


@given(TIMES, TIMES)
def test_a_range_contains_both_its_ends(one: int, other: int) -> None:
    low, high = min(one, other), max(one, other)
    number, unit = format_between(low, high).split()
    first, _, last = number.partition("–")
    assert in_ns(f"{first} {unit}") <= low
    assert high <= in_ns(f"{last or first} {unit}")
