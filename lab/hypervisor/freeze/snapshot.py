"""snapshot: what a backup does. The guest's agent freezes its file systems, an external snapshot of the disks
is taken, and the agent thaws. The guest runs on; what writes stands still.

With state (snapshot-state), the guest is suspended meanwhile and its RAM is saved as well.

The overlays are written back into the disks and removed after the watch. A thaw that the agent does not give
is given from inside the guest, where a program can be reached (LibvirtContext.thaws).
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from lab.core.file_stall import FREEZE_FILES, THAW_FILES
from lab.core.units import NS_PER_S, format_size
from lab.errors import FreezelabError, HypervisorError, MachineError, Refused
from lab.hypervisor import agent, overlays
from lab.hypervisor.binding import libvirt, mapped
from lab.hypervisor.context import LibvirtContext, Steps
from lab.hypervisor.deadman.client import Charge
from lab.hypervisor.deadman.thaw import ThawFiles
from lab.hypervisor.freeze.base import OneByOne, charge
from lab.hypervisor.run_state import ResumeOrder, StopOrder
from lab.ports import Call, Freezing, Frozen, Resumed
from lab.threads import Worker

_AGENT_NS = 5 * NS_PER_S
_THAW_NS = 2 * NS_PER_S
"""The part of the budget for a thaw, with an agent that has to be given up first."""

_SPARE = 64 << 20
"""The least space for overlays, and for device state beside RAM."""

_ABORT_S = 5.0


class Snapshot(OneByOne):
    """Freeze of the file systems, with a snapshot of the disks."""

    monitor_ok = True
    saves = False

    def __init__(self, context: LibvirtContext, guest: str, freezing: Freezing) -> None:
        self._context, self._guest, self._freezing = context, guest, freezing
        self._steps = Steps(context, guest)
        self._lock = threading.Lock()
        self._frozen = False
        self._done: Resumed | None = None
        self._memory: Path | None = None

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
            agent.wait_ready(domain, guest, context.clock, context.clock.now().raw_ns + _AGENT_NS, plain=own)
            self._remind()
            if not own and agent.command(domain, guest, "guest-fsfreeze-status") != "thawed":
                hint = "thaw them first: guest-fsfreeze-thaw"
                raise Refused("its file systems are frozen already", where=guest, hint=hint)
        except HypervisorError as error:
            raise Refused(error.what, where=guest, hint=error.hint) from error
        if names := overlays.left(domain, guest):
            what = f"a snapshot of a lab is in use: {', '.join(names.values())}"
            raise Refused(what, where=guest, hint=context.recover_command)
        sources = overlays.disks(domain, guest)
        folder = Path(self._freezing.save_to) if self._freezing.save_to else None
        needed = _SPARE
        if self.saves:
            with mapped("libvirt does not report its memory size", guest):
                needed += int(domain.maxMemory()) * 1024
            beside = folder or Path(next(iter(sources.values()))).parent
            self._memory = beside / f"freezelab-{uuid}-memory.save"
        for each in {folder} if folder else {Path(source).parent for source in sources.values()}:
            _check_room(each, needed)

    def stop(self, deadline_raw_ns: int) -> Frozen:
        context, guest = self._context, self._guest
        domain, _uuid = context.domain(guest)
        since = context.clock.now()
        call: Call | None = None
        try:
            self._frozen = True  # before the order, so that an interrupt thaws
            with self._steps.step(FREEZE_FILES):
                left_s = context.left_s(deadline_raw_ns) - _THAW_NS / NS_PER_S
                count = agent.freeze_files(domain, guest, left_s)
            if not count:
                raise HypervisorError("its agent froze no file system (guest-fsfreeze-freeze returned 0)")
            call = StopOrder(context, guest).done() if self.saves else Call(since, context.clock.now())
            with self._steps.step("save and snapshot" if self.saves else "snapshot"):
                self._take(deadline_raw_ns)
        except HypervisorError as error:
            why = f"no snapshot: {error.what}"
            back = self._resumed(why)
            return Frozen(call or Call(since, since), back.steps, back.call, why)
        if (done := self._done) is not None:  # by the guard, in the middle of the snapshot
            return Frozen(call, done.steps, done.call, "the budget was over before it was taken")
        return Frozen(call, self._steps.hand_out(), resume_ns=_THAW_NS)

    def _take(self, deadline_raw_ns: int) -> None:
        """Take the snapshot, at most until the deadline: libvirt's call has no time limit, but can be
        aborted."""
        domain, _uuid = self._context.domain(self._guest)
        folder = Path(self._freezing.save_to) if self._freezing.save_to else None
        failure: list[HypervisorError] = []

        def take() -> None:
            try:
                overlays.take(domain, self._guest, folder, self._memory)
            except HypervisorError as error:
                failure.append(error)

        taking = Worker(target=take, name=f"snapshot-{self._guest}", daemon=True)
        taking.start()
        taking.join(self._context.left_s(deadline_raw_ns))
        if taking.is_alive():
            with suppress(libvirt.libvirtError):
                domain.abortJob()
            taking.join(_ABORT_S)
            raise HypervisorError("the budget is used up", where=self._guest)
        if failure:
            raise failure[0]

    def resume(self) -> Resumed:
        return self._resumed("")

    def _resumed(self, why: str) -> Resumed:
        with self._lock:
            if self._done is not None:
                return self._done
            call = ResumeOrder(self._context, self._guest).done() if self.saves else None
            called = self._context.clock.now()
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
        spec = context.specs.get(self._guest)
        socket = "" if spec is None or spec.agent_socket is None else str(spec.agent_socket)
        uuid = context.domain(self._guest)[1]
        return charge(
            ThawFiles, context, self._guest, agent=socket, uri="" if socket else context.uri, uuid=uuid
        )

    def finish(self) -> None:
        """Write the overlays back. HypervisorError when one cannot be, because the guest has ended or libvirt
        fails; it stays then."""
        context, guest = self._context, self._guest
        if self._memory is not None:
            overlays.remove(self._memory)
        if context.state(guest) not in ("shut off", "crashed"):
            self._remind()
            overlays.flatten(context.domain(guest)[0], guest)
        elif guest in context.own and (left := overlays.left(context.domain(guest)[0], guest)):
            paths = " ".join(left.values())
            raise HypervisorError(
                f"it ended while a snapshot was in use: what it wrote since is in {paths}",
                where=context.own[guest].where,
                hint=f"qemu-img commit {paths}; then name the disk itself again: virsh edit",
            )

    def abandon(self) -> None:
        with suppress(HypervisorError):
            if self._memory is not None:
                overlays.remove(self._memory)


class SnapshotWithState(Snapshot):
    """Freeze of the file systems and of the guest, with a snapshot of disks and RAM."""

    saves = True


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
