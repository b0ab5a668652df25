"""snapshot: what a backup does. The guest's agent freezes its file systems, an external snapshot of the disks
is taken, and the agent thaws. The guest runs on; what writes stands still.

With state (snapshot-state), the guest is suspended meanwhile and its RAM is saved as well.

The overlays are written back into the disks and removed after the watch. A thaw that the agent does not give
is given from inside the guest, where a program can be reached (LibvirtContext.thaws).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from lab.core.file_stall import FREEZE_FILES, THAW_FILES
from lab.core.units import NS_PER_S, format_size
from lab.errors import AgentError, FreezelabError, HypervisorError, MachineError, Refused
from lab.hypervisor import agent, overlays
from lab.hypervisor.binding import libvirt, mapped
from lab.hypervisor.context import LibvirtContext, Steps
from lab.hypervisor.deadman.client import Charge
from lab.hypervisor.deadman.thaw import ThawFiles
from lab.hypervisor.freeze.base import OneByOne, charge
from lab.hypervisor.run_state import ResumeOrder, StopOrder
from lab.ports import Call, Freezing, Frozen, Resumed
from lab.process.pace import paced
from lab.threads import Worker

_AGENT_NS = 5 * NS_PER_S
_THAW_NS = 2 * NS_PER_S
"""The part of the budget for a thaw, with an agent that has to be given up first; while the snapshot is being
taken at most a third of what is left."""

_SPARE = 64 << 20
"""The least space for overlays, and for device state beside RAM."""

_LAST_MS = 10
_ABORT_S = 5.0
_LATE_S = 40.0
"""How long a snapshot that was called off may go on: libvirt waits 30 s for a job of somebody else's."""


class Snapshot(OneByOne):
    """Freeze of the file systems, with a snapshot of the disks."""

    monitor_ok = True
    saves = False

    def __init__(self, context: LibvirtContext, guest: str, freezing: Freezing) -> None:
        self._context, self._guest, self._freezing = context, guest, freezing
        self._steps = Steps(context, guest)
        self._lock = threading.Lock()
        self._frozen = False
        self._refused = self._unanswered = False  # the freeze, by the agent
        self._done: Resumed | None = None
        self._memory: Path | None = None
        self._taking: Worker | None = None

    @property
    def is_stopped(self) -> bool:
        return self._frozen

    @property
    def settled(self) -> bool:
        return not self._frozen

    def prepare(self) -> None:
        """Refused when the agent cannot freeze, its file systems are frozen already, or there is no disk;
        MachineError when there is no room."""
        context, guest = self._context, self._guest
        domain, uuid = context.domain(guest)
        own = guest in context.own
        try:
            deadline = context.clock.now().raw_ns + round(paced(_AGENT_NS))
            agent.wait_ready(domain, guest, context.clock, deadline, plain=own)
            self._remind()
            if not own and agent.command(domain, guest, "guest-fsfreeze-status") != "thawed":
                hint = "thaw them first: guest-fsfreeze-thaw"
                raise Refused("its file systems are frozen already", where=guest, hint=hint)
        except HypervisorError as error:
            raise Refused(error.what, where=guest, hint=error.hint) from error
        folder = Path(self._freezing.save_to) if self._freezing.save_to else None
        try:
            folders = overlays.check(domain, guest, folder)
        except Refused as refused:
            raise Refused(refused.what, where=guest, hint=refused.hint or context.recover_command) from None
        needed = _SPARE
        if self.saves:
            with mapped("libvirt does not report its memory size", guest):
                needed += int(domain.maxMemory()) * 1024
            self._memory = overlays.memory_file(min(folders), uuid)
        for each in folders:
            _check_room(each, needed)

    def stop(self, deadline_raw_ns: int) -> Frozen:
        context, guest = self._context, self._guest
        domain, _uuid = context.domain(guest)
        since = context.clock.now()
        called_off = deadline_raw_ns - min(_THAW_NS, max(0, deadline_raw_ns - since.raw_ns) // 3)
        call: Call | None = None
        try:
            if not context.left_s(called_off):
                self._refused = True  # there is nothing to thaw
                raise HypervisorError("the budget is used up")
            self._frozen = True  # before the order, so that an interrupt thaws
            with self._steps.step(FREEZE_FILES):
                count = self._freeze(domain, context.left_s(called_off))
            if not count:
                self._refused = True
                why = "its agent froze no file system (guest-fsfreeze-freeze returned 0)"
                raise HypervisorError(f"{why}: none can be, or others have frozen them")
            call = StopOrder(context, guest).done() if self.saves else Call(since, context.clock.now())
            with self._steps.step("save and snapshot" if self.saves else "snapshot"):
                self._take(called_off)
        except HypervisorError as error:
            why = f"no snapshot: {error.what}"
            back = self._resumed(why)
            return Frozen(call or Call(since, since), back.steps, back.call, why)
        if (done := self._done) is not None:  # by the guard, in the middle of the snapshot
            return Frozen(call, done.steps, done.call, "the budget was over before it was taken")
        return Frozen(call, self._steps.hand_out(), resume_ns=_THAW_NS)

    def _freeze(self, domain: Any, left_s: float) -> int:
        try:
            return agent.freeze_files(domain, self._guest, left_s)
        except AgentError:
            # It has thawed what it froze (QEMU, qga/commands-posix.c), or others had frozen them before.
            self._refused = True
            raise
        except HypervisorError:
            self._unanswered = True
            self._context.forgetful.add(self._guest)
            raise

    def _take(self, deadline_raw_ns: int) -> None:
        """Take the snapshot, at most until the deadline: libvirt's call has no time limit, but can be
        aborted."""
        domain, _uuid = self._context.domain(self._guest)
        folder = Path(self._freezing.save_to) if self._freezing.save_to else None
        failure: list[HypervisorError] = []

        def take() -> None:
            try:
                with nullcontext() if self._memory is None else _abortable(domain, self._memory.parent):
                    overlays.take(domain, self._guest, folder, self._memory)
            except HypervisorError as error:
                failure.append(error)

        self._taking = Worker(target=take, name=f"snapshot-{self._guest}", daemon=True)
        self._taking.start()
        self._taking.join(self._context.left_s(deadline_raw_ns))
        if self._taking.is_alive():
            self._call_off()
            raise HypervisorError("the budget is used up", where=self._guest)
        if failure:
            raise failure[0]

    def _call_off(self) -> None:
        """End a snapshot that is being taken, before the guest is resumed. One without state cannot be
        aborted (nor does libvirt answer jobStats meanwhile), and keeps nobody from a thaw."""
        if not self.saves or self._taking is None or not self._taking.is_alive():
            return
        domain, _uuid = self._context.domain(self._guest)
        with suppress(libvirt.libvirtError):
            if domain.jobStats().get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_SNAPSHOT:
                domain.abortJob()
        self._taking.join(_ABORT_S)

    def resume(self) -> Resumed:
        return self._resumed("")

    def _resumed(self, why: str) -> Resumed:
        with self._lock:
            if self._done is not None:
                return self._done
            self._call_off()
            call = ResumeOrder(self._context, self._guest).done() if self.saves else None
            called = self._context.clock.now()
            if not self._refused:
                with self._steps.step(THAW_FILES):
                    self._thaw()
            self._frozen = False
            returned = self._context.clock.now()
            self._done = Resumed(call or Call(called, returned), self._steps.hand_out(), why)
            return self._done

    def _thaw(self) -> None:
        """Thaw by the agent, or else from inside the guest. HypervisorError when neither can."""
        context, guest = self._context, self._guest
        try:
            agent.thaw_files(context.domain(guest)[0], guest)
            return
        except HypervisorError as error:
            failure = error
        if context.state(guest) in ("shut off", "crashed"):
            raise context.died(guest)
        inside = context.thaws.get(guest)
        if inside is not None:
            try:
                inside()
                context.forgetful.add(guest)
                return
            except FreezelabError as error:
                failure = HypervisorError(f"{failure.what}; {error.what}")
        raise HypervisorError(
            f"its file systems are still frozen: {failure.what}",
            where=guest,
            hint="in the guest, as root: fsfreeze --unfreeze MOUNTPOINT; or Alt-SysRq-J on its keyboard",
        )

    def _remind(self) -> None:
        """Have the agent thaw after the fact, if it was others who did: it takes the file systems for frozen
        until then, even when it is started anew (QEMU, qga/main.c, "isfrozen"), and refuses most commands."""
        if self._guest in self._context.forgetful:
            with suppress(HypervisorError):
                agent.thaw_files(self._context.domain(self._guest)[0], self._guest)
                self._context.forgetful.discard(self._guest)

    def charge(self) -> Charge | None:
        context = self._context
        domain, uuid = context.domain(self._guest)
        socket = agent.socket(domain, self._guest) if context.root is not None else ""
        return charge(
            ThawFiles, context, self._guest, agent=socket, uri=context.uri, uuid=uuid, saves=self.saves
        )

    def finish(self) -> None:
        """Write the overlays back. HypervisorError when one cannot be, because the guest has ended or libvirt
        fails; it stays then."""
        context, guest = self._context, self._guest
        self._end_taking()
        if context.state(guest) not in ("shut off", "crashed"):
            self._remind()
            self._flatten(context.domain(guest)[0])
            if self._unanswered and guest in context.forgetful and guest in context.own:
                # The command waits in the channel of an agent that hangs.
                what = "its agent has not answered: if it does later, its file systems are frozen then"
                hint = f"thaw them then: virsh domfsthaw {context.own[guest].name}"
                raise HypervisorError(what, where=guest, hint=hint)
        elif (own := context.own.get(guest)) and (
            error := overlays.ended_with_one(context.domain(guest)[0], own.where)
        ):
            raise error

    def _flatten(self, domain: Any) -> None:
        guest, own = self._guest, self._guest in self._context.own
        try:
            overlays.flatten(domain, guest)
        except HypervisorError as failure:
            hint = f"to try again: {self._context.recover_command}" if own else failure.hint
            raise HypervisorError(failure.what, where=guest, hint=hint) from failure
        if path := overlays.beneath(domain, guest):
            what = f"another program took a snapshot in the lab's: {path} stays in use below it"
            raise HypervisorError(what, where=guest, hint="virsh blockcommit removes one from between others")

    def abandon(self) -> None:
        with suppress(HypervisorError):
            self._end_taking()

    def _end_taking(self) -> None:
        """Wait for a snapshot that is still being taken, or its overlays would come into use afterwards, and
        remove the saved state."""
        if self._taking is not None:
            self._taking.join(_LATE_S)
        if self._memory is not None:
            overlays.remove(self._memory)


class SnapshotWithState(Snapshot):
    """Freeze of the file systems and of the guest, with a snapshot of disks and RAM."""

    saves = True


@contextmanager
def _abortable(domain: Any, folder: Path) -> Iterator[None]:
    """A context in which a save of RAM can be aborted at any time. QEMU sends what it takes for the last
    `downtime-limit` in one go, holding its main lock: no command is carried out meanwhile, neither an abort
    nor a resume (QEMU, migration/migration.c, migration_completion). The limit is also that of later
    migrations, so its value is in a file until it is put back."""
    note = overlays.downtime_file(folder, str(domain.UUIDString()))
    changed = False
    with suppress(libvirt.libvirtError, OSError):
        note.write_text(str(domain.migrateGetMaxDowntime(0)), encoding="ascii")
        domain.migrateSetMaxDowntime(_LAST_MS, 0)
        changed = True
    try:
        yield
    finally:
        with suppress(libvirt.libvirtError, OSError):
            if changed:
                domain.migrateSetMaxDowntime(int(note.read_text(encoding="ascii")), 0)
            note.unlink(missing_ok=True)


def _check_room(folder: Path, needed: int) -> None:
    try:
        facts = os.statvfs(folder)
    except OSError as error:
        raise MachineError(f"no snapshot can be taken there: {error.strerror}", where=str(folder)) from error
    free = facts.f_bavail * facts.f_frsize
    if free < needed:
        raise MachineError(
            f"{format_size(free >> 20 << 20)} free, but a snapshot needs {format_size(needed >> 20 << 20)}",
            where=str(folder),
            hint="set save_to to another folder",
        )
