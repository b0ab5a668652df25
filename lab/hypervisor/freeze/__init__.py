"""The freeze methods: one module for each, from prepare to finish as described in base.py.

`make` creates the freeze of a method. lab.core.method describes what each method is, needs and predicts.

- `base`: the steps of every freeze, and the data for the dead-man.
- `suspend`, `sigstop`, `host_sleep`, `guest_sleep`, `snapshot`, `reboot`: the guest keeps its process.
- `save_restore`, `in_place`, `cold`, `live_migrate`: the guest moves to another process; `cold` is in-place
without an overlap, `live_migrate` with RAM in the stream, `peer_migrate` that of a domain of the user's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lab.core.method import FreezeMethod
from lab.hypervisor.context import LibvirtContext
from lab.hypervisor.freeze.base import Freeze as Freeze
from lab.hypervisor.freeze.base import Nothing
from lab.hypervisor.freeze.cold import ColdExchange
from lab.hypervisor.freeze.guest_sleep import GuestSleep
from lab.hypervisor.freeze.host_sleep import HostSleep
from lab.hypervisor.freeze.in_place import Exchange
from lab.hypervisor.freeze.live_migrate import LiveMigrate
from lab.hypervisor.freeze.peer_migrate import PeerMigrate
from lab.hypervisor.freeze.save_restore import SaveRestore
from lab.hypervisor.freeze.sigstop import Sigstop
from lab.hypervisor.freeze.snapshot import Snapshot, SnapshotWithState
from lab.hypervisor.freeze.suspend import Suspend
from lab.ports import Freezing

Maker = Callable[[LibvirtContext, str, Freezing], Freeze]


def _exchange(context: LibvirtContext, guest: str, freezing: Freezing) -> Freeze:
    return (ColdExchange if freezing.successor.cold else Exchange)(context, guest, freezing)


def _migration(context: LibvirtContext, guest: str, freezing: Freezing) -> Freeze:
    return (PeerMigrate if guest in context.own else LiveMigrate)(context, guest, freezing)


MAKERS: Mapping[FreezeMethod, Maker] = {
    FreezeMethod.SUSPEND: Suspend,
    FreezeMethod.SIGSTOP: Sigstop,
    FreezeMethod.HOST_SLEEP: HostSleep,
    FreezeMethod.SAVE_RESTORE: SaveRestore,
    FreezeMethod.IN_PLACE: _exchange,
    FreezeMethod.LIVE_MIGRATE: _migration,
    FreezeMethod.GUEST_SLEEP: GuestSleep,
    FreezeMethod.SNAPSHOT: Snapshot,
    FreezeMethod.SNAPSHOT_STATE: SnapshotWithState,
    FreezeMethod.REBOOT: Nothing,
    FreezeMethod.NONE: Nothing,
}


def make(context: LibvirtContext, guest: str, freezing: Freezing) -> Freeze:
    """One guest's freeze. This does nothing to the guest yet."""
    return MAKERS[freezing.method](context, guest, freezing)


def make_for_resume(context: LibvirtContext, guest: str, freezing: Freezing) -> Freeze:
    """The freeze to resume a guest that an earlier process has frozen, or that is not frozen. libvirt's
    resume works for every method except those that stop the monitor or file systems as well."""
    method = freezing.method
    if method.freezes and method.traits.monitor_answers and not method.traits.freezes_files:
        return Suspend(context, guest, freezing)
    return make(context, guest, freezing)
