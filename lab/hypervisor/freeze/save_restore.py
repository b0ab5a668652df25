"""save-restore: libvirt saves the guest to a file and restores it. RAM is copied twice, and the process is a
new one.

The guest is suspended before the save and resumed after the restore, so that the same two calls bound the
pause as in every other method.
"""

from __future__ import annotations

import functools
import os
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from lab.core.units import NS_PER_S, format_size
from lab.errors import HypervisorError, MachineError, Refused
from lab.hypervisor.binding import as_hypervisor_error, libvirt, mapped
from lab.hypervisor.context import LibvirtContext, Steps
from lab.hypervisor.deadman.client import Charge
from lab.hypervisor.deadman.rescue import Restore
from lab.hypervisor.facts import dotted, numbers, program_version, running_version
from lab.hypervisor.freeze.base import OneByOne, charge
from lab.hypervisor.process import kill_helpers
from lab.hypervisor.rehearsal import rehearse
from lab.hypervisor.run_state import ResumeOrder, StopOrder
from lab.ports import Call, Freezing, Frozen, Resumed
from lab.threads import Worker

_SPARE = 64 << 20
"""The size of a saved guest beyond its RAM: device state, libvirt's header, and a reserve."""

_CANCEL_S = 5.0
_ABORT_S = 0.3
"""Time limit for libvirt to abort a save; its helper is killed after that."""

_BACK_NS = NS_PER_S
"""The part of the budget for a roll-back, but at most a third of the budget."""

_NO_FD, _NO_FD_NEEDED = (11,), 12_001_000
"""QEMU 11.0 has removed migration through `fd:` from regular files, which libvirt up to 12.0 uses to
restore."""

_START_NS = NS_PER_S
"""The time of a restore in addition to reading the file: the start of a QEMU process."""


class SaveRestore(OneByOne):
    """Freeze by save and restore. folder: the folder for the file."""

    monitor_ok = True
    settled = True

    def __init__(self, context: LibvirtContext, guest: str, freezing: Freezing) -> None:
        self._context, self._guest, self._freezing = context, guest, freezing
        self._steps = Steps(context, guest)
        self._lock = threading.Lock()
        self._path: Path | None = None
        self._saved = threading.Event()
        self._saving: Worker | None = None
        self._done: Resumed | None = None
        self._made: Path | None = None
        self._cancelled = threading.Event()

    @property
    def is_stopped(self) -> bool:
        return self._saved.is_set()

    def prepare(self) -> None:
        spec = self._context.specs.get(self._guest)
        domain, uuid = self._context.domain(self._guest)
        if spec is not None and spec.memory_file is not None:
            raise Refused("its RAM is in a file of the lab, which libvirt cannot save", where=self._guest)
        folder = Path(self._freezing.save_to or self._context.home / "saved")
        with mapped("libvirt does not report its memory size", self._guest):
            needed = int(domain.maxMemory()) * 1024 + _SPARE
        try:
            if not folder.is_dir():
                folder.mkdir(mode=0o700)
                self._made = folder
            facts = os.statvfs(folder)
        except OSError as error:
            raise MachineError(
                f"guests cannot be saved there: {error.strerror}", where=str(folder)
            ) from error
        free = facts.f_bavail * facts.f_frsize
        if free < needed:
            self.finish()
            raise MachineError(
                f"{format_size(free >> 20 << 20)} free, but a save needs {format_size(needed >> 20 << 20)}",
                where=str(folder),
                hint="set save_to to another folder",
            )
        try:
            self._look_at_restore()
        except BaseException:
            self.finish()
            raise
        self._path = folder / f"{uuid}.save"
        self._link()

    def _look_at_restore(self) -> None:
        """Refused when a restore cannot succeed, or the guest would lose something by it."""
        context, guest = self._context, self._guest
        if guest in context.own:
            return  # it stays under its own emulator, and must not be tainted by a QMP command
        domain = context.domain(guest)[0]
        named = self._freezing.successor.emulator
        try:
            running = running_version(functools.partial(context.qmp, domain, guest))
            emulator = Path(named or _emulator(domain, guest))
            version = program_version(emulator)
        except HypervisorError:
            if named:
                raise
            return  # it is on another host, or not QEMU (libvirt's test driver)
        libvirt_version = context.connection.getLibVersion()
        if numbers(version) >= _NO_FD and libvirt_version < _NO_FD_NEEDED:
            raise Refused(
                f"this libvirt ({dotted(libvirt_version)}) cannot restore a guest into QEMU "
                f"{version}: it uses a form of migration that QEMU 11.0 has removed",
                where=guest,
                hint="use libvirt 12.1 or later, or another emulator or method",
            )
        spec = context.specs.get(guest)
        if spec is not None and version != running:
            context.check_emulator(replace(spec, emulator=emulator))
            rehearse(context, spec.successor(emulator))

    def _link(self) -> None:
        """Create the link by which `freezelab recover` finds the file."""
        known = self._context.home / "saved"
        known.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._path is not None and self._path.parent.resolve() != known.resolve():
            link = known / self._path.name
            link.unlink(missing_ok=True)
            link.symlink_to(self._path)

    def stop(self, deadline_raw_ns: int) -> Frozen:
        context, guest = self._context, self._guest
        if self._path is None:
            self.prepare()
        call = StopOrder(context, guest).done()
        began = context.clock.now().raw_ns
        deadline_raw_ns -= min(_BACK_NS, max(0, deadline_raw_ns - began) // 3)
        try:
            with self._lock, self._steps.step("save"):
                self._save(deadline_raw_ns)
        except HypervisorError as error:
            back = ResumeOrder(context, guest).done()
            why = f"not saved: {error.what}"
            self._done = Resumed(back, why=why)
            return Frozen(call, self._steps.hand_out(), back, why)
        took = context.clock.now().raw_ns - began
        return Frozen(call, self._steps.hand_out(), resume_ns=took + _START_NS)

    def _save(self, deadline_raw_ns: int) -> None:
        """Save the guest, at most until the deadline: libvirt's call has no time limit, but can be
        aborted."""
        domain, _uuid = self._context.domain(self._guest)
        failure: list[Exception] = []

        def save() -> None:
            try:
                domain.saveFlags(str(self._path), None, libvirt.VIR_DOMAIN_SAVE_PAUSED)
                self._context.forget(self._guest)
                self._saved.set()  # set by this thread, which no signal interrupts
            except libvirt.libvirtError as error:
                failure.append(error)

        self._saving = Worker(target=save, name=f"save-{self._guest}", daemon=True)
        self._saving.start()
        while self._saving.is_alive() and not self._cancelled.is_set():
            left = self._context.left_s(deadline_raw_ns)
            if not left:
                break
            self._saving.join(min(left, 0.05))
        late = self._saving.is_alive()
        self._end_save()
        if late and not self._saved.is_set():
            raise HypervisorError("the budget is used up", where=self._guest)
        if failure:
            raise as_hypervisor_error(failure[0], "libvirt refused", self._guest)

    def _end_save(self) -> None:
        """Abort a running save. libvirt waits for its helper, which writes the file and may hang with the
        disk; the helper is killed then. A save that is nearly done may still succeed, and then the guest
        exists only in the file."""
        saving = self._saving
        if saving is None or not saving.is_alive():
            return
        domain, _uuid = self._context.domain(self._guest)

        def abort() -> None:
            with suppress(libvirt.libvirtError):
                domain.abortJob()

        threading.Thread(target=abort, name=f"abort-{self._guest}", daemon=True).start()
        saving.join(_ABORT_S)
        if saving.is_alive():
            kill_helpers(str(self._path))
            saving.join(_CANCEL_S)

    def resume(self) -> Resumed:
        context, guest = self._context, self._guest
        self._cancelled.set()  # in case the guard resumes in the middle of the save
        with self._lock:
            if self._done is not None:
                return self._done
            self._end_save()  # which a signal may have left running
            if not self._saved.is_set():
                self._done = Resumed(ResumeOrder(context, guest).done())
                return self._done
            why = self._bring_back()
            call, why = self._run(why)
            with suppress(OSError):  # finish() tries again, and reports the error
                self._forget_file()
            self._saved.clear()
            self._done = Resumed(call, self._steps.hand_out(), why, cut=context.has_user_network(guest))
            return self._done

    def _bring_back(self) -> str:
        """Restore the guest under the wanted emulator, or else under its old one. Returns why it is the old
        one; "" otherwise."""
        other = self._freezing.successor.emulator
        try:
            self._restore(other)
        except HypervisorError as error:
            if not other:
                raise
            self._restore("")
            return f"restored under the old emulator: {error.what}"
        return ""

    def _run(self, why: str) -> tuple[Call, str]:
        """Resume the restored guest. When another emulator fails before it has run an instruction, the guest
        is restored under the old one, because the file is still valid."""
        context, guest = self._context, self._guest
        uuid, since = context.domain(guest)[1], context.clock.now().real_ns
        try:
            return ResumeOrder(context, guest).done(), why
        except HypervisorError as error:
            ran = context.events.qemu_since(uuid, "RESUME", since) is not None
            if ran or why or not self._freezing.successor.emulator:
                raise
            with suppress(HypervisorError):
                context.process(guest).kill(_CANCEL_S)
            context.forget(guest)
            self._restore("")
            return ResumeOrder(context, guest).done(), f"restored under the old emulator: {error.what}"

    def _restore(self, emulator: str) -> None:
        """Restore from the file. emulator: "" for the one under which it was saved. HypervisorError when
        libvirt or QEMU refuses; the file still exists then."""
        connection, path = self._context.connection, str(self._path)
        hint = f"it is saved in {path}; to try again: virsh restore {path}"
        _domain, uuid = self._context.domain(self._guest)
        try:
            with self._context.starting(), self._steps.step("restore"):
                text = None
                if emulator:
                    root = ET.fromstring(connection.saveImageGetXMLDesc(path, 0))  # noqa: S314 - libvirt's own
                    for element in root.iter("emulator"):
                        element.text = emulator
                    text = ET.tostring(root, encoding="unicode")
                connection.restoreFlags(path, text, libvirt.VIR_DOMAIN_SAVE_PAUSED)
                self._context.domains.now(self._guest, connection.lookupByUUIDString(uuid))
        except libvirt.libvirtError as error:
            what = as_hypervisor_error(error, "cannot be restored").what
            if self._context.state(self._guest) == "running":
                self._saved.clear()  # so finish() removes the file, which does not fit the disks any more
                what = "another program started it while it was saved: its saved state is given up"
                hint = "it boots as after a power failure"
            raise HypervisorError(what, where=self._guest, hint=hint) from error

    def abandon(self) -> None:
        self._saved.clear()
        self.finish()

    def charge(self) -> Charge | None:
        context = self._context
        uri = context.uri if context.root is None else ""
        return charge(Restore, context, self._guest, path=str(self._path), home=str(context.home), uri=uri)

    def finish(self) -> None:
        if self._saved.is_set():
            return  # the guest exists only in the file
        self._forget_file()
        if self._made is not None:
            with suppress(OSError):
                self._made.rmdir()

    def _forget_file(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            (self._context.home / "saved" / self._path.name).unlink(missing_ok=True)


def _emulator(domain: Any, guest: str) -> str:
    """The emulator of a domain."""
    with mapped("its domain XML cannot be read", guest):
        return ET.fromstring(domain.XMLDesc(0)).findtext("devices/emulator", "")  # noqa: S314 - libvirt's own
