"""live-migrate: the guest moves to a second QEMU process on this host, and its RAM goes through the stream.

    prepare   a successor with empty RAM of its own is started paused, waiting for the stream
    stop      pre-copy: RAM is sent while the guest runs, in passes, until what it has dirtied since can be
              sent within the allowed downtime. QEMU then stops it and sends the rest and the devices' state.
              When nothing is to be done in the pause, the successor runs before this step ends: others may
              be migrated after this guest
    resume    the successor runs; the predecessor is killed
    finish    waits for that

With post-copy, QEMU stops the guest after some time, whatever it has dirtied, and sends the devices' state.
The successor runs, and what the guest touches comes from the predecessor, which ends when it has sent all.
From the order to switch over no other process may decide any more: the controller takes the token before it.
If the successor ends while it loads the devices' state, QEMU 10.2 and later take the guest back.

Which process may run is decided as in in_place.py. A migration that does not converge in the budget is
cancelled while the guest runs: it was never stopped then, and stays where it was.

The source completes the migration only when the successor has read all of the stream (return-path), so the
downtime that QEMU reports ends when the successor could run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

from lab.core.clock import Stamp
from lab.core.clocksource import STATE_OUT
from lab.core.migration import MigrationReport, MigrationSpec
from lab.core.units import NS_PER_MS, NS_PER_S, NS_PER_US
from lab.core.witnesses import event_in
from lab.errors import HypervisorError, Refused
from lab.hypervisor import migration
from lab.hypervisor.deadman.rescue import REST_S, Migration
from lab.hypervisor.domain import DomainSpec
from lab.hypervisor.freeze.in_place import STATE_NS, At, Exchange
from lab.hypervisor.migration_log import MigrationLog, shortfall
from lab.hypervisor.qmp import MonitorError, QemuEvent
from lab.hypervisor.run_state import OrderSteps
from lab.hypervisor.successor import RUN_S, asker
from lab.ports import Call, Frozen, Resumed

_EVENT = "MIGRATION_PASS"
"""QEMU sends it when it has looked which pages are dirty. It does so last when it has found that they are few
enough, just before it stops the guest, and once more with the guest stopped (migration/ram.c,
migration_bitmap_sync)."""

_BOTH = 11
"""The first major version of QEMU with which multifd and post-copy were seen to work together."""

_REPORT_S = 2.0
_LOOK_NS = 10 * NS_PER_MS


class LiveMigrate(Exchange):
    """One live migration of one guest."""

    _log: MigrationLog | None = None
    _report: MigrationReport | None = None
    _rescue = Migration
    _moved: Stamp | None = None  # when the order to switch to post-copy was given
    _stood: Stamp | None = None  # since when it is known that the guest was never stopped

    @property
    def _settings(self) -> MigrationSpec:
        return self._freezing.migration

    # -- before --------------------------------------------------------------------------------------

    def _plan(self) -> DomainSpec:
        return super()._plan().with_memory_in_stream()

    def _offer(self, ask: migration.Ask) -> None:
        settings = self._settings
        if settings.multifd and settings.post_copy_ns is not None:
            version = ask("query-version")["qemu"]
            if version["major"] < _BOTH:
                raise self._refused(f"QEMU {version['major']}.{version['minor']} has it without multifd only")
        try:
            switch_on(ask, settings)
        except HypervisorError as error:
            if settings.post_copy_ns is None:
                raise
            raise self._refused(error.what) from error
        parameters = {
            "downtime-limit": settings.max_downtime_ns // NS_PER_MS,
            "max-bandwidth": settings.bandwidth,
        }
        if settings.multifd:
            parameters["multifd-channels"] = settings.multifd
        ask("migrate-set-parameters", **parameters)

    def _refused(self, why: str) -> Refused:
        hint = "userfaultfd(2) is for root, or for all with: sysctl vm.unprivileged_userfaultfd=1"
        if self._settings.multifd:
            hint = "leave out multifd or post_copy"
        return Refused(f"post-copy is not possible: {why}", where=self._guest, hint=hint)

    # -- the freeze ----------------------------------------------------------------------------------

    def begin_stop(self) -> OrderSteps:
        return ()  # guests go one after another: each would wait, stopped, for those before it

    def stop(self, deadline_raw_ns: int) -> Frozen:
        """See Exchange.stop. The guest may run in its successor already when this returns."""
        frozen = super().stop(deadline_raw_ns)
        if frozen.back is None and self._freezing.at_once:
            frozen = replace(frozen, resumed=self.resume())
        return replace(frozen, migration=lambda: self._report)

    def _stop(self) -> Call:
        """Send the RAM of the running guest, until QEMU stops it. HypervisorError when that is not in
        time."""
        self._context.on_step(self._guest, "pre-copy")
        self._log = MigrationLog(self._old, self._settings, self._context.clock)
        self._send_state()
        called = self._called or self._context.clock.now()
        self._wait(self._old, "STOP", called.real_ns, self._deadline)
        return self._narrowed(Call(called, self._context.clock.now()))

    def _narrowed(self, call: Call) -> Call:
        """The call that ended with QEMU's stop, from the last time at which the guest had certainly not been
        stopped yet."""
        stop = self._old.event("STOP", call.called.real_ns)
        if stop is not None and self._moved is not None and self._moved.real_ns <= stop.real_ns:
            call = replace(call, called=self._moved)
        return narrowed(call, self._old.event)

    @property
    def _longest_ns(self) -> int:
        return STATE_NS + 4 * self._settings.max_downtime_ns

    def _look_on(self) -> None:
        if self._log is None or self._at is not At.LEAVING:
            return
        self._log.look()
        after_ns = self._settings.post_copy_ns
        if after_ns is not None and self._moved is None and self._log.age_ns >= after_ns:
            self._move()

    def _move(self) -> None:
        """Order the switch to post-copy."""
        if not self._token.take():
            raise HypervisorError("the dead-man has resumed it in the old process", where=self._guest)
        self._moved = self._context.clock.now()
        self._context.on_step(self._guest, "post-copy")
        try:
            self._old.send("migrate-start-postcopy")
        except MonitorError as error:
            raise HypervisorError(str(error), where=self._guest) from error

    def _hand_over(self, deadline_raw_ns: int) -> None:
        if self._moved is None:
            return super()._hand_over(deadline_raw_ns)
        # No event says that the successor has the devices' state.
        with self._steps.step(STATE_OUT):
            while self._new.ask("query-status")["status"] == "inmigrate":
                self._wait_a_moment(deadline_raw_ns)
        self._taken_in = True
        return None

    def _wait_a_moment(self, deadline_raw_ns: int) -> None:
        since = self._called.real_ns if self._called is not None else 0
        if self._new.process is not None and not self._new.process.alive:
            raise HypervisorError(f"the successor died{self._new.last_words()}", where=self._guest)
        if self._old.event("MIGRATION failed", since):
            raise HypervisorError(f"the state was refused{self._new.last_words()}", where=self._guest)
        if not self._context.left_s(deadline_raw_ns):
            raise HypervisorError(self._too_late("postcopy-active"), where=self._guest)
        self._context.clock.sleep_until(self._context.clock.now().raw_ns + NS_PER_MS // 2)

    def _too_late(self, kind: str) -> str:
        if kind != "STOP" or self._log is None:
            return super()._too_late(kind)
        return f"it did not converge: {shortfall(self._log.last, self._log.age_ns / NS_PER_S)}"

    # -- back ------------------------------------------------------------------------------------------

    def _stop_in_place(self) -> Call:
        """The stop of a guest whose migration has failed before it was known to be stopped: an instant, when
        it was not."""
        self._new.kill()
        migration.settle(asker(self._old, self._guest), self._guest, self._context.clock, RUN_S)
        now = self._context.clock.now()
        if self._called is not None and self._old.event("STOP", self._called.real_ns) is not None:
            return self._narrowed(Call(self._called, now))
        self._stood = now
        return Call(now, now)

    def _go_back(self, why: str) -> Resumed:
        if self._moved is not None and self._is_lost():
            raise HypervisorError(
                f"the guest is lost: post-copy had begun, from which no process can go back: {why}",
                where=self._guest,
            )
        back = super()._go_back(why)
        if self._stood is not None:
            back = replace(
                back, call=Call(self._stood, self._stood), why=f"not moved, and not stopped: {why}"
            )
            self._done = back
        self._report = self._reported()
        return back

    def _is_lost(self) -> bool:
        """Whether post-copy is past the point of no return."""
        status = self._status()
        if status != migration.LOADING:
            return migration.is_post_copy(status)
        self._new.kill()
        return not migration.was_taken_back(self._status, RUN_S)

    # -- afterwards --------------------------------------------------------------------------------------

    def _status(self) -> str:
        """QEMU's status of the migration."""
        return str(asker(self._old, self._guest)("query-migrate").get("status", "none"))

    def _over(self) -> None:
        if self._moved is None:
            self._report = self._reported()
        super()._over()

    def _reported(self) -> MigrationReport | None:
        return self._log.report(_REPORT_S) if self._log is not None else None

    def _await_end(self) -> None:
        """Wait for the rest of the memory, which the guest needs its old process for."""
        if self._moved is None or self._log is None:
            return
        context, clock = self._context, self._context.clock
        control = context.open_control(self._new.old, self._old_domain, self._guest)
        try:
            self._log.ask_through(control)
            end = clock.now().raw_ns + round(REST_S * NS_PER_S)
            while (last := self._log.last) is None or not migration.is_over(last.status):
                if clock.now().raw_ns > end:
                    raise HypervisorError(
                        f"post-copy has not ended within {REST_S:.0f} s: its old process is left alone",
                        where=self._guest,
                    )
                self._log.look()
                clock.sleep_until(clock.now().raw_ns + _LOOK_NS)
            self._report = self._reported()
        finally:
            control.close()

    def finish(self) -> None:
        if self._at is not At.COMMITTED and self._log is not None:
            with contextlib.suppress(HypervisorError):  # as it was, for other methods
                switch_on(asker(self._old, self._guest), None)
        super().finish()


def narrowed(call: Call, event: Callable[[str, int], QemuEvent | None]) -> Call:
    """A call that ended with QEMU's stop, from the last time at which the guest had certainly not been
    stopped yet. event: see QemuControl.event."""
    stop = event("STOP", call.called.real_ns)
    if stop is None:
        return call
    call = replace(call, event_real_ns=stop.real_ns)
    last: QemuEvent | None = None
    since = call.called.real_ns
    while (one := event(_EVENT, since)) is not None and one.real_ns <= stop.real_ns:
        last, since = one, one.real_ns + 2 * NS_PER_US
    began = event_in(replace(call, event_real_ns=last.real_ns)) if last is not None else None
    if last is None or began is None:
        return call
    return replace(call, called=Stamp(began.low_ns, last.real_ns))


def switch_on(ask: migration.Ask, settings: MigrationSpec | None) -> None:
    """Set the capabilities of a live migration in one of its processes, and none that it does not have.
    settings: None: no capability but `events`."""
    on = {
        "events": True,
        "return-path": settings is not None,
        "x-ignore-shared": False,
        "multifd": settings is not None and settings.multifd > 0,
        "auto-converge": settings is not None and settings.auto_converge,
        "postcopy-ram": settings is not None and settings.post_copy_ns is not None,
    }
    capabilities = [{"capability": name, "state": state} for name, state in on.items()]
    ask("migrate-set-capabilities", capabilities=capabilities)
