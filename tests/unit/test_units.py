"""Durations and sizes: what is read is what was written."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.units import (
    NBSP,
    NS_PER_MS,
    NS_PER_S,
    format_duration,
    format_size,
    parse_bandwidth,
    parse_duration,
    parse_size,
)
from lab.core.workload.shipped.option_values import bit_rate

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


@pytest.mark.parametrize(
    ("text", "bits"),
    [("1bit", 1), (" 8Mbit", 8_000_000), ("1.5 Gbit/s", 1_500_000_000), ("+500kbit/s ", 500_000)],
)
def test_bandwidths_in_a_playbook_and_of_a_workload(text: str, bits: int) -> None:
    assert parse_bandwidth(text) == bits
    assert bit_rate({"rate": text}, "rate", 1, 10**10) == bits


@pytest.mark.parametrize("text", ["8", "8Mbps", "8MB", "-1Mbit", "", "fast", "1bit/s/s", "Mbit"])
def test_texts_that_are_no_bandwidth(text: str) -> None:
    with pytest.raises(ValueError, match=r"bandwidth|unknown unit"):
        parse_bandwidth(text)
    with pytest.raises(ValueError, match=r"^rate: "):
        bit_rate({"rate": text}, "rate", 1, 10**10)


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
        (86 * NS_PER_S, "86 s"),
        (72 * NS_PER_S, "1.2 min"),
        (1_000, "1 \N{MICRO SIGN}s"),
        (999, "999 ns"),
        (-5 * NS_PER_S, "-5 s"),
    ],
)
def test_how_durations_are_shown(ns: int, text: str) -> None:
    assert format_duration(ns) == text
