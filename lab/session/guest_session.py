"""Guests that are started once, and frozen by hand as often as wanted. Each freeze is a run with a record.

    with GuestSession(plan, home, view, progress) as session:
        with session.freeze(["db-0"], plan.cycle, 10 * NS_PER_S, "reconnect") as frozen:
            ...                      # the guest is frozen
        ...                          # it runs again, and its clock is watched
        run, folder = frozen.judged()

A freeze is a cycle of the controller, in a thread of its own, so that its caller is free meanwhile.
"""

from __future__ import annotations

import secrets
import shlex
import shutil
import threading
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType

from lab.controller import Controller, CycleGuest
from lab.controller.event_lifecycle import Stage
from lab.core.clock import Stamp
from lab.core.history import SCHEMA, GuestBooted, HistoryEvent, Host, RunEnded, RunStarted
from lab.core.patch import HoldPatch
from lab.core.plan import CycleSpec, Plan
from lab.core.units import NS_PER_S
from lab.errors import FreezelabError, GuestError, HypervisorError, Interrupted, UsageError
from lab.guest.address import Address
from lab.guest.ssh import SSH
from lab.host import facts as host_facts
from lab.host.patches import Hold
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.connection import connect
from lab.hypervisor.qmp import forward_port
from lab.image.build import Progress
from lab.ports import Clock, PatchResult, View
from lab.process.clock import HostClock
from lab.process.pace import PACE
from lab.record.index import index_of, judged
from lab.record.journal import FileJournal
from lab.record.run import Run, write
from lab.session import paths
from lab.session.calibration import for_record
from lab.session.guest_host import prepare_host
from lab.session.guests import Guests
from lab.session.images import images_for
from lab.session.kept_guest_start import check_login, leave_running
from lab.session.kept_guests import KeptGuest, read_all
from lab.session.recovery import left_by_killed
from lab.session.run_folders import new_run_folder
from lab.session.settings import Settings, free_port
from lab.session.setup_sources import read_secrets
from lab.threads import Worker

START_S = 120.0
"""The longest time until a guest is frozen, beside the cycle's own times: preparing a successor takes seconds
on a very busy host."""

SLICE_NS = NS_PER_S // 4
"""The longest time until a wait of an interrupted cycle ends."""

END_S = 30.0
"""The longest time from the end of the budget until the guests run."""


class _Boots:
    """ports.Journal that keeps how guests were started, for the records of all their freezes."""

    def __init__(self) -> None:
        self.events: list[GuestBooted] = []

    def append(self, event: HistoryEvent) -> None:
        if isinstance(event, GuestBooted):
            self.events.append(event)


class GuestSession:
    """The guests of a plan, which are removed when this context is left. home: the state folder of the
    guests; the runs are in the user's own. kept: leave_running() may be called."""

    def __init__(
        self,
        plan: Plan,
        home: Path,
        view: View,
        progress: Progress,
        *,
        kept: bool = False,
    ) -> None:
        self._plan, self._home, self._view, self._progress = plan, home, view, progress
        self._kept = kept
        self._clock = HostClock()
        self._stack = ExitStack()
        self._boots = _Boots()
        self._hypervisor: LibvirtHypervisor
        self._guests: Guests
        self._settings: Settings
        self._host: Host
        self._subjects: dict[str, CycleGuest] = {}
        self._forwards: dict[tuple[str, int], int] = {}
        self._present: FreezeByHand | None = None

    def __enter__(self) -> GuestSession:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(value, KeyboardInterrupt):
                self.call_off()
            if self._present is not None:
                self._present.close()
        finally:
            self._stack.__exit__(kind, value, trace)

    def call_off(self) -> None:
        """End the present freeze and its watch, if there is one; see FreezeByHand.call_off()."""
        if self._present is not None:
            self._present.call_off()

    def _start(self) -> None:
        plan, home = self._plan, self._home
        kept = {guest.name for guest in read_all(home)}
        if self._kept and (there := next((spec.name for spec in plan.guests if spec.name in kept), "")):
            hint = f"FREEZELAB_HOME={shlex.quote(str(home))} freezelab down {there}"
            raise UsageError("there is a kept guest of this name already", where=there, hint=hint)
        secret_values = read_secrets(plan)
        images = images_for(plan, self._progress)
        check_login(images.values())  # a session's guests are logged in to, kept or not
        opened = connect(None, home, clock=self._clock, ends=left_by_killed(home))
        self._hypervisor = hypervisor = self._stack.enter_context(opened)
        host = prepare_host(hypervisor, plan, images, home, self._view)
        self._host = host.facts()
        run = f"session-{secrets.token_hex(3)}"
        folder = paths.made(home / "guests" / run, private=True)  # with their disks: `down` removes it
        if not self._kept:
            self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        method = plan.cycle.method
        self._settings = settings = replace(
            host.settings(run, folder),
            shared_memory=method.traits.shares_memory,
            guest_sleep=method.sleeps,
            golden=plan.golden,
            network=plan.network,
            kept_guest=self._kept,
            secrets=secret_values,
        )
        self._guests = self._stack.enter_context(
            Guests(hypervisor, settings, self._clock, self._view, self._boots)
        )
        self._subjects = self._guests.up(plan.parts[0])

    def leave_running(self) -> list[KeptGuest]:
        """Leave the guests running when this context is left."""
        if self._present is not None:
            self._present.close()
        return leave_running(self._settings, self._hypervisor, self._guests, self._plan.parts[0])

    @property
    def plan(self) -> Plan:
        """The plan whose guests these are."""
        return self._plan

    @property
    def names(self) -> tuple[str, ...]:
        """The guests' names."""
        return tuple(self._subjects)

    def address(self, guest: str) -> Address:
        """Where its SSH answers. UsageError for an unknown guest."""
        self._known([guest])
        return self._guests.address(guest)

    def ssh(self, guest: str) -> SSH:
        """The connection to it, as root. UsageError for an unknown guest."""
        self._known([guest])
        return self._guests.probes[guest].ssh

    def endpoint(self, guest: str, port: int) -> tuple[str, int]:
        """Where a TCP port of the guest is reached from this host: its address on a bridge, or else a port on
        127.0.0.1 that its QEMU process forwards. UsageError for an unknown guest, HypervisorError when QEMU
        refuses. An in-place exchange ends the forwarding: ask again after it."""
        self._known([guest])
        spec = next(spec for spec in self._plan.guests if spec.name == guest)
        if spec.bridge:
            return spec.address.partition("/")[0], port
        if (guest, port) not in self._forwards:
            host_port = free_port()
            why = forward_port(
                lambda command, **words: self._hypervisor.qmp(guest, command, **words), host_port, port
            )
            if why:
                raise HypervisorError(f"port {port} cannot be forwarded: {why}", where=f"guest {guest}")
            self._forwards[guest, port] = host_port
        return "127.0.0.1", self._forwards[guest, port]

    def freeze(self, guests: Sequence[str], cycle: CycleSpec, length_ns: int, name: str) -> FreezeByHand:
        """A freeze of these guests for at most `length_ns`, in place of the cycle's patch. name: of the run.
        UsageError for unknown guests, or when the last freeze has not ended yet."""
        self._known(guests)
        if self._present is not None:
            if self._present.is_on:
                raise UsageError("guests are frozen already", hint="leave the first freeze before the second")
            self._present.close()
        hold = HoldPatch(length_ns)
        plan = replace(
            self._plan,
            name=name,
            guests=tuple(spec for spec in self._plan.guests if spec.name in guests),
            cycle=replace(cycle, patch=hold),
            cells=(),
            repeat=1,
            control=0,
            rollout=None,
        )
        self._present = FreezeByHand(self, plan, hold)
        return self._present

    def _known(self, guests: Sequence[str]) -> None:
        if unknown := [name for name in guests if name not in self._subjects]:
            raise UsageError(f"there is no guest {unknown[0]!r}", hint=f"known: {', '.join(self._subjects)}")

    def perform(
        self, plan: Plan, patch: HoldUntil, clock: Clock, folder: Path, run_id: str, stage: Stage
    ) -> None:
        """One cycle of the plan's guests, recorded in `folder`. clock: its waits may raise Interrupted.
        FreezelabError when it fails."""
        guests = {spec.name: self._subjects[spec.name] for spec in plan.guests}
        with FileJournal(folder, self._clock) as journal:
            self._hypervisor.dead_man.history = journal.path
            journal.append(RunStarted(SCHEMA, run_id, plan, self._host, for_record(self._home, self._host)))
            for boot in self._boots.events:
                if boot.guest in guests:
                    journal.append(boot)
            failure, interrupted = "", False
            try:
                # Signals are raised in the main thread only, so nothing has to be held back here.
                controller = Controller(
                    clock, self._hypervisor, journal, self._view, nullcontext, pace=PACE.factor
                )
                controller.run_cycle(0, guests, plan.cycle, patch, frozen=True, stage=stage)
            except BaseException as error:
                failure = str(error) or type(error).__name__
                interrupted = isinstance(error, Interrupted)
                raise
            finally:
                if not plan.cycle.method.keeps_process:
                    self._forwards.clear()
                facts = asdict(host_facts.look())
                journal.append(RunEnded(interrupted, failure, host=facts))


class InterruptibleClock:
    """The host's clocks. interrupt() ends the waits: the present one and all later ones raise Interrupted."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._interrupted = clock, threading.Event()

    def interrupt(self) -> None:
        self._interrupted.set()

    def now(self) -> Stamp:
        return self._clock.now()

    def sleep_until(self, raw_ns: int) -> None:
        """See ports.Clock. An interrupt ends it within SLICE_NS."""
        while True:
            if self._interrupted.is_set():
                raise Interrupted("called off")
            if raw_ns <= (now := self._clock.now().raw_ns):
                return
            self._clock.sleep_until(min(raw_ns, now + SLICE_NS))


class HoldUntil(Hold):
    """A hold that ends early when `enough` is set. begun: it has begun, so the guests are stopped."""

    def __init__(self, spec: HoldPatch, clock: Clock) -> None:
        super().__init__(spec, clock)
        self.begun, self.enough = threading.Event(), threading.Event()

    def apply(self, deadline_raw_ns: int) -> PatchResult:
        self.begun.set()
        return super().apply(deadline_raw_ns)

    def _wait(self, until_raw_ns: int) -> bool:
        while not self.enough.is_set() and (left := until_raw_ns - self._clock.now().raw_ns) > 0:
            self.enough.wait(left / NS_PER_S)
        return self.enough.is_set()


class FreezeByHand:
    """One freeze: a context in which the guests are frozen. Leaving it waits until the hold is over and the
    guests run; when the block fails they are resumed at once."""

    def __init__(self, session: GuestSession, plan: Plan, hold: HoldPatch) -> None:
        self._session, self._plan = session, plan
        clock = HostClock()
        self._clock = InterruptibleClock(clock)
        self._patch = HoldUntil(hold, clock)
        self._run_id, self.folder = new_run_folder(paths.home(), plan.name)
        self._resumed = threading.Event()
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._thread = Worker(target=self._perform, name=f"freeze-{plan.name}", daemon=True)
        self._begun = False

    def _perform(self) -> None:
        def stage(name: str) -> None:
            if name == "resyncing":
                self._resumed.set()

        try:
            self._session.perform(self._plan, self._patch, self._clock, self.folder, self._run_id, stage)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever waits
            self._error = error
        finally:
            for event in (self._ended, self._resumed, self._patch.begun):
                event.set()

    @property
    def is_on(self) -> bool:
        """Whether its guests are frozen, or about to be."""
        return self._begun and not self._resumed.is_set()

    def __enter__(self) -> FreezeByHand:
        cycle = self._plan.cycle
        self._begun = True
        self._thread.start()
        try:
            wait_s = START_S + (cycle.settle_ns + cycle.before_ns + cycle.budget_ns) / NS_PER_S
            there = self._patch.begun.wait(wait_s)
        except BaseException:
            self.call_off()
            self._until_resumed()
            raise
        if self._ended.is_set() or not there:
            self.resume()
            self._raise()
            raise HypervisorError(
                "the guests were not frozen", where=", ".join(spec.name for spec in self._plan.guests)
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._patch.enough.set()
        self._until_resumed()

    def resume(self) -> None:
        """End the hold now, and wait until the guests run."""
        self._patch.enough.set()
        self._until_resumed()

    def call_off(self) -> None:
        """Resume the guests now, or do not freeze them, and do not watch them any longer: nothing is judged.
        Returns at once; close() waits."""
        self._clock.interrupt()
        self._patch.enough.set()

    def _until_resumed(self) -> None:
        budget_s = self._plan.cycle.budget_ns / NS_PER_S
        if not self._resumed.wait(budget_s + END_S):
            raise HypervisorError("the guests were not resumed in time", hint="freezelab recover --keep")

    def judged(self) -> tuple[Run, Path]:
        """Wait for the end of the watch. The judged run and its folder; its run.json is written.
        FreezelabError when the cycle failed in a way that leaves nothing to judge."""
        self.close()
        self._raise()
        run = judged(self.folder, index_of(paths.home()))
        write(run, self.folder)
        return run, self.folder

    def close(self) -> None:
        """End the hold, and wait for the end of the cycle."""
        if self._begun:
            self._patch.enough.set()
            self._thread.join()

    def _raise(self) -> None:
        if isinstance(self._error, FreezelabError):
            raise self._error
        if self._error is not None:
            raise GuestError(f"the freeze failed: {type(self._error).__name__}: {self._error}")
