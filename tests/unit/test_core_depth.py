"""Cycles of which less is known: no clock but REALTIME, no heartbeats and no samples."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile

import pytest

from lab.core.clock import GuestClock, Stamp
from lab.core.depth import Depth, ProbeLimits, bounds
from lab.core.findings import findings
from lab.core.history import ReadingsTaken
from lab.core.history.encoding import line_of
from lab.core.judge import measure, measure_each
from lab.core.plan import (
    Cell,
    CycleSpec,
    Expectations,
    FreezeMethod,
    HoldPatch,
    Plan,
    Regime,
    ResyncMechanism,
)
from lab.core.timeline import Observation, ProbeFacts, Reading
from lab.core.units import NBSP, NS_PER_MS, NS_PER_S
from lab.core.verdict import Outcome
from lab.record.events import entry_of, envelope
from tests.unit.builders import cycle, guest, run
from tests.unit.consoles import shown
from tests.unit.scenario import Repair, Scenario
from tests.unit.simulation import simulate

EXPECT = Expectations(regime=Regime.RESUMED, in_time_within_ns=20 * NS_PER_S, tolerance_ns=200 * NS_PER_MS)
FACTS = ProbeFacts("", "", kernel_lines=None, depth="agent", steady="")


def real_alone(reading: Reading) -> Reading:
    real = {GuestClock.REAL: reading.t2[GuestClock.REAL]}
    return replace(reading, t2=real, t3=real, packet_stamps=None, channel="agent")


def by_agent(seen: Observation) -> Observation:
    return replace(
        seen,
        readings=[real_alone(reading) for reading in seen.readings],
        beats=(),
        sampler=None,
        claims=(),
        effects=None,
        facts_before=FACTS,
        facts_after=FACTS,
    )


@pytest.mark.parametrize("regime", [Regime.RESUMED, Regime.JUMPED, Regime.MIXED])
@pytest.mark.parametrize("repair", list(Repair))
def test_what_an_agent_cannot_tell_is_not_passed(regime: Regime, repair: Repair) -> None:
    seen = simulate(Scenario(regime=regime, repair=repair))[0]
    result = measure(by_agent(seen), ResyncMechanism.NONE, EXPECT)
    found = {finding.metric: finding.outcome for finding in findings(result, EXPECT)}
    for metric in ("closure", "regime", "boot id", "kernel log"):
        assert found[metric] is Outcome.INCONCLUSIVE, metric
    assert result.pause is not None and result.pause.regime is None
    assert list(result.pause.witnesses) == ["hypervisor"]
    full = measure(seen, ResyncMechanism.NONE, EXPECT)
    assert full.final is not None and result.final is not None and result.final.meets(full.final)
    assert full.pause is not None and result.pause.pause.meets(full.pause.pause)
    sure = {Outcome.PASSED, Outcome.FAILED}
    both = {finding.metric: finding.outcome for finding in findings(full, EXPECT)}
    for metric in found.keys() & both.keys():
        assert found[metric] == both[metric] or not {found[metric], both[metric]} <= sure, metric


def in_whole_seconds(reading: Reading, *, alone: bool) -> Reading:
    """As a shell reads it whose date has no %N. alone: there is no other clock."""

    def read(clocks: dict[GuestClock, int]) -> dict[GuestClock, int]:
        found = {GuestClock.REAL: clocks[GuestClock.REAL] // NS_PER_S * NS_PER_S}
        return found if alone else {GuestClock.RAW: clocks[GuestClock.RAW], **found}

    t2, t3 = read(reading.t2), read(reading.t3)
    return replace(reading, t2=t2, t3=t3, packet_stamps=None, resolution_ns=NS_PER_S)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("regime", [Regime.RESUMED, Regime.JUMPED, Regime.MIXED])
@pytest.mark.parametrize("repair", list(Repair))
def test_a_clock_of_whole_seconds_bounds_nothing_to_less(regime: Regime, repair: Repair, alone: bool) -> None:
    seen = simulate(Scenario(regime=regime, repair=repair))[0]
    steady = "" if alone else GuestClock.MONO
    facts = replace(FACTS, depth="shell", steady=steady)
    readings = [in_whole_seconds(reading, alone=alone) for reading in seen.readings]
    coarse = replace(by_agent(seen), readings=readings, facts_before=facts, facts_after=facts)
    result, full = (measure(each, ResyncMechanism.NONE, EXPECT) for each in (coarse, seen))
    assert full.final is not None and result.final is not None and result.final.meets(full.final)
    assert result.final.half_width_ns >= NS_PER_S - 1
    found, both = (
        {finding.metric: finding.outcome for finding in findings(each, EXPECT)} for each in (result, full)
    )
    for metric in ("closure", "regime", "kernel log"):
        assert found[metric] is Outcome.INCONCLUSIVE, metric
    sure = {Outcome.PASSED, Outcome.FAILED}
    for metric in found.keys() & both.keys():
        assert found[metric] == both[metric] or not {found[metric], both[metric]} <= sure, metric


def test_several_cycles_without_a_steady_clock_have_no_common_rate() -> None:
    seen = by_agent(simulate(Scenario())[0])
    spec = CycleSpec(FreezeMethod.SUSPEND, HoldPatch(NS_PER_S))
    plan = Plan("a", "", "", (), ResyncMechanism.NONE, spec, EXPECT)
    assert isinstance(plan.parts[0], Cell)
    results = list(measure_each([seen, replace(seen, cycle=1)], plan))
    assert [result.pause is not None for result in results] == [True, True]


def test_a_clock_that_was_not_read_is_null_in_the_history() -> None:
    reading = real_alone(simulate(Scenario())[0].readings[0])
    line = line_of(ReadingsTaken("a", 0, (reading,)), 1, Stamp(1, 2))
    assert line.count("null") == 6
    given = envelope(line)
    assert given is not None
    event = entry_of(line, given).event
    assert isinstance(event, ReadingsTaken)
    assert list(event.readings) == [reading]


LIMITS = [
    (
        Depth.AGENT,
        ProbeLimits(1000, ""),
        "the guest's REALTIME alone is read, by guest-get-time; there is no",
    ),
    (
        Depth.AGENT,
        ProbeLimits(17 * NS_PER_MS, ""),
        "by guest-get-time, to 17 ms (not seen on Windows); there",
    ),
    (Depth.SHELL, ProbeLimits(1000, GuestClock.MONO, 100 * NS_PER_MS), "clocks, to some milliseconds, and"),
    (
        Depth.SHELL,
        ProbeLimits(10 * NS_PER_MS, GuestClock.BOOT, 100 * NS_PER_MS),
        "to 10 ms, and samples them",
    ),
    (Depth.SHELL, ProbeLimits(1, GuestClock.MONO, NS_PER_S), "every 1 s: no gap below 3 s is seen"),
    (Depth.SHELL, ProbeLimits(NS_PER_S, GuestClock.MONO, 100 * NS_PER_MS), "no lag to less than 2 s; it"),
    (Depth.SHELL, ProbeLimits(NS_PER_S, ""), "in whole seconds, as its date has no %N, so that no offset"),
]


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize(("depth", "limits", "words"), LIMITS)
def test_the_report_says_what_a_depth_can_bound(
    depth: Depth, limits: ProbeLimits, words: str, width: int
) -> None:
    boot = {
        "probe": depth,
        "probe_resolution_ns": limits.resolution_ns,
        "probe_steady": limits.steady,
        "probe_period_ns": limits.period_ns,
    }
    guests = [replace(guest(name, cycle()), boot=boot) for name in ("db", "win")]
    lines = shown(run(*guests, replace(guest("a", cycle()), boot={"probe": "python"})), width).splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("probe "))
    part = [lines[begin]]
    part += takewhile(lambda line: line.startswith(" " * 14), lines[begin + 1 :])
    assert max(map(len, part)) <= width
    text = " ".join(" ".join(part).replace(NBSP, " ").split())
    assert text == f"probe {depth} (db, win): {bounds(depth, limits)}".replace(NBSP, " ")
    assert words in text


def test_a_record_without_limits_is_as_ever() -> None:
    for depth, words in ((Depth.SHELL, "no gap below 0.3 s"), (Depth.AGENT, "REALTIME alone")):
        text = shown(run(replace(guest("db", cycle()), boot={"probe": depth.value})), 1000)
        assert words in text.replace(NBSP, " ").replace("300 ms", "0.3 s")
