"""The cycle: settle, measure, freeze, patch the host, resume, watch.

The controller speaks only ports. It reads no clock of its own, keeps no result, and judges nothing:
what it sees goes to the journal, and core.judge works from there.

Two promises hold whatever happens. A guest that was frozen is resumed before `run_cycle` is left,
by any way out. And no guest stays frozen longer than the budget: the patch is given a deadline, and
a guard resumes the guests by itself should the controller be held up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from lab.core.clock import Stamp
from lab.core.plan import CycleSpec, FreezeMethod
from lab.core.timeline import Call, Reading
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import GuestError, Interrupted
from lab.ports import Clock, Guard, HostPatch, Hypervisor, Journal, PatchResult, Probe, Resync, View

RESERVE_NS = 250 * NS_PER_MS
"""Kept of the budget for the resume itself; libvirt's resume takes some milliseconds."""

DENSE_NS = NS_PER_S
"""How long the guest is read without a rest after a resume, and before the end of the watch."""

PACE_NS = 100 * NS_PER_MS
BURST = 4
"""In between: BURST readings, then a rest until PACE_NS after the burst began."""

BREATH_NS = 2 * NS_PER_MS
"""The shortest rest between two bursts, when nothing but the probe has to run in the guest."""

REST_NS = 20 * NS_PER_MS
"""The same after a resume: under TCG a burst keeps the guest busy for some 12 ms, and what repairs its
clock has to run as well."""


@dataclass(frozen=True)
class Subject:
    """A guest in a cycle and the ways to it."""

    name: str
    probe: Probe
    resync: Resync


@dataclass
class _Seen:
    """What one cycle has seen of one guest so far."""

    problems: list[str] = field(default_factory=list)
    lost: bool = False


class Controller:
    """Runs cycles over the given guests.

    shield: a context in which signals are held back, so that a resume is never cut short.
    """

    def __init__(
        self,
        clock: Clock,
        hypervisor: Hypervisor,
        journal: Journal,
        view: View,
        shield: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._clock, self._hypervisor = clock, hypervisor
        self._journal, self._view, self._shield = journal, view, shield

    def run_cycle(
        self, index: int, subjects: Mapping[str, Subject], spec: CycleSpec, patch: HostPatch, *, frozen: bool
    ) -> None:
        """One cycle; with `frozen` false everything but the freeze (a control cycle).

        What is wrong with a guest is journalled as its problem, and the cycle goes on with the
        others. HypervisorError when a guest cannot be frozen or resumed; Interrupted passes.
        """
        method = spec.method if frozen else FreezeMethod.NONE
        seen = {name: _Seen() for name in subjects}
        started = self._clock.now()
        for name in subjects:
            self._journal.append(
                "cycle",
                name,
                index,
                frozen=frozen,
                method=method,
                patch=patch.label,
                budget_ns=spec.budget_ns,
            )
        self._view.phase("settle", length_ns=spec.settle_ns)
        self._clock.sleep_until(started.raw_ns + spec.settle_ns)
        for name, subject in subjects.items():
            with self._observing(name, index, seen[name]):
                subject.probe.start_cycle()
                self._journal.append("facts", name, index, when="before", facts=subject.probe.facts())

        self._view.phase("measure", length_ns=spec.before_ns)
        self._read(subjects, seen, index, self._clock.now().raw_ns + spec.before_ns, dense_end=True)

        live = {name: s for name, s in subjects.items() if not seen[name].lost}
        if live:
            resumed = self._freeze(index, live, spec, patch, method)
            self._view.phase("watch", length_ns=spec.watch_ns)
            self._read(live, seen, index, resumed.raw_ns + spec.watch_ns, dense_start=True, dense_end=True)
        for name, subject in live.items():
            with self._observing(name, index, seen[name]):
                self._journal.append("samples", name, index, sampler=subject.probe.samples())
                self._journal.append("beats", name, index, beats=list(subject.probe.heartbeats()))
                after = subject.probe.facts()
                self._journal.append("facts", name, index, when="after", facts=after)
                self._journal.append("resync", name, index, said=subject.resync.outcome())
        ended = self._clock.now()
        step = (ended.real_ns - started.real_ns) - (ended.raw_ns - started.raw_ns)
        for name in subjects:
            self._journal.append("cycle-end", name, index, host_step_ns=step)

    def _freeze(
        self,
        index: int,
        subjects: Mapping[str, Subject],
        spec: CycleSpec,
        patch: HostPatch,
        method: FreezeMethod,
    ) -> Stamp:
        """Freeze, patch, resume. Returns the stamp of the last resume's return."""
        hypervisor, names = self._hypervisor, list(subjects)
        stops: dict[str, Call] = {}
        resumes: dict[str, Call] = {}
        cpu_before: dict[str, int] = {}
        cpu: dict[str, int] = {}
        result: PatchResult | None = None
        self._view.phase("freeze")
        first = self._clock.now()
        deadline = first.raw_ns + spec.budget_ns - RESERVE_NS
        guard = hypervisor.guard(names, method, deadline + RESERVE_NS // 2)
        try:
            with guard:
                try:
                    for name in names:
                        stops[name] = hypervisor.freeze(name, method)
                        cpu_before[name] = hypervisor.cpu_time_ns(name)
                    if method is not FreezeMethod.NONE:
                        # Written while they are frozen: who comes after a kill -9 can tell.
                        self._journal.append("freeze", cycle=index, guests=names, method=method)
                        self._view.frozen(first.raw_ns, spec.budget_ns)
                    result = patch.apply(deadline)
                    for name in names:
                        cpu[name] = hypervisor.cpu_time_ns(name) - cpu_before[name]
                finally:
                    try:
                        self._resume(names, method, subjects, guard, resumes)
                    except Interrupted:
                        # It came on the way into the shield; there is no second one.
                        self._resume(names, method, subjects, guard, resumes)
                        raise
                    finally:
                        self._view.resumed()
        finally:
            for name, stop in stops.items():
                self._journal.append("stop", name, index, call=stop)
                if name in resumes:
                    self._journal.append("resume", name, index, call=resumes[name])
                if name in cpu and method is not FreezeMethod.NONE:
                    self._journal.append("cpu", name, index, used_ns=cpu[name])
                if result is not None:
                    self._journal.append(
                        "patch", name, index, ok=result.ok, why=result.why, facts=result.facts
                    )
        return max((call.returned for call in resumes.values()), key=lambda stamp: stamp.raw_ns)

    def _resume(
        self,
        names: list[str],
        method: FreezeMethod,
        subjects: Mapping[str, Subject],
        guard: Guard,
        resumes: dict[str, Call],
    ) -> None:
        """Resume every guest that is not in `resumes` yet, also when one of them cannot be; then the
        first failure is raised."""
        failures: list[Exception] = []
        with self._shield():  # a signal that was held back is raised here, before any failure
            for name in names:
                if name in resumes:
                    continue
                try:
                    resumes[name] = guard.resumed(name) or self._hypervisor.resume(name, method)
                    if method is not FreezeMethod.NONE:
                        subjects[name].resync.resumed()
                except Exception as error:  # noqa: BLE001 - raised below; the others come first
                    failures.append(error)
        if failures:
            raise failures[0]

    def _read(
        self,
        subjects: Mapping[str, Subject],
        seen: Mapping[str, _Seen],
        index: int,
        until_raw_ns: int,
        *,
        dense_start: bool = False,
        dense_end: bool = False,
    ) -> None:
        """Read all guests in turn until `until_raw_ns`, and journal what was read as it comes."""
        begun = self._clock.now().raw_ns
        while True:
            now = self._clock.now().raw_ns
            if now >= until_raw_ns:
                return
            dense = (dense_start and now < begun + DENSE_NS) or (dense_end and now >= until_raw_ns - DENSE_NS)
            batch: dict[str, list[Reading]] = {name: [] for name in subjects}
            for _ in range(BURST):
                for name, subject in subjects.items():
                    if not seen[name].lost:
                        with self._observing(name, index, seen[name]):
                            batch[name].append(subject.probe.read())
            for name, readings in batch.items():
                if readings:
                    self._journal.append("readings", name, index, readings=readings)
            if all(seen[name].lost for name in subjects):
                return
            least = REST_NS if dense_start and now < begun + DENSE_NS else BREATH_NS
            rest = least if dense else max(least, now + PACE_NS - self._clock.now().raw_ns)
            self._clock.sleep_until(min(until_raw_ns, self._clock.now().raw_ns + rest))

    def _observing(self, name: str, index: int, seen: _Seen) -> _Observing:
        return _Observing(self._journal, self._view, name, index, seen)


class _Observing:
    """A guest that cannot be observed is a problem of that guest, not the end of the cycle."""

    def __init__(self, journal: Journal, view: View, name: str, index: int, seen: _Seen) -> None:
        self._journal, self._view, self._name, self._index, self._seen = journal, view, name, index, seen

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, GuestError):
            return False
        self._seen.lost = True
        self._journal.append("problem", self._name, self._index, text=str(error))
        self._view.note(str(error))
        return True
