"""guest-sleep: the guest suspends itself to RAM (ACPI S3), asked by its agent, and is woken from the host."""

from __future__ import annotations

import contextlib
import threading

from lab.core.units import NS_PER_S
from lab.errors import HypervisorError, Refused
from lab.hypervisor import agent
from lab.hypervisor.binding import as_hypervisor_error, libvirt, mapped
from lab.hypervisor.deadman.client import Charge
from lab.hypervisor.deadman.rescue import Wake
from lab.hypervisor.freezing import charge
from lab.hypervisor.ground import Ground, Steps
from lab.ports import Call, Frozen, Resumed

_AGENT_NS = 5 * NS_PER_S
_SLEEP_S = 20.0
"""How long a guest may take to go to sleep: it freezes its processes and suspends its devices first."""

_WAKE_S = 5.0


class GuestSleep:
    """Freeze by the guest's own suspend to RAM."""

    answers = True

    def __init__(self, ground: Ground, guest: str) -> None:
        self._ground, self._guest = ground, guest
        self._steps = Steps(ground, guest)
        self._asleep = False
        self._lock = threading.RLock()

    @property
    def holds(self) -> bool:
        return self._asleep

    def prepare(self) -> None:
        """HypervisorError where guest or machine cannot: no S3 in its firmware, no agent, or an agent that
        does not offer it."""
        domain, _uuid = self._ground.domain(self._guest)
        spec = self._ground.specs.get(self._guest)
        if spec is not None and not spec.guest_sleep:
            raise Refused("its machine has no S3, which its plan did not ask for", where=self._guest)
        deadline = self._ground.clock.now().raw_ns + _AGENT_NS
        try:
            agent.wait_ready(domain, self._guest, self._ground.clock, deadline)
            info = agent.command(domain, self._guest, "guest-info")
        except HypervisorError as error:
            raise Refused(error.what, where=self._guest, hint=error.hint) from error
        offered = {each["name"] for each in info["supported_commands"] if each["enabled"]}
        if "guest-suspend-ram" not in offered:
            raise Refused("its agent does not offer guest-suspend-ram", where=self._guest)
        machine = self._ground.qmp(domain, self._guest, "query-current-machine")
        if not machine.get("wakeup-suspend-support"):
            raise Refused("QEMU cannot wake this machine", where=self._guest)

    def stop(self, deadline_raw_ns: int) -> Frozen:
        ground, guest = self._ground, self._guest
        domain, uuid = ground.domain(guest)
        called = ground.clock.now()
        self._asleep = True
        with self._steps.step("fall asleep"):
            try:
                domain.pMSuspendForDuration(libvirt.VIR_NODE_SUSPEND_TARGET_MEM, 0, 0)
            except libvirt.libvirtError as error:
                self._asleep = False
                raise as_hypervisor_error(error, "its agent refused to suspend it", guest) from error
            seen = ground.events.wait_qemu(
                uuid, "SUSPEND", called.real_ns, min(_SLEEP_S, ground.left_s(deadline_raw_ns))
            )
        returned = ground.clock.now()
        if seen is None:
            why = "the guest did not go to sleep in time"
            with contextlib.suppress(libvirt.libvirtError):
                domain.pMWakeup(0)
            self._asleep = False
            return Frozen(
                Call(called, returned), self._steps.hand_out(), Call(returned, ground.clock.now()), why
            )
        return Frozen(Call(called, returned, seen), self._steps.hand_out())

    def go_on(self) -> Resumed:
        ground, guest = self._ground, self._guest
        with self._lock:
            domain, uuid = ground.domain(guest)
            called = ground.clock.now()
            if not self._asleep:
                return Resumed(Call(called, called))
            with mapped("cannot be woken", guest):
                domain.pMWakeup(0)
            returned = ground.clock.now()
            stamp = ground.events.wait_qemu(uuid, "WAKEUP", called.real_ns, _WAKE_S)
            self._asleep = False
            ground.strangers.add(
                guest
            )  # its virtio-serial devices begin anew, and the agent's channel with them
            return Resumed(Call(called, returned, stamp))

    def finish(self) -> None:
        return None

    def charge(self) -> Charge | None:
        return charge(Wake, self._ground, self._guest)
