"""A counter that is too narrow for a pause, against a kernel that reads it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lab.core.clock import Interval
from lab.core.clocksource import lost, stands, why
from lab.core.mechanism import ResyncMechanism
from lab.core.timesync.rules import forecast
from lab.core.timesync.setup import Setup
from lab.core.units import NS_PER_MS, NS_PER_S

HZ = 3_579_545


def kernel_loses(looked_ns: int, pause_ns: int) -> int:
    """What a kernel loses that looked at a 24-bit counter `looked_ns` before a pause, and looks again right
    after it."""
    began, ended = looked_ns * HZ // NS_PER_S, (2 * looked_ns + pause_ns) * HZ // NS_PER_S
    while (seen := (ended - began) & 0xFFFFFF) > 0x7FFFFF:
        ended += 1000  # taken for a step backward, and for nothing: the clock stands still
    return (ended - began - seen) * NS_PER_S // HZ


@given(st.integers(0, 100 * NS_PER_S), st.integers(0, 90 * NS_PER_MS))
def test_what_a_kernel_loses_is_foreseen(pause_ns: int, looked_ns: int) -> None:
    seen = kernel_loses(looked_ns, pause_ns)
    said = lost("acpi_pm", Interval(pause_ns, pause_ns)).widened(20_000)  # ticks of 280 ns, a turn's rounding
    assert seen in said


def test_as_seen_on_a_guest() -> None:
    """25 s of SIGSTOP: the guest saw 1.6 s of them, and its clocks were 23.435 s behind."""
    assert 23_435 * NS_PER_MS in lost("acpi_pm", Interval(25 * NS_PER_S, 25 * NS_PER_S)).widened(NS_PER_MS)
    # 3 s of it: more than half of a turn, so the clock stood still until the turn was over.
    assert 4_687 * NS_PER_MS in lost("acpi_pm", Interval(3 * NS_PER_S, 3 * NS_PER_S)).widened(NS_PER_MS)
    assert stands("acpi_pm", Interval(3 * NS_PER_S, 3 * NS_PER_S))
    assert not stands("acpi_pm", Interval(25 * NS_PER_S, 25 * NS_PER_S))
    assert why("acpi_pm") == "acpi_pm begins anew every 4.69 s"


def test_other_counters_are_wide_enough() -> None:
    for name in ("tsc", "kvm-clock", "hpet", ""):
        assert lost(name, Interval(0, 1000 * NS_PER_S)) == Interval(0, 0)


def test_a_forecast_knows_of_it() -> None:
    pause = Interval(20 * NS_PER_S, 20 * NS_PER_S)
    setup = Setup(ResyncMechanism.NONE)
    said = forecast(setup, pause, False, None, lost("acpi_pm", pause))
    assert said.repaired is False
    assert said.residual is not None and said.residual.high_ns < -18 * NS_PER_S
    assert forecast(setup, pause, False, None, lost("tsc", pause)).repaired is True
