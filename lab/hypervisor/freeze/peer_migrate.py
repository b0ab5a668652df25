"""live-migrate of a domain of the user's own: libvirt takes it to another daemon (peer.py), and back.

    prepare   the other daemon is connected to
    stop      libvirt migrates the domain, which runs there when this step ends
    finish    after the watch, libvirt migrates it back

A migration that does not converge in the budget is aborted, and the domain stays where it was. libvirt stops
and resumes the guest; QEMU's events say when. Those of a host other than this one are left out, because its
clock is another.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from typing import Any

from lab.core.clock import Stamp
from lab.core.migration import MigrationReport
from lab.core.units import NS_PER_S
from lab.core.witnesses import event_in
from lab.errors import HypervisorError, Refused
from lab.hypervisor import peer
from lab.hypervisor.binding import libvirt, mapped
from lab.hypervisor.context import LibvirtContext
from lab.hypervisor.deadman.client import Charge
from lab.hypervisor.deadman.peer import AbortMigration
from lab.hypervisor.freeze.base import OneByOne, charge
from lab.hypervisor.freeze.live_migrate import narrowed
from lab.hypervisor.migration_log import MigrationLog, shortfall
from lab.hypervisor.process import QemuProcess, Running
from lab.ports import Call, Freezing, Frozen, Resumed

_LOOK_S = 0.02
_RAN_S = 0.001
_REPORT_S = 2.0
_EVENT_S = 0.5
"""How long to wait for QEMU's stamps, which libvirt passes on."""


class PeerMigrate(OneByOne):
    """One migration of one domain, there and back."""

    monitor_ok = True
    is_stopped = False

    def __init__(self, context: LibvirtContext, guest: str, freezing: Freezing) -> None:
        self._context, self._guest, self._freezing = context, guest, freezing
        self._lock = threading.RLock()  # the guard may end it from another thread
        self._there: Any = None
        self._moving: peer.PeerMigration | None = None
        self._called: Stamp | None = None
        self._aborted = self._late = False
        self._deadline = 0
        self._ran: Stamp | None = None  # when the guest had certainly been resumed
        self._downtime: int | None = None
        self._log: MigrationLog | None = None
        self._report: MigrationReport | None = None
        self._result: Frozen | None = None

    @property
    def settled(self) -> bool:
        return self._moving is None or self._result is not None

    @property
    def _where(self) -> str:
        return self._context.own[self._guest].where

    def prepare(self) -> None:
        context = self._context
        if context.root is not None:
            raise Refused("no daemon has it that could migrate it", where=self._where)
        domain, uuid = context.domain(self._guest)
        self._domain, self._uuid, self._target = domain, uuid, context.targets[self._guest]
        self._there = peer.opened(self._target.uri)
        try:
            if peer.active_on(self._there, uuid) is not None:
                raise Refused(
                    f"{self._target.uri} has this domain as well, and it is active",
                    where=self._where,
                    hint="write another daemon than that of --connect in migrate_to",
                )
            context.events.is_at(uuid, context.connection)
            with mapped("libvirt's events cannot be subscribed to", self._target.uri):
                context.events.register(self._there)
        except BaseException:
            self._close()
            raise

    # -- the freeze ------------------------------------------------------------------------------

    def stop(self, deadline_raw_ns: int) -> Frozen:
        """See ports.Hypervisor.freeze. The guest runs in the other daemon when this returns."""
        context, settings = self._context, self._freezing.migration
        with mapped("cannot be migrated", self._where):
            self._downtime = peer.set_downtime(self._domain, settings)
        self._called, self._deadline = context.clock.now(), deadline_raw_ns
        self._log = log = MigrationLog(peer.JobStatistics(self._domain), settings, context.clock)
        with self._lock:
            context.events.migrates(self._uuid, now=True)
            self._moving = moving = peer.PeerMigration(
                self._domain, self._target.uri, unsafe=self._target.unsafe, settings=settings
            )
            moving.begin()
        while not moving.over and context.left_s(deadline_raw_ns):
            log.look()
            if self._ran is not None or not context.events.stamps_available:
                moving.wait(_LOOK_S)
            elif context.events.wait_qemu(self._uuid, "RESUME", self._called.real_ns, _LOOK_S) is not None:
                self._ran = self._when_it_ran(moving)
        frozen = self._conclude()
        error = moving.failure(self._where)
        if error is not None and not self._aborted and frozen.back == frozen.call:
            raise error  # libvirt has refused it
        return replace(frozen, migration=lambda: self._report)

    def _when_it_ran(self, moving: peer.PeerMigration) -> Stamp:
        """Wait until a vCPU of the new process uses CPU time, after QEMU's event that it begins to run, or
        until the migration has ended."""
        clock, old = self._context.clock, self._context.known_process(self._guest)
        with contextlib.suppress(HypervisorError):  # it is on another host
            but = old.pid if old is not None else 0
            with QemuProcess.find(self._uuid, self._where, but) as process:
                running = Running(process)
                while not moving.wait(_RAN_S) and not running.so_far_ns():
                    pass
                return clock.now()
        moving.wait(_LOOK_S)
        return clock.now()

    def resume(self) -> Resumed:
        frozen = self._conclude()
        if frozen.resumed is not None:
            return frozen.resumed
        return Resumed(frozen.back or frozen.call, why=frozen.why)

    def _conclude(self) -> Frozen:
        """End the migration if it goes on, and find out where the guest runs."""
        with self._lock:
            if self._result is not None:
                return self._result
            moving, now = self._moving, self._context.clock.now()
            if moving is None or self._called is None:
                return Frozen(Call(now, now), back=Call(now, now), why="it was not migrated")
            self._aborted = not moving.over
            self._late = not self._context.left_s(self._deadline)
            if not moving.abort():
                raise HypervisorError("its migration does not end", where=self._where)
            over = self._context.clock.now()
            domain = peer.put_right(self._context.connection, self._there, self._uuid, self._where)
            if domain is not None:
                self._has_moved(domain)
            self._context.events.migrates(self._uuid, now=False)
            self._result = self._frozen(self._called, over)
            if self._log is not None:
                self._log.ask_through(peer.JobStatistics(domain or self._domain))
                self._report = self._log.report(_REPORT_S)
            return self._result

    def _has_moved(self, domain: Any) -> None:
        self._is_at(self._there, domain)
        self._context.away[self._guest] = self._target.uri

    def _frozen(self, called: Stamp, over: Stamp) -> Frozen:
        """The stop and the resume, from QEMU's events. An instant, when the guest was not stopped."""
        context, moved = self._context, self._guest in self._context.away
        events, uuid = context.events, self._uuid
        known = not moved or self._is_here()
        stop = narrowed(Call(called, over), lambda kind, since: events.qemu_since(uuid, kind, since))
        if stop.event_real_ns is None and not moved:
            return Frozen(Call(over, over), back=Call(over, over), why=f"not migrated: {self._why()}")
        since = stop.event_real_ns or called.real_ns
        resume = Call(called, self._ran if moved and known and self._ran is not None else over)
        if known:
            resume = replace(resume, event_real_ns=events.wait_qemu(uuid, "RESUME", since, _EVENT_S))
        # The call was one, from before the stop until after the resume. QEMU emits STOP after the one, and
        # RESUME before the other.
        stopped, resumed = event_in(stop), event_in(resume)
        if stopped is not None:
            stop = replace(stop, returned=Stamp(stopped.high_ns, since))
            resume = replace(resume, called=stop.returned)
        if resumed is not None and resume.event_real_ns is not None:
            resume = replace(resume, called=Stamp(resumed.low_ns, resume.event_real_ns))
        if moved:
            return Frozen(stop, resumed=Resumed(resume, cut=context.has_user_network(self._guest)))
        return Frozen(stop, back=resume, why=f"not migrated: {self._why()}")

    def _is_here(self) -> bool:
        """Whether the guest's process is on this host."""
        with contextlib.suppress(HypervisorError):
            return self._context.process(self._guest).alive
        return False

    def _why(self) -> str:
        if self._aborted and not self._late:
            return "it was called off"
        if self._aborted and self._log is not None:
            return f"it did not converge: {shortfall(self._log.last, self._log.age_ns / NS_PER_S)}"
        error = self._moving.failure(self._where) if self._moving is not None else None
        return error.what if error is not None else "it is where it was"

    # -- afterwards --------------------------------------------------------------------------------

    def finish(self) -> None:
        if self._there is None:
            return
        try:
            if self._guest in self._context.away:
                self._take_back()
            elif self._downtime is not None:
                with contextlib.suppress(libvirt.libvirtError):
                    self._domain.migrateSetMaxDowntime(self._downtime, 0)
        finally:
            self._close()

    def _take_back(self) -> None:
        context, guest, uuid = self._context, self._guest, self._uuid
        with contextlib.suppress(HypervisorError):  # the way back says what is wrong
            if peer.active_on(self._there, uuid) is None:
                self._is_back(self._domain)  # somebody has ended it there
                return
        context.moving.add(guest)
        context.events.migrates(uuid, now=True)
        try:
            domain = context.domain(guest)[0]
            peer.take_back(
                domain, context.connection, context.uri, unsafe=self._target.unsafe, where=self._where
            )
        except HypervisorError as error:
            hint = f"to try again: {context.recover_command}"
            raise HypervisorError(
                f"is not back from {self._target.uri}: {error.what}", where=self._where, hint=hint
            ) from error
        finally:
            with contextlib.suppress(HypervisorError):  # no daemon answers, and that has been said
                back = peer.put_right(self._there, context.connection, uuid, self._where)
                if back is not None:
                    self._is_back(back)
            context.events.migrates(uuid, now=False)
            context.moving.discard(guest)

    def _is_back(self, domain: Any) -> None:
        self._is_at(self._context.connection, domain)
        self._context.away.pop(self._guest, None)

    def _is_at(self, connection: Any, domain: Any) -> None:
        self._context.events.is_at(self._uuid, connection)
        self._context.domains.now(self._guest, domain)
        self._context.forget(self._guest)

    def _close(self) -> None:
        there, self._there = self._there, None
        if there is not None:
            self._context.events.unregister(there)
            with contextlib.suppress(libvirt.libvirtError):
                there.close()

    def abandon(self) -> None:
        self.finish()

    def charge(self) -> Charge | None:
        return charge(AbortMigration, self._context, self._guest, to=self._target.uri)
