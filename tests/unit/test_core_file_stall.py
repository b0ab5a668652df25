"""How long frozen file systems stood still, against writers whose truth is known."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from lab.core.clock import Interval
from lab.core.file_stall import FREEZE_FILES, THAW_FILES, FileWrites, LateWrite, stall_of
from lab.core.findings import findings
from lab.core.judge import measure
from lab.core.method import FreezeMethod
from lab.core.plan import CycleSpec, Expectations, HoldPatch, ResyncMechanism
from lab.core.step import Step
from lab.core.verdict import Finding, Outcome
from tests.unit.journalled import cycle
from tests.unit.simulation import MS, S

EXPECT = Expectations()
PERIOD = 2 * MS


def written(frozen: int, thawed: int, seed: int, until: int = 10 * S) -> FileWrites:
    """A writer that begins at 0, each of whose writes takes some 0.3 to 0.9 ms beside the stall."""
    draw = random.Random(seed)
    now, lengths, late, before = 0, [], [], 0
    while now < until:
        began, took = now, draw.randint(300_000, 900_000)
        ended = began + took
        if began < thawed and ended > frozen:
            ended = thawed + took - max(0, frozen - began)
        lengths.append(ended - began)
        if ended - began >= 10 * MS:
            late.append(LateWrite(before, began, ended))
        before, now = ended, max(ended, began + PERIOD)
    return FileWrites(len(lengths), sorted(lengths)[len(lengths) // 2], 0, before, tuple(late))


def stepped(frozen: int, thawed: int, slow: int) -> tuple[Step, ...]:
    """A freeze and a thaw whose calls begin so long before what they do, and end so long after."""
    return (
        Step(FREEZE_FILES, frozen - slow, frozen + slow),
        Step("snapshot", frozen + slow, frozen + slow + 5 * MS),
        Step(THAW_FILES, thawed - slow, thawed + slow),
    )


@pytest.mark.parametrize("seed", range(200))
def test_both_bounds_hold_and_the_writer_knows_it_to_five_milliseconds(seed: int) -> None:
    draw = random.Random(-seed)
    frozen = draw.randint(2 * S, 3 * S)
    stood = draw.choice([30 * MS, 300 * MS, 3 * S])
    thawed, slow, lag = frozen + stood, draw.randint(1, 20) * MS, draw.choice([0, 2 * S])
    edges = Interval(frozen - MS, frozen + MS), Interval(thawed - MS, thawed + MS)
    stall = stall_of(
        stepped(frozen, thawed + lag, slow), written(frozen, thawed, seed), *edges, Interval(lag, lag)
    )
    assert stall is not None
    assert stall.felt is not None
    assert stood + lag in stall.calls
    # A write that was under way when the file system froze takes less than usual beside the stall.
    assert stood + lag in stall.felt.widened(900_000)
    assert stall.felt.half_width_ns < 5 * MS
    assert stall.agrees


def test_a_writer_that_was_never_held_contradicts_the_calls() -> None:
    edges = Interval(2 * S, 2 * S), Interval(5 * S, 5 * S)
    writes = written(20 * S, 20 * S, 1)
    stall = stall_of(stepped(2 * S, 5 * S, MS), writes, *edges, Interval(0, 0))
    assert stall is not None
    assert stall.agrees is False


def test_without_a_record_through_the_stall_the_writer_is_not_asked() -> None:
    edges = Interval(2 * S, 2 * S), Interval(5 * S, 5 * S)
    writes, steps = written(2 * S, 5 * S, 1), stepped(2 * S, 5 * S, MS)
    for given in (None, replace(writes, first_raw_ns=3 * S), replace(writes, last_raw_ns=4 * S)):
        stall = stall_of(steps, given, *edges, Interval(0, 0))
        assert stall is not None
        assert (stall.felt, stall.agrees) == (None, None)
    assert stall_of(steps[:1], writes, *edges, Interval(0, 0)) is None


def judged(
    writes: FileWrites | None,
    *,
    budget: int = 30 * S,
    expect: Expectations = EXPECT,
    metric: str = "file systems",
    called_off: str = "",
) -> Finding:
    """A finding of a simulated cycle with a snapshot of 3 s."""
    obs = cycle(FreezeMethod.SNAPSHOT, 0, 0)
    assert obs.stop is not None
    assert obs.resume is not None
    steps = stepped(obs.stop.called.raw_ns, obs.stop.called.raw_ns + 3 * S, MS)
    obs = replace(obs, steps=steps, writes=writes, budget_ns=budget, frozen=False, called_off=called_off)
    spec = CycleSpec(FreezeMethod.SNAPSHOT, HoldPatch(0))
    result = measure(obs, ResyncMechanism.NONE, expect, None, spec)
    (found,) = [f for f in findings(result, expect) if f.metric == metric]
    return found


def test_what_is_found() -> None:
    assert judged(None).outcome is Outcome.INCONCLUSIVE
    over = judged(None, budget=2 * S)
    assert over.outcome is Outcome.FAILED
    assert "over the budget" in over.why
    for limit, outcome in ((4 * S, Outcome.PASSED), (3 * S, Outcome.INCONCLUSIVE), (2 * S, Outcome.FAILED)):
        assert judged(None, expect=Expectations(stall_at_most_ns=limit), metric="stall").outcome is outcome
    inside = judged(FileWrites(1, 1, 0, 1, thawed=1))
    assert inside.outcome is Outcome.FAILED
    assert "agent did not thaw" in inside.why


def test_a_snapshot_that_was_called_off_is_told_as_such_and_not_as_a_stall() -> None:
    obs = cycle(FreezeMethod.SNAPSHOT, 0, 0)
    why = "no snapshot: its agent froze no file system (guest-fsfreeze-freeze returned 0)"
    obs = replace(obs, called_off=why, patch_ok=False, patch_why=f"not applied: {why}", frozen=False)
    result = measure(obs, ResyncMechanism.NONE, EXPECT, None, CycleSpec(FreezeMethod.SNAPSHOT, HoldPatch(0)))
    found = {f.metric: f for f in findings(result, EXPECT)}
    assert found["freeze"].outcome is found["patch"].outcome is Outcome.FAILED
    assert why in found["freeze"].why
    assert "file systems" not in found


@pytest.mark.parametrize(("budget", "outcome"), [(4 * S, Outcome.INCONCLUSIVE), (2 * S, Outcome.FAILED)])
def test_of_one_that_was_called_off_when_they_were_frozen_the_budget_is_checked(
    budget: int, outcome: Outcome
) -> None:
    """Inconclusive: there is no writer here."""
    found = judged(None, budget=budget, called_off="no snapshot: the budget is used up")
    assert found.outcome is outcome
    assert found.expectation == f"frozen for at most {budget // S} s"
