"""How guests are frozen: one module a method, each from prepare to finish as base.py says.

`make` finds what belongs to a method. What a method is, needs and predicts is in lab.core.method.

- `base`: the steps of every freeze, and what the dead-man is given.
- `suspend`, `sigstop`, `guest_sleep`, `reboot`: the process stays.
- `save_restore`, `in_place`, `cold`: another process takes the guest up; `cold` is in-place with no overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lab.core.method import FreezeMethod
from lab.hypervisor.context import LibvirtContext
from lab.hypervisor.freeze.base import Freeze as Freeze
from lab.hypervisor.freeze.base import Nothing
from lab.hypervisor.freeze.cold import ColdExchange
from lab.hypervisor.freeze.guest_sleep import GuestSleep
from lab.hypervisor.freeze.in_place import Exchange
from lab.hypervisor.freeze.save_restore import SaveRestore
from lab.hypervisor.freeze.sigstop import Sigstop
from lab.hypervisor.freeze.suspend import Suspend
from lab.ports import Freezing

Maker = Callable[[LibvirtContext, str, Freezing], Freeze]


def _exchange(context: LibvirtContext, guest: str, freezing: Freezing) -> Freeze:
    return (ColdExchange if freezing.successor.cold else Exchange)(context, guest, freezing)


MAKERS: Mapping[FreezeMethod, Maker] = {
    FreezeMethod.SUSPEND: Suspend,
    FreezeMethod.SIGSTOP: Sigstop,
    FreezeMethod.SAVE_RESTORE: SaveRestore,
    FreezeMethod.IN_PLACE: _exchange,
    FreezeMethod.GUEST_SLEEP: GuestSleep,
    FreezeMethod.REBOOT: Nothing,
    FreezeMethod.NONE: Nothing,
}


def make(context: LibvirtContext, guest: str, freezing: Freezing) -> Freeze:
    """One guest's freeze. Nothing is done yet."""
    return MAKERS[freezing.method](context, guest, freezing)


def make_for_resume(context: LibvirtContext, guest: str, freezing: Freezing) -> Freeze:
    """Of a guest that was frozen by an earlier process, or not at all. libvirt's resume serves every method
    but those that stop the monitor as well."""
    if freezing.method.freezes and freezing.method.traits.monitor_answers:
        return Suspend(context, guest, freezing)
    return make(context, guest, freezing)
