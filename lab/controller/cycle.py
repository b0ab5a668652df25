"""The cycle: settle, measure, freeze, patch the host, resume, watch.

The controller uses only ports. It reads no clock of its own, keeps no result, and judges nothing: it writes
its observations to the journal, and core.judge works from those.

Two promises always hold. A frozen guest is resumed before `run_cycle` returns or raises. And no guest stays
frozen longer than the budget: the freeze and the patch have a deadline, and a guard resumes the guests when
the controller is held up. A guest that was shut down for a patch is started again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from lab.controller.clock_reader import ClockReader, CycleGuest, GuestObservation
from lab.controller.event_lifecycle import EventLifecycle, Stage, quietly
from lab.controller.meeting import Meeting, alone
from lab.core.clock import Stamp
from lab.core.history import (
    CpuUsed,
    CpuWaited,
    CycleBegan,
    CycleEnded,
    ExchangeEnded,
    FactsRead,
    GuestsFrozen,
    MemoryProven,
    MigrationWatched,
    PatchApplied,
    ProblemMet,
    ResumeCalled,
    SetupRead,
    StepsTimed,
    StopCalled,
    VersionsCompared,
)
from lab.core.method import FreezeMethod
from lab.core.migration import MigrationReport
from lab.core.patch import Impact
from lab.core.plan import CycleSpec
from lab.core.rescue import AT_ONCE
from lab.core.timeline import Reading
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.work import QUIET_NS
from lab.errors import GuestGone, Interrupted
from lab.ports import (
    Clock,
    Freezing,
    Frozen,
    Guard,
    HostPatch,
    Hypervisor,
    Journal,
    PatchResult,
    Resumed,
    View,
)

RESERVE_NS = 250 * NS_PER_MS
"""What is reserved of the budget for the resume: usually milliseconds, in emulated lab hosts up to 0.6 s."""

SHUTDOWN_NS = 90 * NS_PER_S
"""How long a guest may take to power itself off: systemd's default limit for stopping a unit
(DefaultTimeoutStopSec=, systemd-system.conf(5))."""

BOOT_NS = 300 * NS_PER_S
"""How long a guest may take to answer again after its start."""


def reserve_ns(budget_ns: int, pace: float) -> int:
    """What is reserved on a host of this pace: RESERVE_NS, or more of the budget, up to a quarter of it."""
    return max(RESERVE_NS, min(round(pace * RESERVE_NS), budget_ns // 4))


@dataclass(frozen=True)
class Cycle:
    """The data of one cycle. observations, migrations: by guest, so far; see Frozen.migration."""

    index: int
    observations: Mapping[str, GuestObservation]
    spec: CycleSpec
    patch: HostPatch
    freezing: Freezing
    lifecycle: EventLifecycle | None
    stage: Stage
    patched: bool
    migrations: dict[str, Callable[[], MigrationReport | None]] = field(default_factory=dict)


class Controller:
    """Runs cycles over the given guests.

    shield: a context in which signals are deferred, so that they never interrupt a resume, or the end of what
    a freeze has left over. meeting: for a host of a fleet, what says when guests are frozen. pace: how many
    times slower than usual this host runs guests.
    """

    def __init__(
        self,
        clock: Clock,
        hypervisor: Hypervisor,
        journal: Journal,
        view: View,
        shield: Callable[[], AbstractContextManager[None]],
        meeting: Meeting | None = None,
        pace: float = 1.0,
    ) -> None:
        self._clock, self._hypervisor, self._journal, self._view = clock, hypervisor, journal, view
        self._shield, self._meet, self._pace = shield, meeting or alone, pace
        self._reader = ClockReader(clock, journal, view)

    def has_ended(self, guest: str) -> bool:
        """Whether the guest is known to have ended for good."""
        try:
            self._hypervisor.look(guest)
        except GuestGone as gone:
            return gone.ended
        return False

    def run_cycle(
        self,
        index: int,
        subjects: Mapping[str, CycleGuest],
        spec: CycleSpec,
        patch: HostPatch,
        *,
        frozen: bool,
        lifecycle: EventLifecycle | None = None,
        stage: Stage = quietly,
        patched: bool = True,
    ) -> None:
        """Run one cycle. frozen: False for a control cycle, which does everything but the freeze. patched:
        False leaves the patch out as well, for a cycle whose event was cancelled. lifecycle: the cycle's
        announcement, which ends when the guests are back and in time, or at the latest with the cycle. stage:
        called with the cycle's stage: frozen, resyncing.

        A guest's problem is journalled, and the cycle goes on with the others. After the cycle, GuestGone is
        raised when a guest has ended. HypervisorError when a guest cannot be frozen or resumed. Interrupted
        passes through.
        """
        method = spec.method if frozen else FreezeMethod.NONE
        freezing = Freezing(
            method, patch.successor, spec.prove_memory, spec.save_to, not patch.acts, spec.migration
        )
        observations = {name: GuestObservation() for name in subjects}
        cycle = Cycle(index, observations, spec, patch, freezing, lifecycle, stage, patched)
        started = self._clock.now()
        for name, subject in subjects.items():
            self._journal.append(
                CycleBegan(
                    name, index, frozen=frozen and method.freezes, method=method, patch=patch.label,
                    impact=patch.impact, budget_ns=spec.budget_ns, cell=subject.cell,
                )
            )  # fmt: skip
        try:
            self._cycle(cycle, subjects)
        finally:
            with self._shield():
                for name in subjects:
                    self._hypervisor.finish(name)
            if lifecycle is not None:
                lifecycle.over()
        ended = self._clock.now()
        step = (ended.real_ns - started.real_ns) - (ended.raw_ns - started.raw_ns)
        for name in subjects:
            if name in cycle.migrations and (report := cycle.migrations[name]()) is not None:
                self._journal.append(MigrationWatched(name, index, report))
            self._journal.append(CycleEnded(name, index, step))
        for each in observations.values():
            if each.gone is not None and each.ended:
                raise each.gone

    def _cycle(self, cycle: Cycle, subjects: Mapping[str, CycleGuest]) -> None:
        index, observations, spec = cycle.index, cycle.observations, cycle.spec
        patch, lifecycle = cycle.patch, cycle.lifecycle
        method = cycle.freezing.method
        if spec.wake:
            for name in subjects:
                with self._reader.observing(name, index, observations[name]):
                    self._hypervisor.wake(name)
        if method.needs_resume:
            for name in self._there(cycle, subjects):
                self._view.phase("prepare", guest=name)
                self._hypervisor.prepare(name, cycle.freezing)
        self._view.phase("settle", length_ns=spec.settle_ns)
        settled = self._clock.now().raw_ns + spec.settle_ns
        if lifecycle is not None:
            settled = max(settled, lifecycle.not_before_raw_ns - spec.before_ns)
        self._clock.sleep_until(settled)
        versions: dict[str, str] = {}
        for name in self._there(cycle, subjects):
            subject = subjects[name]
            versions[name] = patch.version(name)
            with self._reader.observing(name, index, observations[name]):
                subject.probe.start_cycle()
                self._journal.append(FactsRead(name, index, "before", subject.probe.facts()))
                self._journal.append(SetupRead(name, index, subject.resync.setup()))
                for start in subject.recorders:
                    start()

        self._view.phase("measure", length_ns=spec.before_ns)
        until = self._clock.now().raw_ns + spec.before_ns
        self._reader.read(subjects, observations, index, until, dense_end=True)
        if spec.dirty is not None and method.freezes:
            self._clock.sleep_until(self._clock.now().raw_ns + QUIET_NS)

        live = {name: subjects[name] for name in self._there(cycle, subjects)}
        if live:
            cycle.stage("frozen")
            for name in live:
                observations[name].add_cpu_wait(self._hypervisor.cpu_wait(name))
            resumed = (self._reboot if method.boots_anew else self._freeze)(cycle, live)
            cycle.stage("resyncing")
            self._view.phase("watch", length_ns=spec.watch_ns)
            until = resumed.raw_ns + spec.watch_ns

            def look(name: str, reading: Reading) -> None:
                observations[name].add_cpu_wait(self._hypervisor.cpu_wait(name))
                if lifecycle is not None:
                    lifecycle.look(name, reading)

            self._reader.read(live, observations, index, until, dense_start=True, dense_end=True, look=look)
        self._there(cycle, live)
        for name, subject in live.items():
            if waits := observations[name].cpu_waits:
                self._journal.append(CpuWaited(name, index, tuple(waits)))
            if observations[name].gone is None:
                with self._reader.observing(name, index, observations[name]):
                    self._reader.collect(name, subject, index)
            if not observations[name].ended:
                with self._shield():  # a snapshot that is written back in part would stay in use
                    self._hypervisor.finish(name)
                after_version = patch.version(name)
                why = patch.verify(versions[name], after_version)
                self._journal.append(VersionsCompared(name, index, versions[name], after_version, why))

    def _there(self, cycle: Cycle, subjects: Mapping[str, CycleGuest]) -> list[str]:
        """The guests that can still be observed, after libvirt was asked about each."""
        for name in subjects:
            if not cycle.observations[name].lost:
                with self._reader.observing(name, cycle.index, cycle.observations[name]):
                    self._hypervisor.look(name)
        return [name for name in subjects if not cycle.observations[name].lost]

    def _freeze(self, cycle: Cycle, subjects: Mapping[str, CycleGuest]) -> Stamp:
        """Freeze, patch, resume. Returns the stamp of the last resume's return."""
        index, spec, freezing = cycle.index, cycle.spec, cycle.freezing
        hypervisor, names, method = self._hypervisor, list(subjects), freezing.method
        frozen, resumed = dict[str, Frozen](), dict[str, Resumed]()
        cpu_before, cpu = dict[str, int](), dict[str, int]()
        result: PatchResult | None = None
        self._view.phase("freeze")
        for subject in subjects.values():
            if subject.before_freeze is not None:
                subject.before_freeze()
        self._meet()
        first = self._clock.now()
        reserve, over = reserve_ns(spec.budget_ns, self._pace), first.raw_ns + spec.budget_ns
        deadline = over - reserve
        guard = hypervisor.guard(names, freezing, deadline + reserve // 2, over, index)
        try:
            with guard:
                try:
                    if method.needs_resume:
                        hypervisor.begin_freeze(names, freezing)
                    for name in names:
                        frozen[name] = hypervisor.freeze(name, freezing, deadline)
                        if (back := frozen[name].back) is not None:
                            resumed[name] = Resumed(back, why=frozen[name].why)
                            subjects[name].resync.resumed()
                        elif (done := frozen[name].resumed) is not None:
                            resumed[name] = done
                            subjects[name].resumed_at_once()
                        elif method.keeps_process:
                            cpu_before[name] = hypervisor.cpu_time_ns(name)
                        then = subjects[name].frozen
                        if method.freezes and then is not None and name not in resumed:
                            then()
                    if takes := max(each.resume_ns for each in frozen.values()):
                        deadline -= takes
                        guard.bring_forward(takes)
                    if method.needs_resume:
                        # Written during the freeze, so that the history of a killed run shows it.
                        still = tuple(name for name in names if name not in resumed)
                        self._journal.append(GuestsFrozen(index, still, method))
                        self._view.frozen(first.raw_ns, spec.budget_ns)
                    if cycle.patched:
                        back_why = [each.why for each in frozen.values() if each.back is not None]
                        result = self._apply(cycle.patch, deadline, back_why)
                    for name, earlier in cpu_before.items():
                        cpu[name] = hypervisor.cpu_time_ns(name) - earlier
                finally:
                    try:
                        self._resume(names, freezing, subjects, guard, resumed)
                    except Interrupted:
                        # The signal came before the shield was entered; there is only one.
                        self._resume(names, freezing, subjects, guard, resumed)
                        raise
                    finally:
                        self._view.resumed()
        finally:
            if guard.why:
                for name in names:
                    self._journal.append(ProblemMet(name, index, f"{AT_ONCE}{guard.why}"))
            for name, stop in frozen.items():
                self._journal.append(StopCalled(name, index, stop.call))
                if stop.migration is not None:
                    cycle.migrations[name] = stop.migration
                if name in resumed:
                    self._journal_resumed(name, index, stop, resumed[name])
                if name in cpu and method.freezes:
                    self._journal.append(CpuUsed(name, index, cpu[name]))
                self._journal_patch(name, index, result)
        return max((each.call.returned for each in resumed.values()), key=lambda stamp: stamp.raw_ns)

    def _reboot(self, cycle: Cycle, subjects: Mapping[str, CycleGuest]) -> Stamp:
        """Shut down, patch, start, and wait until the probes answer. Returns the stamp of the last start."""
        index, observations, patch = cycle.index, cycle.observations, cycle.patch
        stops: dict[str, Frozen] = {}
        starts: dict[str, Resumed] = {}
        result: PatchResult | None = None
        self._view.phase("shut down")
        self._meet()
        try:
            for name in subjects:
                stop = self._hypervisor.shutdown(name, self._clock.now().raw_ns + SHUTDOWN_NS)
                stops[name] = Frozen(stop)
            self._view.phase("patch")
            # A guest that is shut down has no budget; only the patch has a deadline.
            result = patch.apply(self._clock.now().raw_ns + SHUTDOWN_NS)
        finally:
            with self._shield():
                for name in stops:
                    starts[name] = Resumed(self._hypervisor.start(name, patch.successor), cut=True)
            for name, stopped in stops.items():
                self._journal.append(StopCalled(name, index, stopped.call))
                if name in starts:
                    self._journal_resumed(name, index, stopped, starts[name])
                self._journal_patch(name, index, result)
        for name, subject in subjects.items():
            self._view.phase("boot", guest=name)
            with self._reader.observing(name, index, observations[name]):
                subject.probe.restart(self._clock.now().raw_ns + BOOT_NS)
                subject.resync.resumed()
                if subject.booted is not None:
                    subject.booted()
        return self._clock.now()

    def _apply(self, patch: HostPatch, deadline: int, called_off: list[str]) -> PatchResult:
        """Apply the patch, unless the freeze of a guest was called off: the guest must not run during it."""
        if called_off:
            return PatchResult(False, f"not applied: {called_off[0]}")
        if patch.impact is not Impact.NONE:
            self._view.phase("patch")
        return patch.apply(deadline)

    def _journal_resumed(self, name: str, index: int, frozen: Frozen, resumed: Resumed) -> None:
        self._journal.append(ResumeCalled(name, index, resumed.call))
        if steps := (*frozen.steps, *resumed.steps):
            self._journal.append(StepsTimed(name, index, steps))
        if resumed.why or resumed.cut:
            self._journal.append(ExchangeEnded(name, index, resumed.why, resumed.cut))
        if resumed.proof is not None:
            self._journal.append(MemoryProven(name, index, resumed.proof))

    def _journal_patch(self, name: str, index: int, result: PatchResult | None) -> None:
        if result is not None:
            self._journal.append(PatchApplied(name, index, result.ok, result.why, result.facts, result.steps))

    def _resume(
        self,
        names: list[str],
        freezing: Freezing,
        subjects: Mapping[str, CycleGuest],
        guard: Guard,
        resumed: dict[str, Resumed],
    ) -> None:
        """Resume every guest that is not in `resumed` yet, even when one of them cannot be resumed. Raises
        the first failure after the last guest."""
        failures: list[Exception] = []
        with self._shield():  # a deferred signal is raised here, before any failure
            if freezing.method.needs_resume:
                for before in [subjects[name].before_resume for name in names]:
                    if before is not None:
                        before()
                still = [name for name in names if name not in resumed and guard.resumed(name) is None]
                self._hypervisor.begin_resume(still)
            for name in names:
                if name in resumed:
                    continue
                try:
                    resumed[name] = guard.resumed(name) or self._hypervisor.resume(name, freezing)
                    if freezing.method.needs_resume:
                        subjects[name].resync.resumed()
                except Exception as error:  # noqa: BLE001 - raised below, after the other guests
                    failures.append(error)
        if failures:
            raise failures[0]
