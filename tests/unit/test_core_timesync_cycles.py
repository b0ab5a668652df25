"""Forecasts beside measured cycles: what agrees with them, and whether later pauses are repaired as well."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lab.core.clock import Interval
from lab.core.judge import measure
from lab.core.plan import Expectations, Regime, ResyncMechanism
from lab.core.predictions import compared
from lab.core.repeatability import METRIC, again
from lab.core.result import CycleResult
from lab.core.timeline import CpuWait
from lab.core.timesync.compare import AS_PREDICTED
from lab.core.verdict import Outcome
from tests.unit.simulation import MS, Repair, S, Scenario, simulate

EXPECT = Expectations(in_time_within_ns=4 * S)


def cycle(
    number: int, repair: Repair = Repair.AGENT, after_ns: int = 20 * MS, **changes: object
) -> CycleResult:
    s = Scenario(seed=number, before_ns=S, pause_ns=2 * S, watch_ns=5 * S, rtt_ns=2 * MS, repair=repair)
    s = replace(s, **{"repair_after_ns": after_ns, "residual_ns": 0, **changes})  # type: ignore[arg-type]
    obs = simulate(s)[0]
    return measure(replace(obs, cycle=number), ResyncMechanism.AGENT, EXPECT)


@pytest.mark.parametrize(
    ("after_ms", "left_ms", "agrees"),
    [
        (60, -9, True),
        (400, -388, True),  # it came late, and by no more than that
        (1900, -1888, True),
        (60, -388, False),  # it came soon, and was wrong
        (400, -600, False),
        (400, 50, False),
    ],
)
def test_the_hosts_word_is_no_older_than_the_resume(after_ms: int, left_ms: int, agrees: bool) -> None:
    late = cycle(1, after_ns=after_ms * MS, residual_ns=left_ms * MS)
    assert compared(late) == (agrees, AS_PREDICTED) if agrees else compared(late)[0] is False


# -- over a run -------------------------------------------------------------------------------------


def test_a_resync_that_is_as_good_again() -> None:
    control = cycle(0, regime=Regime.RUNNING)
    (finding,) = again([control, cycle(1), cycle(2, after_ns=900 * MS), cycle(3)], EXPECT)
    assert (finding.metric, finding.outcome, finding.why) == (METRIC, Outcome.PASSED, "")
    assert (finding.measured, finding.cycle) == ("2 of 2 later pauses", -1)


def test_a_resync_that_works_only_once() -> None:
    (finding,) = again([cycle(1), cycle(2), cycle(3, Repair.LIAR)], EXPECT)
    assert (finding.outcome, finding.measured) == (Outcome.FAILED, "1 of 2 later pauses")
    assert finding.why.startswith("not in time in cycle 3")


def test_a_resync_that_grows_slow() -> None:
    late = cycle(2, after_ns=2 * S)
    assert late.forecast is not None
    hasty = replace(late, forecast=replace(late.forecast, within=Interval(0, 100 * MS)))
    assert again([cycle(1), late], EXPECT)[0].outcome is Outcome.PASSED  # its rules allow five seconds
    assert again([cycle(1), hasty], EXPECT)[0].outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("late", "waited_ms", "outcome"),
    [
        ({"after_ns": 2 * S}, 0, Outcome.FAILED),
        ({"after_ns": 2 * S}, 400, Outcome.FAILED),  # not by as much
        ({"after_ns": 2 * S}, 1500, Outcome.INCONCLUSIVE),
        ({"after_ns": 400 * MS, "residual_ns": -180 * MS}, 0, Outcome.FAILED),  # never in time
        ({"after_ns": 400 * MS, "residual_ns": -180 * MS}, 300, Outcome.INCONCLUSIVE),
        ({"repair": Repair.LIAR}, 300, Outcome.FAILED),
    ],
)
def test_what_a_busy_host_delayed_is_no_worse_than_the_first(
    late: dict[str, Any], waited_ms: int, outcome: Outcome
) -> None:
    """As in the cycle's own findings: an agent that waited for a CPU sets a time that is late by the wait."""
    later = cycle(2, **late)
    obs, resume = later.observation, later.observation.resume
    assert resume is not None and later.forecast is not None
    waits = ((resume.called.raw_ns - S, 0), (resume.returned.raw_ns + 10 * S, waited_ms * MS))
    busy = replace(obs, cpu_waits=tuple(CpuWait(at, 7, waited) for at, waited in waits))
    hasty = replace(later.forecast, within=Interval(0, 100 * MS))
    (finding,) = again([cycle(1), replace(later, observation=busy, forecast=hasty)], EXPECT)
    assert finding.outcome is outcome, finding
    assert ("the busy host delayed" in finding.why) is (outcome is Outcome.INCONCLUSIVE)


def test_cycles_that_agree_or_expect_nothing_have_no_finding_of_repeatability() -> None:
    assert again([cycle(1)], EXPECT) == []
    assert again([cycle(1), cycle(2)], Expectations()) == []
    assert again([cycle(1, Repair.LIAR), cycle(2)], EXPECT) == []
    unseen = replace(cycle(2), resync=None)
    assert again([cycle(1), unseen], EXPECT)[0].outcome is Outcome.INCONCLUSIVE
