"""A run of a fleet over hosts: each host's guests in a child process there, all frozen at one instant.

The child owns the guests, the freeze, its guard and its dead-man; this process says when, in the clock of
each host, and makes one record of the children's. docs/hosts.md has what is built of this and what is not.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from lab.core.clock import Interval
from lab.core.fleet_placement import placed_hosts, skew
from lab.core.history import Host, StopCalled
from lab.core.plan import Plan
from lab.core.quantities import format_between, format_interval
from lab.core.rollout import waves
from lab.core.units import NS_PER_MS
from lab.errors import FreezelabError, GuestError, Interrupted, MachineError, UsageError
from lab.hosts import cell_task
from lab.hosts.fleet_events import FleetEvents
from lab.hosts.fleet_host import FleetHost
from lab.hosts.hosts_file import HostsFile
from lab.hosts.link import AT_ONCE, NO_PROGRAM
from lab.hosts.parts import finished, packed, parts_folder, without_record
from lab.hosts.worker_hosts import WorkerHost, check_version, distinct
from lab.ports import View
from lab.process.clock import HostClock
from lab.process.signals import shield
from lab.record.journal import History, read_history
from lab.record.parts import FLEET, MACHINE
from lab.record.run import Run
from lab.session import paths
from lab.session.lab_host_run import check as check_can_be_sent
from lab.session.lab_host_run import check_folder
from lab.session.machine_report import identity
from lab.session.parallel import together
from lab.session.rendezvous import LACKS
from lab.session.run_folders import new_run_id
from lab.threads import Worker

LEAD_NS = 500 * NS_PER_MS
"""From the decision to the instant of the freeze: the order has to be there by then."""

AFTER_NS = 200 * NS_PER_MS
READ_S = 3.0
"""A host whose clock is not read within this is not frozen."""

PATIENCE_S = 30.0
"""So long it may take in a rollout, which it would stop: a link that was cut is slow to come back."""

BACK_S = 180.0
"""How long hosts that were cut off are waited for, for their records, at the end."""

STOP_S = 180.0
_LOOK_S = 0.02
Made = TypeVar("Made")
_AGAIN_S = 2.0


@dataclass(frozen=True)
class FleetOptions:
    """playbook: its file. words: options of `run` for each child. tags: the run's."""

    playbook: Path
    words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


def perform(plan: Plan, options: FleetOptions, file: HostsFile, view: View) -> tuple[Run, Path]:
    """Run it and judge the merged record. RunStopped with what there is of it after an interrupt.
    UsageError for a host that the file has not, FreezelabError for one that is not reached."""
    known = {entry.name: entry for entry in file.hosts}
    for name in placed_hosts(plan):
        if name not in known:
            hint = f"known: {', '.join(known)}"
            raise UsageError(f"it has no host {name}, which guests are on", where=file.path, hint=hint)
    check_can_be_sent(plan, "another host")
    check_folder(options.playbook.parent, "the hosts")
    run_id, clock = new_run_id(plan.name), HostClock()
    hosts = [FleetHost(known[name], f"{run_id}-{name}", clock) for name in placed_hosts(plan)]
    return FleetRun(plan, options, hosts, run_id, clock, view).run()


class FleetRun:
    """One run. events: its metadata service; None without announcements, or until all guests are there."""

    def __init__(
        self,
        plan: Plan,
        options: FleetOptions,
        hosts: Sequence[FleetHost],
        run_id: str,
        clock: HostClock,
        view: View,
    ) -> None:
        self._plan, self._options, self._hosts, self._id = plan, options, list(hosts), run_id
        self._clock, self._view, self._began = clock, view, clock.now()
        self._instants: dict[int, int] = {}
        everyone = [spec.name for spec in plan.guests]
        rollout = plan.rollout
        self._waves = [everyone] if rollout is None else [w.guests for w in waves(plan.guests, rollout)]
        self._machines, self._boots_anew = list[WorkerHost](), plan.cycle.method.boots_anew
        self._stack = ExitStack()
        self.events: FleetEvents | None = None

    def run(self) -> tuple[Run, Path]:
        """See perform()."""
        interrupted: Interrupted | None = None
        try:
            try:
                self._begin()
                self.cycles()
                self._until(lambda: all(host.over for host in self._hosts))
            except FreezelabError as error:
                with shield():
                    if self._machines:
                        self._view.note("ending the children on all hosts")
                    self._stop()
                if not isinstance(error, Interrupted) or not self._machines:
                    raise
                interrupted = error
            return self._judged(interrupted)
        finally:
            with shield(), self._stack:
                for host in self._hosts:
                    host.close()

    def _begin(self) -> None:
        """Start the children, and let them begin."""
        self._on_all(FleetHost.connect)
        folder, words = packed(self._options.playbook.parent), self._options.words
        self._on_all(lambda host: host.start(folder, self._options.playbook.name, words))
        self.admit()

    def _on_all(self, do: Callable[[FleetHost], Made]) -> list[Made]:
        """The result for each host, side by side."""
        return together(self._hosts, do, at_once=AT_ONCE)

    def admit(self) -> None:
        """Let the children begin. MachineError when their hosts cannot run the playbook together."""
        self._until(lambda: all(host.over or host.about for host in self._hosts))
        here = identity()
        for host in self._hosts:
            if not host.about:
                what = f"freezelab did not begin there: {host.last_line or f'exit status {host.status}'}"
                hint = NO_PROGRAM if "not found" in what else ""
                raise MachineError(what, where=f"host {host.name}", hint=hint)
            if lacks := host.about.get(LACKS):
                raise MachineError(f"it cannot run its guests: {lacks}", where=f"host {host.name}")
            for what in ("freezelab", "the record"):
                there = host.about.get(what, "")
                check_version(what, there, here[what], f"host {host.name}")
        self._machines = distinct(
            [WorkerHost(host.name, host.name, {"machine": host.about}) for host in self._hosts]
        )
        for host in self._hosts:
            host.go()

    def _until(self, over: Callable[[], bool]) -> None:
        while not over():
            time.sleep(_LOOK_S)

    def cycles(self) -> None:
        """All cycles: those without a freeze, and then those with one, or rollouts."""
        plan = self._plan
        if plan.cycle.announce is not None and plan.repeat:
            self._serve()
        for number in range(1, plan.control + plan.repeat * len(self._waves) + 1):
            goes_on = self._cycle(number)
            if plan.rollout is not None and number > plan.control:
                goes_on = self._wave_over(number)
            if not goes_on:
                break

    def _serve(self) -> None:
        """Start the metadata service, when all guests are there, and a listener on each host."""
        self._until(lambda: all(host.over or host.instances is not None for host in self._hosts))
        there = [host for host in self._hosts if not host.over]
        instances = [about for host in there for about in host.instances or ()]
        if not instances:
            return
        folder = paths.home() / "doors" / secrets.token_hex(3)
        events = FleetEvents(self._plan, instances, self._clock, self._view, folder)
        self.events = self._stack.enter_context(events)
        for host in there:
            host.serve(self.events.listener([about.guest for about in host.instances or ()]))

    def _cycle(self, number: int) -> bool:
        """One cycle on all hosts that are there, announced if the playbook says so. False when there is none
        to freeze."""
        if self.events is None or number <= self._plan.control:
            return self._freeze(number, frozen=number > self._plan.control)
        self._until(
            lambda: all(host.over or max(host.announced, host.done) >= number for host in self._hosts)
        )
        there = [host for host in self._hosts if not host.over and host.announced >= number]
        of = {about.guest: host for host in there for about in host.instances or ()}
        why = self._lost() if self._plan.rollout is not None else ""
        if not why and (silent := self.events.silent(list(of), lambda guest: of[guest].over)):
            why = f"the handler in guest {silent} has not asked for events"
        if why or not there:
            for host in there:
                host.call_off(why)
            return False
        wave = self._waves[(number - self._plan.control - 1) % len(self._waves)]
        guests = [guest for guest in of if guest in wave]
        announced = self.events.announce(number - 1, guests, lambda guest: of[guest].over)
        for host in there:
            (host.go if announced else host.cancelled)()
        frozen = self._freeze(number, frozen=announced)
        if announced:
            self._until(lambda: all(host.over or host.back >= number for host in there))
            self.events.over([host.name for host in there if host.cut])
        return frozen

    def _freeze(self, number: int, *, frozen: bool) -> bool:
        """Freeze all hosts that are there at one instant, when they are ready. False when none is. In a
        rollout some have nobody to freeze; and nobody is frozen when a host is lost. frozen: False for a
        cycle that has no freeze but all else."""
        self._until(lambda: all(host.over or max(host.ready, host.done) >= number for host in self._hosts))
        ready = [host for host in self._hosts if not host.over and host.ready >= number]
        rolls, until = self._plan.rollout is not None, time.monotonic() + PATIENCE_S
        read = self._read_clocks(ready)
        while rolls and len(read) < len(ready) and not self._lost() and time.monotonic() < until:
            time.sleep(_LOOK_S)
            read += self._read_clocks([host for host in ready if host not in read])
        if rolls and (why := self._lost()):
            for host in ready:
                host.call_off(why)
            return False
        for host in ready:
            if host not in read:
                self._view.note(f"{host.name}: its clock is not read, so it is not frozen")
                host.call_off("the host's clock was not read in time")
        if not read:
            return False
        instant = self._clock.now().raw_ns + LEAD_NS
        if frozen:
            self._instants[number - 1] = instant
        for host in read:
            host.freeze(instant)
        do = ("shut guests down" if self._boots_anew else "freeze") if frozen else "go on without a freeze"
        self._view.note(f"cycle {number}: {len(read)} of {len(self._hosts)} hosts {do} at one instant")
        self._clock.sleep_until(instant + AFTER_NS)
        self._read_clocks(read)
        return True

    def _wave_over(self, number: int) -> bool:
        """Wait until a wave is over on all hosts, and let all of them go on, or none. A host that is lost
        may have guests that are not back."""
        self._until(lambda: all(host.over or host.done >= number for host in self._hosts))
        why = self._lost() or next((f"{one.name}: {one.refused}" for one in self._hosts if one.refused), "")
        there = [host for host in self._hosts if not host.over]
        self._read_clocks(there)
        for host in there:
            if why:
                host.end_rollout(why)
            else:
                host.go()
        if why:
            self._view.note(f"the rollout stops: {why}")
        return not why

    def _lost(self) -> str:
        """Which host has gone in the middle, and why; "" when none has."""
        for host in self._hosts:
            if host.over:
                return f"{host.name}: {'cut off' if host.cut else 'its run has ended'}"
        return ""

    def _read_clocks(self, hosts: Sequence[FleetHost]) -> list[FleetHost]:
        """Measure the offsets. The hosts for which that came to an end in time."""
        done: list[FleetHost] = []

        def read(host: FleetHost) -> None:
            try:
                host.read_clock()
            except FreezelabError:
                return
            done.append(host)

        workers = [Worker(target=read, args=(host,), daemon=True) for host in hosts]
        for worker in workers:
            worker.start()
        until = time.monotonic() + READ_S
        for worker in workers:
            worker.join(max(0.0, until - time.monotonic()))
        return [host for host in hosts if host in done]

    def _stop(self) -> None:
        """End the children that run."""
        self._on_all(FleetHost.stop)
        until = time.monotonic() + STOP_S
        self._until(lambda: all(host.over for host in self._hosts) or time.monotonic() > until)

    def _judged(self, interrupted: Interrupted | None) -> tuple[Run, Path]:
        parts = parts_folder(self._id)
        found: dict[str, History | str] = {}
        hurry = threading.Event()
        if interrupted:
            hurry.set()
        try:
            together(self._hosts, lambda host: self._bring(host, parts, found, hurry), hurry.set, AT_ONCE)
        except Interrupted as error:
            interrupted = error
        with shield():
            histories = []
            for host in self._hosts:
                history = found.get(host.name, "it was not asked for its record")
                histories.append(
                    self._missing(host, parts / host.run, history) if isinstance(history, str) else history
                )
            stops = self._stops(histories)
            histories = [self._of_host(*each, stops) for each in zip(histories, self._hosts, strict=True)]
            own = self.events.ended() if self.events is not None else []
            span = self._began, self._clock.now()
            return finished(histories, self._plan, self._id, interrupted, span, own)

    def _bring(
        self, host: FleetHost, folder: Path, found: dict[str, History | str], hurry: threading.Event
    ) -> None:
        """Put the history that the host's child has made into `found`, or why there is none. A link that is
        cut is waited for, unless there is a hurry."""
        until = time.monotonic() + BACK_S
        if host.cut:
            wait = "" if hurry.is_set() else f"; waiting up to {BACK_S:.0f} s for its link, for the record"
            self._view.note(f"{host.name}: cut off; its guests are resumed by what is there{wait}")
        while True:
            try:
                with host.record(folder, end=hurry.is_set()) as archive:
                    if archive is not None:
                        cell_task.unpack(archive, folder)
                        archive.unlink()
                        found[host.name] = read_history(folder / host.run)
                        return
                until, why = time.monotonic() + BACK_S, "its run has not ended"
            except GuestError as error:
                host.cut, why = True, error.what
            except FreezelabError as error:
                found[host.name] = error.what
                return
            if hurry.is_set() or time.monotonic() > until:
                found[host.name] = why
                return
            hurry.wait(_AGAIN_S)

    def _missing(self, host: FleetHost, folder: Path, why: str) -> History:
        """A record of a host of which there is none."""
        self._view.note(f"{host.name}: no record: {why}")
        nobody = Host("", "", 0, details={MACHINE: f"of {host.name}"})
        told = f"cut off: {why}" if host.cut else why
        return without_record(folder, self._plan, [host.name], self._options.tags, nobody, told, failure=why)

    def _stops(self, histories: Sequence[History]) -> Mapping[str, list[dict[str, Any]]]:
        """When each host's guests were stopped, less the instant that was agreed on, for each cycle: bounds
        in this machine's MONOTONIC_RAW, which have those of the host's offset in them."""
        found: dict[str, list[dict[str, Any]]] = {host.name: [] for host in self._hosts}
        for number, instant in () if self._boots_anew else self._instants.items():  # a shutdown takes long
            bounds: dict[str, Interval] = {}
            for host, history in zip(self._hosts, histories, strict=True):
                calls = [stop.call for stop in history.of(StopCalled) if stop.cycle == number]
                ahead = host.ahead_ns(instant)
                if not calls or ahead is None:
                    continue
                first = min(call.called.raw_ns for call in calls)
                last = max(call.returned.raw_ns for call in calls)
                at = Interval(first - ahead.high_ns - instant, last - ahead.low_ns - instant)
                bounds[host.name] = at
                of = {"cycle": number, "low_ns": at.low_ns, "high_ns": at.high_ns}
                found[host.name].append({**of, "offset_bound_ns": ahead.half_width_ns})
            if len(bounds) > 1:
                self._view.note(f"cycle {number + 1}: {skew_words(bounds)}")
        return found

    def _of_host(
        self, history: History, host: FleetHost, stops: Mapping[str, list[dict[str, Any]]]
    ) -> History:
        """The history as a part of the run's, with its host's name and what is known of its stops."""
        start = history.start
        known = next(one for one in self._machines if one.name == host.name)
        details = {**start.host.details, **known.details, FLEET: host.in_fleet(stops[host.name])}
        named = replace(start, whole=self._plan, host=replace(start.host, details=details))
        first, *more = history.entries
        return replace(history, entries=(replace(first, event=named), *more))


def skew_words(bounds: Mapping[str, Interval]) -> str:
    """ "stopped within 0–3 ms of each other; after the instant: rack-1 +1.2 ± 0.3 ms, …"."""
    apart = skew(list(bounds.values()))
    each = ", ".join(f"{name} {format_interval(at, signed=True)}" for name, at in bounds.items())
    between = format_between(apart.low_ns, apart.high_ns)
    return f"stopped within {between} of each other; after the instant: {each}"
