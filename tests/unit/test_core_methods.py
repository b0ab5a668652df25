"""Methods other than a plain suspend, judged: reboots, no freeze at all, freezes called off, memory proofs,
cut connections, and what each method predicts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.core.clock import Stamp
from lab.core.clock_disturbance import cpu_waited_ns
from lab.core.findings import findings
from lab.core.judge import measure
from lab.core.method import FreezeMethod, Regime, WallClock
from lab.core.patch import OUT_OF_TIME
from lab.core.plan import CycleSpec, Expectations, HoldPatch, ResyncMechanism
from lab.core.predictions import prediction_checks
from lab.core.result import CycleResult
from lab.core.timeline import Call, CpuWait, MemoryProof, Observation, Rescue
from lab.core.timesync.compare import CLAIMS
from lab.core.verdict import Outcome
from lab.hypervisor.freeze import MAKERS
from tests.unit.journalled import EXPECT, PROOF, cycle, rebooted
from tests.unit.simulation import MS, Repair, S


def measured(obs: Observation, *, prove: bool = False, planned: FreezeMethod | None = None) -> CycleResult:
    spec = CycleSpec(planned or obs.method, HoldPatch(0), prove_memory=prove)
    return measure(obs, ResyncMechanism.AGENT, EXPECT, None, spec)


def outcomes_of(result: CycleResult, expect: Expectations = EXPECT) -> dict[str, Outcome]:
    return {f.metric: f.outcome for f in findings(result, expect)}


def claims(result: CycleResult) -> dict[str, bool | None]:
    """Of the method; its resync's are in test_core_timesync.py."""
    return {claim.claim: claim.agrees for claim in prediction_checks(result) if claim.claim not in CLAIMS}


def test_a_reboot_has_an_outage_and_another_boot_and_no_pause() -> None:
    result = measured(rebooted(0))
    outcomes = outcomes_of(result)
    assert result.pause is None
    assert outcomes["boot id"] is outcomes["outage"] is outcomes["patch"] is Outcome.PASSED
    assert not outcomes.keys() & {"closure", "regime", "pause", "budget", "vcpus"}
    assert claims(result) == {"wall clock": True}


def test_a_reboot_that_did_not_happen_fails() -> None:
    obs = rebooted(0)
    same = replace(obs, facts_after=obs.facts_before)
    assert outcomes_of(measured(same))["boot id"] is Outcome.FAILED
    assert claims(measured(same)) == {"wall clock": False}
    assert obs.stop is not None
    dead = replace(obs, readings=tuple(r for r in obs.readings if r.t4.raw_ns < obs.stop.called.raw_ns))
    assert outcomes_of(measured(dead))["outage"] is Outcome.INCONCLUSIVE


def test_a_cycle_without_a_freeze_that_was_meant_so_is_judged_whole() -> None:
    obs = cycle(FreezeMethod.NONE, 0, 0)
    meant, control = measured(obs), measured(obs, planned=FreezeMethod.SUSPEND)
    assert (meant.control, control.control) == (False, True)
    assert outcomes_of(meant)["in time"] is outcomes_of(meant)["final offset"] is Outcome.PASSED
    assert outcomes_of(meant)["regime"] is Outcome.PASSED
    assert not outcomes_of(control).keys() & {"in time", "final offset", "drift"}
    assert "pause" not in outcomes_of(meant, replace(EXPECT, pause_at_least_ns=S))


def test_a_freeze_that_was_called_off_fails_and_the_rest_is_measured() -> None:
    obs = cycle(FreezeMethod.IN_PLACE, 0, 60 * MS)
    assert outcomes_of(measured(obs))["freeze"] is Outcome.PASSED
    off = replace(obs, called_off="it refused", patch_ok=False, patch_why="not applied: it refused")
    outcomes = outcomes_of(measured(off))
    assert outcomes["freeze"] is outcomes["patch"] is Outcome.FAILED
    assert outcomes["closure"] is outcomes["boot id"] is Outcome.PASSED
    assert any("it refused" in f.why for f in findings(measured(off), EXPECT) if f.metric == "freeze")
    # Not the guest's failure, nor the method's, when it was the dead-man who put it back.
    outcomes = outcomes_of(
        measured(replace(off, rescues=(Rescue("resumed", "the controller was silent", obs.resume),)))
    )
    assert outcomes["freeze"] is outcomes["patch"] is outcomes["observation"] is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("off_ms", "held_up_ms", "mechanism", "outcome"),
    [
        (-130, 5, ResyncMechanism.AGENT, Outcome.FAILED),  # a calm host: it is the agent's
        (-130, 135, ResyncMechanism.AGENT, Outcome.INCONCLUSIVE),
        (-400, 135, ResyncMechanism.AGENT, Outcome.FAILED),  # more than the host explains
        (-130, 135, ResyncMechanism.NONE, Outcome.FAILED),  # nothing was held up that was to repair it
        (-4, 135, ResyncMechanism.AGENT, Outcome.PASSED),
    ],
)
def test_what_a_busy_host_explains_is_not_the_guests_failure(
    off_ms: int, held_up_ms: int, mechanism: ResyncMechanism, outcome: Outcome
) -> None:
    expect = replace(EXPECT, tolerance_ns=100 * MS, final_offset_ns=100 * MS)
    obs = cycle(FreezeMethod.SUSPEND, 0, 3 * S, residual_ns=off_ms * MS)
    assert obs.resume is not None
    since = obs.resume.returned.raw_ns + 300 * MS
    number = next(n for n, r in enumerate(obs.readings) if r.t1.raw_ns > since)
    slow = obs.readings[number]
    later = Stamp(slow.t4.raw_ns + held_up_ms * MS, slow.t4.real_ns + held_up_ms * MS)
    readings = (*obs.readings[:number], replace(slow, t4=later), *obs.readings[number + 1 :])
    spec = CycleSpec(obs.method, HoldPatch(0))
    outcomes = outcomes_of(measure(replace(obs, readings=readings), mechanism, expect, None, spec), expect)
    assert outcomes["final offset"] is outcomes["in time"] is outcome


def waits(*looks: tuple[int, int, int]) -> tuple[CpuWait, ...]:
    return tuple(CpuWait(*look) for look in looks)


@pytest.mark.parametrize(
    ("waited_ms", "within_ms", "outcome"),
    [
        (5, 300, Outcome.FAILED),
        (250, 300, Outcome.INCONCLUSIVE),
        (250, 3000, Outcome.FAILED),  # it waited when all had been done
    ],
)
def test_a_correction_that_waited_for_a_cpu_is_not_the_guests_failure(
    waited_ms: int, within_ms: int, outcome: Outcome
) -> None:
    expect = replace(EXPECT, tolerance_ns=100 * MS, final_offset_ns=100 * MS)
    obs = cycle(FreezeMethod.SUSPEND, 0, 3 * S, residual_ns=-130 * MS)
    assert obs.stop is not None
    assert obs.resume is not None
    back = obs.resume.returned.raw_ns
    seen = replace(
        obs,
        resync_finished_raw_ns=back + 400 * MS,
        cpu_waits=waits(
            (obs.stop.called.raw_ns - MS, 7, 4 * S),
            (back + (within_ms - 200) * MS, 7, 4 * S),
            (back + (within_ms + 200) * MS, 7, 4 * S + waited_ms * MS),
        ),
    )
    result = measured(seen)
    outcomes = outcomes_of(measure(seen, ResyncMechanism.AGENT, expect, None, result.spec), expect)
    assert outcomes["final offset"] is outcome


@pytest.mark.parametrize(
    ("off_ms", "trip_ms", "outcome"),
    [
        (-400, 5, Outcome.INCONCLUSIVE),
        (400, 5, Outcome.FAILED),  # no delay of a correction puts a clock that was behind ahead
        (130, 135, Outcome.INCONCLUSIVE),  # a clock that is set by a slow exchange may be ahead
    ],
)
def test_a_late_correction_leaves_the_clock_where_the_pause_put_it(
    off_ms: int, trip_ms: int, outcome: Outcome
) -> None:
    expect = replace(EXPECT, tolerance_ns=100 * MS, final_offset_ns=100 * MS)
    obs = cycle(FreezeMethod.SUSPEND, 0, 3 * S, residual_ns=off_ms * MS)
    assert obs.stop is not None
    assert obs.resume is not None
    slow, last = obs.readings[-2], obs.readings[-1]
    later = Stamp(slow.t4.raw_ns + trip_ms * MS, slow.t4.real_ns + trip_ms * MS)
    seen = replace(
        obs,
        readings=(*obs.readings[:-2], replace(slow, t4=later), last),
        cpu_waits=waits((obs.stop.called.raw_ns - 1, 7, 0), (last.t4.raw_ns, 7, S)),
    )
    result = measured(seen)
    outcomes = outcomes_of(measure(seen, ResyncMechanism.AGENT, expect, None, result.spec), expect)
    assert outcomes["final offset"] is outcomes["in time"] is outcome


def test_how_long_it_waited_is_counted_through_another_process() -> None:
    obs = replace(
        cycle(FreezeMethod.SAVE_RESTORE, 0, S),
        cpu_waits=waits((10, 1, 500), (20, 1, 700), (30, 2, 40), (40, 2, 90), (50, 2, 1000)),
    )
    assert cpu_waited_ns(obs, 10, 40) == 200 + 40 + 50
    assert cpu_waited_ns(obs, 15, 35) == 200 + 40 + 50
    assert cpu_waited_ns(obs, 30, 100) == 50 + 910
    # Threads that have ended take their waits with them.
    shrunk = replace(obs, cpu_waits=waits((10, 1, 500), (20, 1, 300), (30, 1, 350)))
    assert cpu_waited_ns(shrunk, 10, 30) == 50
    assert cpu_waited_ns(replace(obs, cpu_waits=()), 10, 40) == 0


UNSTABLE = "clocksource: timekeeping watchdog on CPU0: acpi_pm read-back delay of 3240635ns, attempt 2, marking unstable"  # noqa: E501
LOCKUP = "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [swapper/0:0]"
SKEWED = "clocksource: timekeeping watchdog on CPU0: Marking clocksource 'tsc' as unstable because the skew is too large:"  # noqa: E501


def kernel_log_of(method: FreezeMethod, lines: tuple[str, ...], waited_ms: int) -> Outcome:
    """The verdict about a guest that wrote these lines and has another clocksource, on a host that kept its
    CPUs from it for so long."""
    obs = cycle(method, 0, 3 * S)
    assert obs.stop is not None
    assert obs.facts_after is not None
    since = obs.stop.called.raw_ns
    seen = replace(
        obs,
        facts_after=replace(obs.facts_after, kernel_lines=lines, clocksource="another"),
        cpu_waits=waits((since, 7, S), (since + 30 * S, 7, S + waited_ms * MS)),
    )
    return outcomes_of(measured(seen))["kernel log"]


@pytest.mark.parametrize(
    ("lines", "waited_ms", "outcome"),
    [
        ((UNSTABLE,), 9000, Outcome.INCONCLUSIVE),
        ((UNSTABLE,), 20, Outcome.FAILED),  # the host had time for it
        ((LOCKUP,), 9000, Outcome.FAILED),  # it takes more than that
        ((LOCKUP,), 25_000, Outcome.INCONCLUSIVE),
        ((UNSTABLE, "Oops: 0002 [#1] PREEMPT SMP PTI"), 9000, Outcome.FAILED),
        ((SKEWED,), 25_000, Outcome.FAILED),
        ((), 25_000, Outcome.FAILED),  # only the clocksource has changed, and nobody says why
    ],
)
def test_what_a_busy_host_makes_a_kernel_write_is_not_the_freezes_doing(
    lines: tuple[str, ...], waited_ms: int, outcome: Outcome
) -> None:
    assert kernel_log_of(FreezeMethod.SUSPEND, lines, waited_ms) is outcome


@pytest.mark.parametrize(
    ("waited_ms", "outcome"), [(9000, Outcome.INCONCLUSIVE), (20, Outcome.FAILED), (0, Outcome.FAILED)]
)
def test_a_new_boot_on_a_busy_host_may_choose_another_clocksource(waited_ms: int, outcome: Outcome) -> None:
    assert kernel_log_of(FreezeMethod.REBOOT, (), waited_ms) is outcome


@pytest.mark.parametrize(
    ("took_ms", "waited_ms", "outcome"),
    [
        (20_000, 12_000, Outcome.INCONCLUSIVE),
        (20_000, 4_000, Outcome.FAILED),  # it had a CPU, and did not stop
        (400, 390, Outcome.FAILED),
    ],
)
def test_a_guest_that_had_no_cpu_to_stop_with_has_not_failed(
    took_ms: int, waited_ms: int, outcome: Outcome
) -> None:
    obs = cycle(FreezeMethod.GUEST_SLEEP, 0, 30 * S)
    assert obs.stop is not None
    called = obs.stop.called
    slow = Call(called, Stamp(called.raw_ns + took_ms * MS, called.real_ns + took_ms * MS))
    looks = waits((called.raw_ns - 1, 7, 0), (called.raw_ns + 31 * S, 7, waited_ms * MS))
    seen = replace(obs, stop=slow, cpu_waits=looks)
    off = replace(seen, called_off="not asleep", patch_ok=False, patch_why="not applied: not asleep")
    assert outcomes_of(measured(off))["freeze"] is outcomes_of(measured(off))["patch"] is outcome
    late = replace(seen, patch_ok=False, patch_why=f"held 0.2 s of 5 s, then {OUT_OF_TIME}")
    assert outcomes_of(measured(late))["patch"] is outcome
    broken = replace(seen, patch_ok=False, patch_why="exit status 3")
    assert outcomes_of(measured(broken))["patch"] is Outcome.FAILED


@pytest.mark.parametrize(
    ("proof", "outcome"),
    [
        (PROOF, Outcome.PASSED),
        (replace(PROOF, differ=3, differing=(7, 8, 9), after="00" * 32), Outcome.FAILED),
        (replace(PROOF, after="00" * 32), Outcome.FAILED),
        (replace(PROOF, differ=1), Outcome.FAILED),
        (replace(PROOF, pages=0), Outcome.INCONCLUSIVE),
        (None, Outcome.INCONCLUSIVE),
    ],
)
def test_memory_is_the_same_page_by_page(proof: MemoryProof | None, outcome: Outcome) -> None:
    obs = replace(cycle(FreezeMethod.IN_PLACE, 0, 200 * MS), proof=proof)
    assert outcomes_of(measured(obs, prove=True))["memory"] is outcome


def test_memory_that_nobody_asked_for_is_not_missed() -> None:
    assert "memory" not in outcomes_of(measured(cycle(FreezeMethod.IN_PLACE, 0, 20 * MS)))


def test_what_the_proof_cost_is_kept_out_of_the_pause_that_is_judged() -> None:
    obs = cycle(FreezeMethod.IN_PLACE, 0, 190 * MS)
    plain, proven = measured(obs), measured(replace(obs, proof=PROOF))
    assert plain.reported is not None
    assert proven.reported is not None
    assert proven.reported == plain.reported.shifted(-PROOF.cost_ns)
    assert proven.pause == plain.pause  # felt, and closed, as it was
    limit = replace(EXPECT, pause_at_most_ns=60 * MS)
    assert outcomes_of(plain, limit)["pause"] is Outcome.FAILED
    assert outcomes_of(proven, limit)["pause"] is Outcome.PASSED


@pytest.mark.parametrize("amnesia", [False, True])
def test_cut_connections_do_not_make_a_cycle_inconclusive(amnesia: bool) -> None:
    obs = cycle(
        FreezeMethod.IN_PLACE, 0, 25 * MS, blind_ns=1200 * MS, amnesia=amnesia, before_ns=2 * S,
        repair=Repair.NONE,
    )  # fmt: skip
    result = measured(obs)
    outcomes = outcomes_of(result, Expectations(regime=Regime.RESUMED))
    assert outcomes["closure"] is outcomes["regime"] is Outcome.PASSED
    assert Outcome.FAILED not in outcomes.values()
    assert Outcome.INCONCLUSIVE not in outcomes.values()
    again = outcomes_of(measured(replace(obs, cut=False)), Expectations())
    assert (again["closure"] is Outcome.INCONCLUSIVE) == amnesia  # nobody cut it: the sampler is missed


def test_a_new_process_takes_its_time_before_the_guest_gets_going() -> None:
    """The guest's first instructions come 150 ms after an exchange: late, not lost."""
    for method, closes in ((FreezeMethod.IN_PLACE, True), (FreezeMethod.SUSPEND, False)):
        result = measured(cycle(method, 0, 60 * MS, stall_ns=150 * MS))
        assert result.pause is not None
        assert result.pause.closes is closes
    lost = measured(cycle(FreezeMethod.IN_PLACE, 0, 60 * MS, stall_ns=2 * S))
    assert lost.pause is not None
    assert not lost.pause.closes


@pytest.mark.parametrize(
    "method",
    [
        FreezeMethod.SUSPEND,
        FreezeMethod.SIGSTOP,
        FreezeMethod.HOST_SLEEP,
        FreezeMethod.SAVE_RESTORE,
        FreezeMethod.IN_PLACE,
    ],
)
def test_methods_do_as_they_predict(method: FreezeMethod) -> None:
    assert claims(measured(cycle(method, 0, 3 * S))) == {
        "regime": True, "wall clock": True, "boottime": True,
    }  # fmt: skip


def test_a_guest_that_slept_sets_its_own_clock() -> None:
    """In the very hole of the pause, to its RTC's whole seconds: the method's doing, not a repair."""
    asleep = cycle(FreezeMethod.GUEST_SLEEP, 0, 5 * S, repair_after_ns=0, residual_ns=-400 * MS)
    result = measured(asleep)
    assert claims(result) == {"regime": True, "wall clock": True, "boottime": True}
    assert result.problems == ()
    assert result.at_resume is not None
    assert -401 * MS < result.at_resume.mid_ns < -399 * MS
    still_wrong = cycle(FreezeMethod.GUEST_SLEEP, 0, 5 * S, repair=Repair.NONE)
    assert claims(measured(still_wrong))["wall clock"] is False


def test_a_method_that_did_otherwise_is_a_surprise() -> None:
    stood = replace(cycle(FreezeMethod.SUSPEND, 0, 3 * S), method=FreezeMethod.SIGSTOP)
    assert claims(measured(stood)) == {"regime": False, "wall clock": False, "boottime": True}
    slept = replace(
        cycle(FreezeMethod.GUEST_SLEEP, 0, 3 * S, repair_after_ns=25 * MS), method=FreezeMethod.SUSPEND
    )
    assert claims(measured(slept))["boottime"] is False


@pytest.mark.parametrize("method", FreezeMethod)
def test_every_method_says_what_it_is(method: FreezeMethod) -> None:
    traits = method.traits
    assert traits.about
    assert [traits.freezes, traits.boots_anew, method.runs_on].count(True) == 1
    assert bool(traits.plan) is method.needs_resume
    assert bool(traits.without_pause) is not method.freezes
    assert not (traits.copies_memory and traits.shares_memory)


@pytest.mark.parametrize("method", FreezeMethod)
def test_every_method_is_found_on_the_hypervisors_side(method: FreezeMethod) -> None:
    assert method in MAKERS


@pytest.mark.parametrize(
    ("method", "accelerator", "clocksource", "runs"),
    [
        (FreezeMethod.SUSPEND, "kvm", "tsc", True),
        (FreezeMethod.SUSPEND, "kvm", "kvm-clock", False),
        (FreezeMethod.SUSPEND, "tcg", "tsc", False),
        (FreezeMethod.SUSPEND, "", "tsc", False),
        (FreezeMethod.SNAPSHOT_STATE, "kvm", "tsc", True),
        (FreezeMethod.IN_PLACE, "kvm", "tsc", False),  # the TSC is loaded with the state
        (FreezeMethod.SAVE_RESTORE, "kvm", "tsc", False),
        (FreezeMethod.GUEST_SLEEP, "kvm", "tsc", False),
        (FreezeMethod.SIGSTOP, "kvm", "kvm-clock", True),
    ],
)
def test_the_tsc_runs_on_through_a_plain_stop_on_kvm(
    method: FreezeMethod, accelerator: str, clocksource: str, runs: bool
) -> None:
    predicts = method.predicts_on(accelerator, clocksource)
    assert predicts.regime is (Regime.JUMPED if runs else Regime.RESUMED)
    assert predicts.wall_clock in ((WallClock.RIGHT,) if runs else (WallClock.BEHIND, WallClock.NEARLY))


def test_a_suspend_on_kvm_is_compared_with_its_clocksource() -> None:
    ran = cycle(FreezeMethod.SIGSTOP, 0, 3 * S)
    assert ran.facts_before is not None
    facts = replace(ran.facts_before, clocksource="tsc")
    on_kvm = replace(ran, method=FreezeMethod.SUSPEND, facts_before=facts, accelerator="kvm")
    result = measured(on_kvm)
    assert claims(result) == {"regime": True, "wall clock": True, "boottime": True}
    assert "a right clock" in result.predicted
    assert claims(measured(replace(on_kvm, accelerator="tcg")))["regime"] is False
