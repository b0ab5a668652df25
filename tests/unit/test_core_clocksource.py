"""A counter that is too narrow for a pause, against a kernel that reads it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.clock import Interval
from lab.core.clocksource import READ_AGAIN, chosen, limit_ns, lost, option_findings, ran_on, stands, why
from lab.core.findings import findings
from lab.core.judge import measure
from lab.core.mechanism import ResyncMechanism
from lab.core.method import FreezeMethod, Regime
from lab.core.plan import Expectations, GuestSpec
from lab.core.predictions import prediction_checks
from lab.core.result import CycleResult
from lab.core.timeline import MemoryProof, ProbeFacts
from lab.core.timesync.rules import forecast
from lab.core.timesync_setup import Setup
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.verdict import Outcome
from tests.unit.journalled import cycle
from tests.unit.simulation import MS, Repair, Scenario, simulate

COUNTERS = {"acpi_pm": (3_579_545, 0xFFFFFF), "hpet": (100_000_000, 0xFFFFFFFF)}
KERNELS = {"6.1.0-18-amd64": 4, "6.12.43+deb13-amd64": 7, "7.3.4-1-cloud-amd64": 7}
"""How many eighths of a turn they believe."""


def kernel_loses(counter: str, eighths: int, looked_ns: int, pause_ns: int) -> int:
    """What a kernel loses that looked at a counter `looked_ns` before a pause, and looks again right after
    it."""
    hz, mask = COUNTERS[counter]
    began, ended = looked_ns * hz // NS_PER_S, (2 * looked_ns + pause_ns) * hz // NS_PER_S
    seen = (ended - began) & mask
    if seen > mask * eighths // 8:
        ended += mask + 1 - seen  # taken for a step backward, and for nothing: the clock stands still
        seen = 0
    return (ended - began - seen) * NS_PER_S // hz


@given(
    st.sampled_from(sorted(COUNTERS)), st.sampled_from(sorted(KERNELS)),
    st.integers(0, 200 * NS_PER_S), st.integers(0, 90 * NS_PER_MS), st.booleans(),
)  # fmt: skip
def test_what_a_kernel_loses_is_foreseen(
    counter: str, kernel: str, pause_ns: int, looked_ns: int, known: bool
) -> None:
    seen = kernel_loses(counter, KERNELS[kernel], looked_ns, pause_ns)
    pause = Interval(pause_ns, pause_ns)
    said = lost(counter, pause, kernel if known else "").widened(20_000)  # ticks, and a turn's rounding
    assert seen in said


@given(st.sampled_from(sorted(COUNTERS)), st.sampled_from(sorted(KERNELS)), st.integers(0, 90 * NS_PER_MS))
def test_nothing_is_lost_below_the_limit(counter: str, kernel: str, looked_ns: int) -> None:
    limit = limit_ns(counter, kernel)
    assert limit is not None
    assert kernel_loses(counter, KERNELS[kernel], looked_ns, limit - NS_PER_MS) < 20_000
    assert not stands(counter, Interval(0, limit - NS_PER_MS), kernel)


def test_as_seen_on_guests() -> None:
    """25 s of SIGSTOP: the guest saw 1.6 s of them, and its clocks were 23.435 s behind."""
    old, new = "6.1.0-18-amd64", "6.12.43+deb13-amd64"
    seconds = {n: Interval(n * NS_PER_S, n * NS_PER_S) for n in (3, 6, 25, 30)}
    assert 23_435 * NS_PER_MS in lost("acpi_pm", seconds[25], old).widened(NS_PER_MS)
    # 3 s: more than half of a turn, so Linux 6.1 stood still until the turn was over; 6.12 lost nothing.
    assert 4_687 * NS_PER_MS in lost("acpi_pm", seconds[3], old).widened(NS_PER_MS)
    assert stands("acpi_pm", seconds[3], old)
    assert lost("acpi_pm", seconds[3], new) == Interval(0, 0)
    assert not stands("acpi_pm", seconds[3], new)
    assert not stands("acpi_pm", seconds[25], old)
    assert why("acpi_pm") == "acpi_pm wraps every 4.69 s"
    # hpet: the same with 42.95 s.
    assert lost("hpet", seconds[6], old) == Interval(0, 0)
    assert 42_950 * NS_PER_MS in lost("hpet", seconds[30], old).widened(NS_PER_MS)
    assert lost("hpet", seconds[30], new) == Interval(0, 0)
    assert why("hpet") == "hpet wraps every 42.95 s"


def test_other_counters_are_wide_enough() -> None:
    for name in ("tsc", "kvm-clock", ""):
        assert lost(name, Interval(0, 1000 * NS_PER_S)) == Interval(0, 0)
        assert limit_ns(name) is None


def test_the_last_clocksource_asked_for_counts() -> None:
    assert chosen(("clocksource=tsc", "quiet", "clocksource=hpet")) == "hpet"
    assert chosen(("tsc=reliable",)) == ""


def test_a_forecast_knows_of_it() -> None:
    pause = Interval(20 * NS_PER_S, 20 * NS_PER_S)
    setup = Setup(ResyncMechanism.NONE)
    said = forecast(setup, pause, False, None, lost("acpi_pm", pause))
    assert said.repaired is False
    assert said.residual is not None and said.residual.high_ns < -18 * NS_PER_S
    assert forecast(setup, pause, False, None, lost("tsc", pause)).repaired is True


# -- a kernel option that did not take -------------------------------------------------------------------


def option(asked: tuple[str, ...], has: str) -> list[tuple[Outcome, str]]:
    obs = replace(simulate(Scenario(watch_ns=MS, before_ns=MS))[0], facts_before=ProbeFacts("boot", has))
    found = option_findings([GuestSpec("web-0", kernel_options=asked)], [obs], "")
    return [(one.outcome, one.why) for one in found]


def test_a_clocksource_that_the_guest_does_not_have_is_a_finding() -> None:
    """kvm-clock under TCG: the kernel falls to acpi_pm without a word."""
    assert option(("quiet", "clocksource=kvm-clock"), "acpi_pm") == [
        (Outcome.INCONCLUSIVE, "clocksource=kvm-clock had no effect: the guest uses acpi_pm")
    ]
    assert option(("clocksource=tsc",), "tsc") == [(Outcome.PASSED, "")]
    assert option(("tsc=reliable",), "acpi_pm") == []


# -- a stop whose end the clocks did not see -------------------------------------------------------------


def test_clocks_that_were_set_while_they_stood_do_not_close_and_it_says_why() -> None:
    """As seen on a guest with acpi_pm: 3 s of SIGSTOP, then a step at once. The clocks stood still for
    3.010 s, 10 ms before the stop among them, for then the kernel had last read its counter."""
    obs = simulate(Scenario(pause_ns=3 * NS_PER_S, hidden_ns=10 * MS))[0]
    for source, said in (("acpi_pm", True), ("tsc", False)):
        facts, expect = ProbeFacts("boot", source, kernel="6.1.0-57-amd64"), Expectations()
        result = measure(replace(obs, facts_before=facts), ResyncMechanism.AGENT, expect)
        found = next(one for one in findings(result, expect) if one.metric == "closure")
        assert found.outcome is Outcome.INCONCLUSIVE
        assert found.why.startswith("unaccounted: -")
        assert ("acpi_pm wraps every 4.69 s" in found.why) is said


def exchanged(source: str, standing: int, **changes: Any) -> CycleResult:
    """An exchange in place whose clocks stood still for this share of its 2 s, in percent. Of these, the step
    "state out" takes 0.8 s. Nobody repairs the clock."""
    more: dict[str, Any] = {"regime": Regime.MIXED, "standing": standing, "repair": Repair.NONE}
    obs = cycle(FreezeMethod.IN_PLACE, 0, 2 * NS_PER_S, **more)
    assert obs.facts_before is not None
    facts = replace(obs.facts_before, clocksource=source)
    return measure(replace(obs, facts_before=facts, **changes), ResyncMechanism.NONE, Expectations())


def agreed(result: CycleResult) -> dict[str, bool | None]:
    return {one.claim: one.agrees for one in prediction_checks(result)}


def test_kvm_clock_runs_on_until_an_exchange_has_written_the_state() -> None:
    result = exchanged(READ_AGAIN, 97)
    assert result.pause is not None
    assert (result.pause.regime, result.pause.closes, result.pause.disagreeing) == (Regime.RESUMED, True, ())
    assert result.pause.pause.low_ns >= 2 * NS_PER_S  # for which the guest was held
    assert set(agreed(result).values()) == {True}, prediction_checks(result)

    longer = exchanged(READ_AGAIN, 70)
    assert longer.pause is not None and longer.pause.regime is Regime.MIXED
    assert agreed(longer) == {**agreed(result), "regime": None}


PROOF = MemoryProof(4096, 1, 1, "a", "a", 0, (), 0)


@pytest.mark.parametrize(
    "changes",
    [{"source": "tsc"}, {"proof": PROOF}, {"steps": ()}, {"method": FreezeMethod.SUSPEND}],
    ids=["another clock", "stopped before", "no time known", "another method"],
)
def test_nothing_else_lets_it_run_on(changes: dict[str, Any]) -> None:
    result = exchanged(**{"source": READ_AGAIN, "standing": 97, **changes})
    assert ran_on(result.observation) == Interval(0, 0)
    regime = result.pause.regime if result.pause is not None else None
    assert regime is not Regime.RESUMED
    assert False in agreed(result).values()
