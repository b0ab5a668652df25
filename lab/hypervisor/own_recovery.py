"""Lets domains of the user's own run again that a killed run had frozen, and no others."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any

from lab.core.method import FreezeMethod
from lab.errors import HypervisorError
from lab.hypervisor import overlays, peer
from lab.hypervisor.binding import as_hypervisor_error, is_code, libvirt
from lab.hypervisor.context import LibvirtContext
from lab.hypervisor.domains import state_of
from lab.hypervisor.own_lease import OwnRecord, forget, records, used_by
from lab.hypervisor.process import QemuProcess
from lab.hypervisor.recovery import drop_saved

_SNAPSHOTS = {method.value for method in FreezeMethod if method.traits.freezes_files}


def resume_all(context: LibvirtContext, but: Collection[str]) -> Iterator[str]:
    """Resume what dead runs have frozen on this connection. Yields a line for each domain that was resumed,
    and for each that is on another connection. but: runs that are alive. HypervisorError when one cannot be
    resumed; its record stays."""
    for record in records(context.home):
        if record.run in but:
            continue
        # The dead-man thaws the file systems of a snapshot, and leaves its files to this.
        was_migrated = FreezeMethod.LIVE_MIGRATE.value == record.frozen
        left_to_this = was_migrated or record.frozen in _SNAPSHOTS
        if not record.frozen or (record.resumed_by_dead_man and not left_to_this):
            forget(context.home, record)
        elif record.uri != context.uri:
            yield (
                f"{record.where} may still be frozen by the killed run {record.run}: "
                f"freezelab recover --connect {record.uri}"
            )
        elif who := used_by(record.uuid, record.where):
            yield f"{record.where}: {who}; the killed run {record.run} had frozen it: recover again later"
        else:
            was = _brought_back(context, record) if was_migrated else _resumed(context, record)
            forget(context.home, record)
            if was:
                yield f"{record.where} runs again (it was {was} by the killed run {record.run})"
            elif overlay := _ended_with_overlay(context, record):
                yield f"{record.where}: {overlay.what}: {overlay.hint}"


def _resumed(context: LibvirtContext, record: OwnRecord) -> str:
    """Let a domain run. Returns its state before; "" when it ran."""
    path = context.home / "saved" / f"{record.uuid}.save"
    domain = _found(context, record)
    active = domain is not None and bool(domain.isActive())
    try:
        if not active and path.exists():
            context.connection.restoreFlags(str(path.resolve()), None, libvirt.VIR_DOMAIN_SAVE_RUNNING)
            drop_saved(path)
            return "saved to a file"
        if domain is None or not active:
            return ""  # it has ended since; whoever ended it may start it
        anew = False  # it was started again since; whoever stopped it then may resume it
        with contextlib.suppress(HypervisorError), QemuProcess.find(record.uuid, record.where) as process:
            anew = process.pid != record.pid
            stopped = not anew and process.is_stopped()
            if stopped:
                process.send_continue()
            if not anew:
                process.leave_freezer()
            if stopped:
                return "stopped"
        if anew:
            return _undone(domain, record, frozen=False)
        state = state_of(domain)
        if state == "paused":
            domain.resume()
        elif state == "pmsuspended":
            domain.pMWakeup(0)
    except libvirt.libvirtError as error:
        failure = as_hypervisor_error(error, "cannot be resumed", record.where)
        hint = f"its state is in {path.resolve()}: virsh restore FILE" if path.exists() else failure.hint
        raise HypervisorError(failure.what, where=record.where, hint=hint) from error
    drop_saved(path)  # of a save that was not complete
    undone = _undone(domain, record, frozen=not record.resumed_by_dead_man)
    return state if state != "running" else undone


def _undone(domain: Any, record: OwnRecord, *, frozen: bool) -> str:
    """See overlays.undo. Returns what it was in; "" when there was nothing to undo."""
    if record.frozen not in _SNAPSHOTS:
        return ""
    return "in a snapshot" if overlays.undo(domain, record.where, record.save_to, frozen=frozen) else ""


def _ended_with_overlay(context: LibvirtContext, record: OwnRecord) -> HypervisorError | None:
    domain = _found(context, record)
    if domain is None or record.frozen not in _SNAPSHOTS or domain.isActive():
        return None
    return overlays.ended_with_one(domain, record.where)


def _brought_back(context: LibvirtContext, record: OwnRecord) -> str:
    """End the migration of a domain, and have it back. Returns where it was; "" when it ran here."""
    stayed = peer.active_on(context.connection, record.uuid)
    if stayed is not None and peer.has_stayed(stayed):
        return ""
    there: Any = None
    try:
        there = peer.opened(record.to)
        moved = peer.put_right(context.connection, there, record.uuid, record.where)
        if moved is None:
            return "paused in its migration" if stayed is not None else ""
        peer.take_back(moved, context.connection, context.uri, unsafe=record.unsafe, where=record.where)
    except HypervisorError as error:
        raise HypervisorError(
            f"is not back from {record.to}: {error.what}", where=record.where, hint=error.hint
        ) from error
    finally:
        if there is not None:
            with contextlib.suppress(libvirt.libvirtError):
                there.close()
    return f"at {record.to}, migrated there"


def _found(context: LibvirtContext, record: OwnRecord) -> Any | None:
    try:
        return context.connection.lookupByUUIDString(record.uuid)
    except libvirt.libvirtError as error:
        if is_code(error, "VIR_ERR_NO_DOMAIN"):
            return None
        raise as_hypervisor_error(error, "cannot be looked up", record.where) from error
