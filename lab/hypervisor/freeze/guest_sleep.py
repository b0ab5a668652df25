"""guest-sleep: the guest suspends itself to RAM (ACPI S3) at its agent's request, and is woken from the host.

libvirt's call to the agent has no time limit and cannot be cancelled. So a guest whose freeze was called off,
because it did not sleep in time, may fall asleep later. It is then woken, until the cycle is over."""

from __future__ import annotations

import contextlib
import threading
from functools import partial

from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import GuestError, HypervisorError, Refused
from lab.hypervisor import agent, unreachable
from lab.hypervisor.binding import as_hypervisor_error, libvirt
from lab.hypervisor.context import LibvirtContext, Steps
from lab.hypervisor.deadman.client import Charge
from lab.hypervisor.deadman.rescue import Wake
from lab.hypervisor.freeze.base import OneByOne, charge
from lab.hypervisor.qmp import QemuEvent
from lab.ports import Call, Freezing, Frozen, Resumed
from lab.process.pace import paced
from lab.threads import Worker

_AGENT_NS = 5 * NS_PER_S
_SLEEP_S = 20.0
"""Time limit for a guest to fall asleep; it freezes its processes and suspends its devices first."""

_WAKE_S = 5.0
_LOOK_S = 0.25
_KEY_LEFTSHIFT = 42
"""KEY_LEFTSHIFT (Linux, include/uapi/linux/input-event-codes.h)."""


class GuestSleep(OneByOne):
    """Freeze by the guest's own suspend to RAM."""

    monitor_ok = True
    settled = True

    def __init__(self, context: LibvirtContext, guest: str, _freezing: Freezing) -> None:
        self._context, self._guest = context, guest
        self._steps = Steps(context, guest)
        self._asleep = False
        self._lock = threading.RLock()
        self._asking: threading.Thread | None = None
        self._waking: threading.Thread | None = None
        self._over = threading.Event()

    @property
    def is_stopped(self) -> bool:
        return self._asleep

    def prepare(self) -> None:
        """HypervisorError when the guest cannot suspend itself: no S3 in its firmware, no agent, or an agent
        without guest-suspend-ram."""
        domain, _uuid = self._context.domain(self._guest)
        spec = self._context.specs.get(self._guest)
        if spec is not None and not spec.guest_sleep:
            raise Refused(
                "its machine was started without S3, as its plan did not ask for it", where=self._guest
            )
        deadline = self._context.clock.now().raw_ns + round(paced(_AGENT_NS))
        if self._guest in self._context.own:
            # libvirt asks QEMU itself (qemuDomainPMSuspendForDuration), without tainting the domain.
            agent.wait_ready(domain, self._guest, self._context.clock, deadline, plain=True)
            return
        try:
            ask = partial(agent.command, domain, self._guest, "guest-info")
            info = agent.answered(ask, self._context.clock, deadline)
        except HypervisorError as error:
            raise Refused(error.what, where=self._guest, hint=error.hint) from error
        offered = {each["name"] for each in info["supported_commands"] if each["enabled"]}
        if "guest-suspend-ram" not in offered:
            raise Refused("its agent does not offer guest-suspend-ram", where=self._guest)
        machine = self._context.qmp(domain, self._guest, "query-current-machine")
        if not machine.get("wakeup-suspend-support"):
            raise Refused("QEMU cannot wake this machine", where=self._guest)

    def stop(self, deadline_raw_ns: int) -> Frozen:
        context, guest = self._context, self._guest
        domain, uuid = context.domain(guest)
        called = context.clock.now()
        self._asleep = True
        refused: list[Exception] = []

        def ask() -> None:
            try:
                domain.pMSuspendForDuration(libvirt.VIR_NODE_SUSPEND_TARGET_MEM, 0, 0)
            except libvirt.libvirtError as error:
                refused.append(error)
            context.events.wake()

        def look() -> QemuEvent | Exception | None:
            return context.events.qemu_since(uuid, "SUSPEND", called.real_ns) or next(iter(refused), None)

        with self._steps.step("fall asleep"):
            self._asking = Worker(target=ask, name=f"sleep-{guest}", daemon=True)
            self._asking.start()
            wait_s = min(_SLEEP_S, context.left_s(deadline_raw_ns))
            context.events.wait_until(look, wait_s)
            found = look()
        returned = context.clock.now()
        if isinstance(found, Exception):
            self._asleep = False
            raise as_hypervisor_error(found, "its agent refused to suspend it", guest) from found
        if found is None:
            why = "the guest did not suspend to RAM in time"
            self._asleep, self.settled = False, False
            self._waking = Worker(target=self._wake_late, args=(called.real_ns,), daemon=True)
            self._waking.start()
            return Frozen(
                Call(called, returned), self._steps.hand_out(), Call(returned, context.clock.now()), why
            )
        return Frozen(Call(called, returned, found.real_ns), self._steps.hand_out())

    def _wake_late(self, since_real_ns: int) -> None:
        """Wake the guest whenever it falls asleep late, until the cycle is over."""
        domain, uuid = self._context.domain(self._guest)
        while not self._over.is_set():
            stamp = self._context.events.wait_qemu(uuid, "SUSPEND", since_real_ns, _LOOK_S)
            if stamp is not None:
                since_real_ns = stamp + NS_PER_MS
                with contextlib.suppress(libvirt.libvirtError):
                    domain.pMWakeup(0)

    def resume(self) -> Resumed:
        context, guest = self._context, self._guest
        with self._lock:
            domain, uuid = context.domain(guest)
            called = context.clock.now()
            if not self._asleep:
                return Resumed(Call(called, called))
            try:
                domain.pMWakeup(0)
            except libvirt.libvirtError as error:
                # The dead-man, or another program, may have woken it, and libvirt does not know yet.
                if not self._runs():
                    raise as_hypervisor_error(error, "cannot be woken", guest) from error
                returned, stamp = context.clock.now(), None
            else:
                returned = context.clock.now()
                stamp = context.events.wait_qemu(uuid, "WAKEUP", called.real_ns, _WAKE_S)
            self._asleep = False
            context.strangers.add(
                guest
            )  # its virtio-serial devices are reset, and the agent's channel with them
            return Resumed(Call(called, returned, stamp))

    def _runs(self) -> bool:
        if self._guest in self._context.own:
            return self._context.state(self._guest) == "running"
        domain = self._context.domain(self._guest)[0]
        return bool(self._context.qmp(domain, self._guest, "query-status")["status"] == "running")

    def finish(self) -> None:
        if self._asking is not None:
            self._asking.join(_SLEEP_S)
        self._over.set()
        if self._waking is not None:
            self._waking.join()

    def abandon(self) -> None:
        self.finish()

    def charge(self) -> Charge | None:
        return charge(Wake, self._context, self._guest)


def wake(context: LibvirtContext, guest: str) -> None:
    """Wake the guest if it is asleep. From S3, QEMU wakes it. QEMU does not know about suspend to idle, so
    the Shift key is pressed, which has no effect on a guest that is awake; Linux wakes on the keyboard
    (drivers/input/serio/i8042.c, i8042_register_ports). GuestGone when it has ended, GuestError when it
    cannot be woken."""
    domain, _uuid = context.domain(guest)
    gone = unreachable.gone(context, guest)
    if gone is not None and gone.ended:
        raise gone
    try:
        if gone is None:
            domain.sendKey(libvirt.VIR_KEYCODE_SET_LINUX, 0, [_KEY_LEFTSHIFT], 1, 0)
            return
        domain.pMWakeup(0)
    except libvirt.libvirtError as error:
        failure = as_hypervisor_error(error, "cannot be woken")
        raise GuestError(failure.what, where=f"guest {guest}") from error
    context.strangers.add(guest)  # its devices are reset, and the agent's channel with them
    if context.events.wait_until(lambda: unreachable.gone(context, guest) is None or None, _WAKE_S) is None:
        raise GuestError("was sent a wake-up, but is still asleep", where=f"guest {guest}")
