"""Text and numbers: nothing escapes, everything fits, bounds are rounded outwards."""

from __future__ import annotations

import re
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from lab.core.clock import Interval
from lab.core.drift import Drift
from lab.core.quantities import DOWN, UP, format_at_latest, format_ms, format_seconds, format_table_ms
from lab.core.units import NBSP, NS_PER_MS, NS_PER_S
from lab.record.run import Limits, PointRecord
from lab.report import numbers, text

NS = st.integers(-(10**13), 10**13)


def number(shown: str) -> Fraction:
    return Fraction(shown.replace(NBSP, "").replace(",", ""))


@given(st.text())
def test_clean_text_is_one_harmless_line(given_text: str) -> None:
    kept = text.clean(given_text)
    assert len(kept.splitlines()) <= 1
    assert not re.search(
        r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]", kept
    )


@given(st.text(), st.integers(2, 40))
def test_wrapped_text_fits_and_loses_nothing(given_text: str, width: int) -> None:
    given_text = text.clean(given_text)
    lines = text.wrapped(given_text, width)
    assert all(cell_len(line) <= width for line in lines)
    squeezed = "".join(lines).replace(" ", "").replace(NBSP, "")
    assert squeezed == given_text.replace(" ", "").replace(NBSP, "")


@given(st.lists(st.text(min_size=1).map(text.clean)), st.integers(2, 60))
def test_joined_parts_fit(parts: list[str], width: int) -> None:
    assert all(cell_len(line) <= width for line in text.joined(parts, width))


def test_quantities_are_not_torn() -> None:
    assert text.wrapped("frozen for 5 006.4 ± 0.6 ms or so", 20) == [
        "frozen for 5",
        f"006.4{NBSP}±{NBSP}0.6{NBSP}ms or so",
    ]


def test_a_limit_stays_with_its_sign() -> None:
    assert text.wrapped("make install (≤ 5 min)", 16) == ["make install", f"(≤{NBSP}5{NBSP}min)"]


def test_ranges_and_names() -> None:
    assert text.ranges([9, 3, 8, 7, 1, 2]) == "1-3, 7-9"
    assert text.ranges([4, 5]) == "4, 5"
    assert text.names(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_bare_numbers() -> None:
    assert text.bare(f"5{NBSP}006.4 ± 0.6 ms in 8{NBSP}s") == "5006.4 ± 0.6 ms in 8 s"


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_shown_drift_contains_the_drift(ppm: float, below: float, above: float) -> None:
    shown = numbers.drift(Drift(ppm, ppm - below, ppm + above, NS_PER_S))
    value, bound = re.fullmatch(r"([+-][0-9.]+) ± ([0-9.]+) ppm", shown).groups()  # type: ignore[union-attr]
    slack = Fraction(1, 10**5)
    assert Fraction(value) - Fraction(bound) <= Fraction(ppm - below) + slack
    assert Fraction(value) + Fraction(bound) >= Fraction(ppm + above) - slack


@given(st.integers(0, 10**13))
def test_an_upper_limit_is_not_rounded_down(ns: int) -> None:
    words = format_at_latest(ns).split()
    units = {"h": 3600 * NS_PER_S, "min": 60 * NS_PER_S, "s": NS_PER_S, "ms": NS_PER_MS}
    shown = sum(Fraction(value) * units[unit] for value, unit in zip(words[::2], words[1::2], strict=True))
    assert shown >= ns - 10
    value = format_seconds(ns, 2, UP).split()[0]
    assert Fraction(value) * NS_PER_S >= ns - 10


@given(NS, st.integers(0, 10**12), st.integers(0, 10**12))
def test_what_is_left_over_lies_in_what_is_shown(ns: int, below: int, above: int) -> None:
    shown = numbers.leftover(ns, Interval(ns - below, ns + above)).replace(NBSP, "")
    low, high = re.search(r"\(([+-][0-9.]+) to ([+-][0-9.]+) ms\)", shown).groups()  # type: ignore[union-attr]
    assert Fraction(low) * NS_PER_MS <= ns - below + 1
    assert Fraction(high) * NS_PER_MS >= ns + above - 1


@given(st.integers(0, 10**13))
def test_limits_are_rounded_outwards(ns: int) -> None:
    slack = 10
    assert number(format_ms(ns, DOWN)) * NS_PER_MS <= ns + slack
    assert number(format_ms(ns, UP)) * NS_PER_MS >= ns - slack


@given(
    st.lists(st.tuples(st.integers(0, 10**11), NS, st.integers(0, 10**9))),
    st.integers(0, 10**11),
    st.integers(1, 40),
)
def test_a_curve_is_as_wide_as_asked(points: list[tuple[int, int, int]], until: int, width: int) -> None:
    shown = numbers.sparkline([PointRecord(at, low, low + more) for at, low, more in points], until, width)
    assert cell_len(shown) == width


@given(st.floats(0, 3), st.integers(1, 60))
def test_a_bar_is_as_wide_as_asked(share: float, width: int) -> None:
    full, free = numbers.bar(share, width)
    assert len(full) + len(free) == width
    assert bool(full) == (share > 0)


def test_a_table_of_milliseconds_has_hours_as_hours() -> None:
    hours = Limits(7_194_674_000_000, 7_194_600_000_000, 7_194_700_000_000)
    assert format_table_ms(hours.value) == "120 min"
    assert numbers.limits(hours) == "1 h 59 min … 2 h"
    assert format_table_ms(5_006_400_000).replace(NBSP, " ") == "5 006.4"
