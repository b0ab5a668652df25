"""Why a guest cannot answer, according to libvirt: it has ended, is asleep, or was paused by QEMU.

The reasons are libvirt's virDomainState, virDomainPausedReason and virDomainEventStoppedDetailType
(include/libvirt/libvirt-domain.h).
"""

from __future__ import annotations

from typing import Any

from lab.errors import GuestGone
from lab.hypervisor.binding import libvirt
from lab.hypervisor.context import LibvirtContext
from lab.hypervisor.events import IO_ERROR

REBOOTED = "rebooted"
"""EventLog's name of libvirt's reboot event (QEMU's RESET), which the guest itself causes."""

_END_REPORTED_S = 2.0
"""How long to wait for libvirt's report of how a process ended, which comes about a second after its end."""

_ENDS = {
    "shutdown": "it powered itself off",
    "destroyed": "another program destroyed its domain",
    "crashed": "it crashed",
    "migrated": "another program migrated it away",
    "saved": "another program saved it",
}

_DOING = {
    libvirt.VIR_DOMAIN_PAUSED_MIGRATION: "migrates it away",
    libvirt.VIR_DOMAIN_PAUSED_SAVE: "saves it or takes a snapshot",
    libvirt.VIR_DOMAIN_PAUSED_DUMP: "dumps its memory",
    libvirt.VIR_DOMAIN_PAUSED_SNAPSHOT: "takes a snapshot",
}
"""What another program does for which libvirt pauses a domain, which a migration or a save then ends. libvirt
9.0 calls an internal snapshot a save as well."""


def gone(context: LibvirtContext, guest: str) -> GuestGone | None:
    """Why the guest cannot answer; None when no reason is known. Never waits for QEMU. HypervisorError when
    there is no such guest."""
    if guest in context.moving:
        return None
    domain, uuid = context.domain(guest)
    state = context.state(guest)
    if state in ("shut off", "crashed"):
        end = context.last_end(uuid) or context.events.wait_lifecycle(
            uuid, lambda e: e.ends_guest, _END_REPORTED_S
        )
        reason = end.reason if end is not None else ""
        how = "" if state == "shut off" and not reason else _ENDS.get(reason, "its QEMU process died")
        if reason == "shutdown" and _ended_by_signal(context, uuid):
            how = "its QEMU process was ended by a signal"
        last_words = context.logs.last(str(context.specs[guest].name)) if guest in context.specs else ""
        what = ": ".join(
            part for part in ("has ended", how, "" if reason == "shutdown" else last_words) if part
        )
        return GuestGone(what, where=f"guest {guest}", ended=True)
    if state == "pmsuspended":
        return GuestGone("is asleep: it suspended itself to RAM", where=f"guest {guest}")
    if state == "paused" and _pause_reason(domain) == libvirt.VIR_DOMAIN_PAUSED_IOERROR:
        errors = [event.reason for event in context.events.lifecycle(uuid) if event.kind == IO_ERROR]
        why = (
            f"its disk image cannot be written: {errors[-1]}" if errors else "an I/O error of its disk image"
        )
        hint = "free some space there, or put FREEZELAB_HOME elsewhere" if "space" in why else ""
        return GuestGone(f"QEMU has paused it: {why}", where=f"guest {guest}", hint=hint, ended=True)
    if state == "paused" and (own := context.own.get(guest)) is not None:
        if (pause := _pause_reason(domain)) is None:  # it has just ended, or runs again
            return gone(context, guest)
        if doing := _DOING.get(pause):
            if context.events.wait_until(lambda: context.last_end(uuid), _END_REPORTED_S) is not None:
                return gone(context, guest)
            return GuestGone(
                f"another program {doing}, and has paused it", where=f"guest {guest}", ended=True
            )
        hint = f"this lab leaves it so; to resume it: virsh resume {own.name}"
        return GuestGone("another program has paused it", where=f"guest {guest}", hint=hint, ended=True)
    return None


def _pause_reason(domain: Any) -> int | None:
    """libvirt's reason of a pause; None when the domain is not paused any more."""
    try:
        state, reason = domain.state()
    except libvirt.libvirtError:
        return None
    return int(reason) if state == libvirt.VIR_DOMAIN_PAUSED else None


def rebooted(guest: str) -> GuestGone:
    """The error that the guest was reset, and not by the lab."""
    return GuestGone("rebooted by itself", where=f"guest {guest}")


def still(guest: str) -> GuestGone:
    """The error that the guest uses no CPU time, although QEMU lets it run and the lab has not stopped it."""
    what = "stands still: it is asleep (suspended to idle, which QEMU does not know), or a signal stopped it"
    return GuestGone(what, where=f"guest {guest}")


def resets(context: LibvirtContext, guest: str) -> tuple[str, int]:
    """The uuid of the guest's present domain, and how often it has been reset so far."""
    _domain, uuid = context.domain(guest)
    return uuid, sum(event.kind == REBOOTED for event in context.events.lifecycle(uuid))


def _ended_by_signal(context: LibvirtContext, uuid: str) -> bool:
    """Whether a signal ended QEMU; libvirt passes on who shut it down (QEMU's event SHUTDOWN, `guest`)."""
    reasons = [event.reason for event in context.events.lifecycle(uuid) if event.kind == "shutdown"]
    return reasons[-1:] == ["host"]
