"""What a plan that replaces the lab host's kernel must not ask for. Nothing is looked up."""

from __future__ import annotations

from lab.core.patch import ReplaceHostKernelPatch
from lab.core.plan import SYSTEM, GuestSpec, Plan, RtcTrack
from lab.errors import Refused, UsageError

LOSS = "if the new kernel does not come up, the guest is lost"


def replaces_kernel(plan: Plan) -> bool:
    """Whether the plan, or a cell of it, replaces the lab host's kernel."""
    return any(isinstance(cell.cycle.patch, ReplaceHostKernelPatch) for cell in plan.parts)


def check_plan(plan: Plan, *, accept_loss: bool) -> None:
    """Refused for a plan that cannot be run, with the reason; UsageError when nobody has accepted that the
    guest may be lost."""
    for found, what in (
        (bool(plan.cells), "a matrix"),
        (plan.rollout is not None, "a rollout"),
        (plan.tolerance is not None, "a search for a tolerance"),
        (bool(plan.workloads), "a workload"),
        (plan.network is not None, "the lab's own network"),
        (plan.cycle.announce is not None, "an announcement"),
        (plan.cycle.dirty is not None, "dirty"),
        (plan.ntp_fault is not None, "a time server at fault"),
        (len(plan.guests) != 1, "more than one guest"),
    ):
        if found:
            raise Refused(f"replace-host-kernel does not go with {what}", where=f"playbook {plan.name}")
    (guest,) = plan.guests
    if why := _unfit(guest):
        raise Refused(f"replace-host-kernel does not go with {why}", where=f"guest {guest.name}")
    mechanism = plan.resync
    if mechanism.uses_agent or mechanism.traits.device or mechanism.is_of_windows:
        what = f"resync {mechanism} needs a device that this guest does not have"
        raise Refused(what, where=f"playbook {plan.name}", hint="chrony, push and others need none")
    if not accept_loss:
        raise UsageError(LOSS, where="replace-host-kernel", hint="accept that: run … --accept-loss")


def _unfit(guest: GuestSpec) -> str:
    for found, what in (
        (guest.is_own, "a domain of your own"),
        (bool(guest.bridge), "a bridge"),
        (guest.huge_pages, "huge pages: its memory is in the reserved memory"),
        (guest.watchdog is not None, "a watchdog"),
        (guest.emulator != SYSTEM, "another emulator"),
        (guest.rtc is not RtcTrack.WALL, "an RTC that stops with the guest"),
        (guest.fill > 0, "fill"),
        (bool(guest.setup.secrets), "secrets"),
    ):
        if found:
            return what
    return ""
