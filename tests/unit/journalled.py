"""Simulated cycles, and the history that the runner would have journalled of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab.core.clock import Stamp
from lab.core.history import (
    SCHEMA,
    BeatsArrived,
    CellReached,
    CycleBegan,
    CycleEnded,
    ExchangeEnded,
    FactsRead,
    GuestBooted,
    Host,
    MemoryProven,
    PatchApplied,
    ReadingsTaken,
    ResumeCalled,
    ResyncReported,
    RunEnded,
    RunStarted,
    SamplesTaken,
    SetupRead,
    StepsTimed,
    StopCalled,
    VersionsCompared,
    WatcherReported,
)
from lab.core.plan import (
    Cell,
    CycleSpec,
    Expectations,
    FreezeMethod,
    GuestSpec,
    HoldPatch,
    LeftOut,
    Plan,
    Regime,
    ResyncMechanism,
)
from lab.core.timeline import MemoryProof, Observation, ProbeFacts, Step
from lab.record.journal import EVENTS, FileJournal
from tests.unit.simulation import MS, US, Repair, S, Scenario, simulate

HOST = Host(
    kernel="6.1.0-18-amd64",
    cpu="AMD EPYC",
    memory_bytes=24 << 30,
    qemu="7.2.22",
    libvirt="9.0.0",
    accelerator="tcg",
    accelerator_reason="KVM opens here but boots no guest",
    details={"cpus": 2, "load": 0.4},
)
MIB = 1 << 20
EXPECT = Expectations(in_time_within_ns=800 * MS, hold_ns=300 * MS, final_offset_ns=100 * MS)
PROOF = MemoryProof(4096, 131072, 41210, "5f" * 32, "5f" * 32, 0, (), 160 * MS)


class Ticking:
    def __init__(self) -> None:
        self.at = 1_795_000_000 * S

    def now(self) -> Stamp:
        self.at += MS
        return Stamp(self.at, self.at)

    def sleep_until(self, raw_ns: int) -> None:
        self.at = raw_ns


@dataclass
class Journalled:
    """A cell, its cycles, and why it was not run: then its cycles have only begun."""

    cell: Cell
    cycles: list[Observation]
    skipped: str = ""
    refused: bool = False


def cell(method: FreezeMethod, repeat: int = 1, **more: str) -> Cell:
    """more: further axes and their values."""
    values = {"method": method.value, **more}
    memory = int(more.get("memory", "512MiB").removesuffix("MiB")) * MIB
    spec = CycleSpec(method, HoldPatch(0), prove_memory="proof" in more)
    name = "-".join(value.rsplit("/", 1)[-1] for value in values.values())
    return Cell(
        name, tuple(values.items()), (GuestSpec("web-0", memory_bytes=memory),), ResyncMechanism.AGENT, spec,
        EXPECT, repeat,
    )  # fmt: skip


REGIMES = {
    FreezeMethod.SIGSTOP: Regime.JUMPED,
    FreezeMethod.HOST_SLEEP: Regime.JUMPED,
    FreezeMethod.NONE: Regime.RUNNING,
}


def cycle(method: FreezeMethod, index: int, pause_ns: int, seed: int = 0, **more: object) -> Observation:
    """One simulated cycle under a method, with the steps that it would have named."""
    scenario = Scenario(
        seed=seed, regime=REGIMES.get(method, Regime.RESUMED), pause_ns=pause_ns, rtt_ns=2 * MS, call_ns=MS,
        before_ns=700 * MS, watch_ns=1500 * MS, late_ns=MS, raw_ppb=30_000, residual_ns=-4 * MS,
        boot_counts=method is FreezeMethod.GUEST_SLEEP, repair_after_ns=25 * MS,
        repair=Repair.AGENT if method not in REGIMES else Repair.NONE,
    )  # fmt: skip
    seen = simulate(replace(scenario, **more))[0]  # type: ignore[arg-type]
    assert seen.stop is not None
    assert seen.resume is not None
    at, end = seen.stop.returned.raw_ns, seen.resume.called.raw_ns
    names = {
        FreezeMethod.IN_PLACE: (("state out", 40), ("state in", 45)),
        FreezeMethod.SAVE_RESTORE: (("save", 70), ("restore", 29)),
    }.get(method, ())
    steps, length = [], end - at
    for number, (name, share) in enumerate(names):
        took = length * share // 100
        begin = end - took if number else at + 20 * US
        steps.append(Step(name, begin, begin + took))
    return replace(seen, cycle=index, method=method, patch="hold 0 s", steps=tuple(steps), cpu_ns=None)


def rebooted(index: int) -> Observation:
    """The first half of one cycle, and of another one 40 s later, as another boot."""
    before = cycle(FreezeMethod.NONE, index, 0, seed=5)
    assert before.stop is not None
    assert before.resume is not None
    early = tuple(r for r in before.readings if r.t4.raw_ns < before.stop.called.raw_ns)
    later = []
    for r in before.readings[len(early) :]:
        moved = [Stamp(t.raw_ns + 40 * S, t.real_ns + 40 * S) for t in (r.t1, r.t4)]
        clocks = [{c: v + (40 * S if c == "real" else -60 * S) for c, v in t.items()} for t in (r.t2, r.t3)]
        later.append(replace(r, t1=moved[0], t4=moved[1], t2=clocks[0], t3=clocks[1]))
    started = before.resume.called.raw_ns + 30 * S
    start = replace(before.resume, called=Stamp(started, started), returned=Stamp(started + S, started + S))
    return replace(
        before, method=FreezeMethod.REBOOT, frozen=False, patch_impact="reboot", beats=(), resume=start,
        readings=(*early, *later), facts_after=ProbeFacts("another", "tsc"), cut=True,
        patch="command kexec",
    )  # fmt: skip


CALIBRATION = {
    "made": "2026-11-17T09:30:00+00:00", "cycles": 40, "bias_ns": 120 * US, "spread_ns": 900 * US,
    "coverage": 1.0, "noise_ns": 7 * MS, "offset_bound_ns": 240 * US, "stale": "",
}  # fmt: skip


def write(
    folder: Path,
    name: str,
    cells: list[Journalled],
    matrix: bool = True,
    left_out: tuple[LeftOut, ...] = (),
    calibration: dict[str, object] | None = None,
) -> Path:
    """The history of a run with these cells, or of a run without a matrix."""
    first = cells[0].cell
    plan = Plan(
        name, "", "00", first.guests, first.resync, first.cycle, first.expectations, first.repeat,
        first.control, tuple(c.cell for c in cells) if matrix else (), left_out,
    )  # fmt: skip
    where = folder / name
    where.mkdir(parents=True)
    with FileJournal(where, Ticking()) as journal:
        journal.append(RunStarted(SCHEMA, name, plan, HOST, calibration))
        for given in cells:
            tag = given.cell.id if matrix else ""
            if given.skipped:
                for seen in given.cycles:
                    journal.append(began(seen, tag))
                journal.append(CellReached(tag, given.skipped, given.refused))
                continue
            if matrix:
                journal.append(CellReached(tag))
            journal.append(GuestBooted("web-0", {"to_probe_s": 6.4}))
            for seen in given.cycles:
                journal_cycle(journal, replace(seen, cell=tag))
        journal.append(RunEnded(interrupted=False, failure=""))
    return where


def began(o: Observation, cell: str) -> CycleBegan:
    return CycleBegan(
        o.guest, o.cycle, o.frozen, o.method, o.patch, o.patch_impact, budget_ns=o.budget_ns, cell=cell
    )


def journal_cycle(journal: FileJournal, o: Observation, *, end: bool = True) -> None:
    """One guest's cycle, in the controller's order. end: with its last entry."""
    assert o.stop is not None
    assert o.resume is not None
    assert o.sampler is not None
    assert o.facts_before is not None
    assert o.facts_after is not None
    where = o.guest, o.cycle
    journal.append(began(o, o.cell))
    journal.append(FactsRead(*where, "before", o.facts_before))
    if o.setup is not None:
        journal.append(SetupRead(*where, o.setup))
    journal.append(ReadingsTaken(*where, o.readings))
    journal.append(StopCalled(*where, o.stop))
    journal.append(ResumeCalled(*where, o.resume))
    if o.steps:
        journal.append(StepsTimed(*where, o.steps))
    if o.called_off or o.cut:
        journal.append(ExchangeEnded(*where, o.called_off, o.cut))
    if o.proof is not None:
        journal.append(MemoryProven(*where, o.proof))
    journal.append(PatchApplied(*where, o.patch_ok, o.patch_why, {}, o.patch_steps))
    journal.append(SamplesTaken(*where, o.sampler))
    journal.append(BeatsArrived(*where, o.beats))
    journal.append(FactsRead(*where, "after", o.facts_after))
    journal.append(ResyncReported(*where, o.resync_report, o.resync_finished_raw_ns))
    if o.claims or o.effects is not None:
        journal.append(WatcherReported(*where, o.claims, o.effects))
    journal.append(VersionsCompared(*where, o.version_before, o.version_after, ""))
    if end:
        journal.append(CycleEnded(*where, o.host_step_ns))


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The folder of a run, each of whose events was given to `change` as JSON has it; without those that it
    answers False for."""
    path = folder / EVENTS
    events = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    kept = [event for event in events if change(event) is not False]
    numbered = ({**event, "seq": number} for number, event in enumerate(kept))
    path.write_text("".join(json.dumps(event) + "\n" for event in numbered), encoding="utf-8")
    return folder
