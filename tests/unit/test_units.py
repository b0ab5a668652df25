"""Quantities: what is read is what was written, and what is shown contains what was measured."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lab.core.units import (
    NBSP,
    NS_PER_MS,
    NS_PER_S,
    format_about,
    format_bounded,
    format_duration,
    format_size,
    format_step,
    parse_duration,
    parse_size,
)

DURATION_UNITS = {
    "ns": 1,
    "us": 10**3,
    "\N{MICRO SIGN}s": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "min": 60 * 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
SIZE_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
SPACES = st.sampled_from(["", " ", "  ", NBSP])
DAY = 24 * 3600 * NS_PER_S


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("5s", 5 * NS_PER_S),
        (" 250 ms ", 250 * NS_PER_MS),
        ("1.5min", 90 * NS_PER_S),
        ("0.1us", 100),
        ("+2h", 7200 * NS_PER_S),
        ("0s", 0),
        ("-0s", 0),
        ("0.4ns", 0),
    ],
)
def test_durations(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "duration without a unit: '5'; write it like 5s, 250ms or 2min"),
        ("", "not a duration: ''; write it like"),
        ("s", "not a duration: 's'"),
        ("1 2s", "not a duration: '1 2s'"),
        ("1min30s", "not a duration: '1min30s'"),
        ("1e3s", "not a duration: '1e3s'"),
        (".5s", "not a duration: '.5s'"),
        ("\N{ARABIC-INDIC DIGIT FIVE}s", "not a duration: "),
        ("5sec", "unknown unit 'sec' in '5sec'; known: ns, us,"),
        ("5S", "unknown unit 'S' in '5S'"),
        ("-5s", "duration is negative: '-5s'"),
        ("9999999999h", "duration is too large: '9999999999h'"),
    ],
)
def test_texts_that_are_no_duration(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        parse_duration(text)
    assert str(caught.value).startswith(message)


@given(st.integers(0, 10**6), st.integers(0, 999), st.sampled_from(sorted(DURATION_UNITS)), SPACES)
def test_a_duration_is_read_exactly(whole: int, thousandths: int, unit: str, space: str) -> None:
    exact = Fraction(f"{whole}.{thousandths:03}") * DURATION_UNITS[unit]
    assert parse_duration(f"{whole}.{thousandths:03}{space}{unit}") == round(exact)


@given(st.integers(0, 10**5), st.sampled_from(sorted(SIZE_UNITS)), SPACES)
def test_a_size_is_read_exactly(number: int, unit: str, space: str) -> None:
    assert parse_size(f"{number}{space}{unit}") == number * SIZE_UNITS[unit]


@pytest.mark.parametrize("text", ["512", "512MB", "512 M", "512mib", "-1 MiB", "", "lots"])
def test_texts_that_are_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|unit"):
        parse_size(text)


@given(st.text(max_size=30))
def test_any_text_is_a_quantity_or_a_value_error(text: str) -> None:
    for parse in (parse_duration, parse_size):
        with suppress(ValueError):
            assert 0 <= parse(text) < 2**62


@given(st.integers(0, 2**62 - 1))
def test_sizes_survive_being_shown(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.integers(0, 10**10 - 1) | st.integers(0, DAY // NS_PER_MS).map(lambda ms: ms * NS_PER_MS))
def test_durations_of_a_playbook_survive_being_shown(ns: int) -> None:
    """Ten digits are shown: durations below 10 s to the nanosecond, of whole milliseconds nearly so."""
    assert abs(parse_duration(format_duration(ns)) - ns) <= ns * 1e-9


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 s"),
        (5 * NS_PER_S, "5 s"),
        (1_500_000_000, "1.5 s"),
        (250 * NS_PER_MS, "250 ms"),
        (90 * NS_PER_S, "1.5 min"),
        (1_000, "1 \N{MICRO SIGN}s"),
        (999, "999 ns"),
        (-5 * NS_PER_S, "-5 s"),
    ],
)
def test_how_durations_are_shown(ns: int, text: str) -> None:
    assert format_duration(ns) == text


def in_ns(text: str) -> Fraction:
    """A time as it is shown, in nanoseconds and exact: "5 006.4 ms", "-2 h 0 min 0.5 s"."""
    sign = -1 if text.startswith("-") else 1
    words = text.lstrip("+-").replace(NBSP, "").split()
    pairs = zip(words[::2], words[1::2], strict=True)
    return sign * sum((Fraction(number) * DURATION_UNITS[unit] for number, unit in pairs), Fraction())


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
        (-7_200_500_000_000, -7_200_900_000_000, -7_200_100_000_000, True, "-2 h 0 min 0.500 ± 0.400 s"),
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
