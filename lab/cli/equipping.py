"""What is put into a guest for a cell: what repairs its clock, and what watches it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from lab.cli.paths import default_home
from lab.controller import Subject
from lab.core.plan import Cell, GuestSpec, ResyncMechanism
from lab.core.units import NS_PER_S
from lab.errors import FreezelabError, Refused
from lab.guest.probe import GuestProbe
from lab.guest.timesync import AgentResync, ChronyResync, NoResync
from lab.host import chronyd
from lab.host.chronyd import Chronyd
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.ports import Clock, Resync, View

HOST_IN_GUEST = "10.0.2.2"
"""The host's loopback as a guest on QEMU's user-mode network sees it (QEMU, "Network emulation")."""

AGENT_NS = 60 * NS_PER_S
"""How long the guest's agent may take to answer after SSH has."""


class Equipment:
    """Equips guests that run. home: the state folder. folder: the run's own."""

    def __init__(
        self, hypervisor: LibvirtHypervisor, home: Path, folder: Path, clock: Clock, view: View
    ) -> None:
        self._hypervisor, self._home, self._folder = hypervisor, home, folder
        self._clock, self._view = clock, view
        self._server: Chronyd | None = None

    def serve_time(self, stack: ExitStack, offset_ns: int = 0) -> None:
        """Have the host's NTP server running until `stack` is left. From a thread that lives as long."""
        if self._server is None:
            program = chronyd.find(self._home, default_home())
            server = Chronyd(program, self._folder / "chronyd", self._clock)
            self._server = stack.enter_context(server)

    def equip(self, spec: GuestSpec, probe: GuestProbe, cell: Cell, stack: ExitStack) -> Subject:
        """A guest ready for its cycles, in time; what was installed is removed when `stack` is left. Refused
        when it cannot have what the cell asks for, GuestError or HypervisorError when that failed."""
        name, mechanism = spec.name, cell.resync
        if mechanism.uses_ntp and spec.bridge:
            raise Refused(
                "the host's time server is reached by QEMU's user-mode network only",
                where=name,
                hint="another resync, or no network: for this guest",
            )
        # A guest boots with its RTC's whole seconds. It starts in time, or the freeze could not be told
        # from the boot.
        self._hypervisor.agent_ready(name, self._clock.now().raw_ns + AGENT_NS)
        self._hypervisor.set_time(name)
        resync = self._install(name, mechanism, probe)
        stack.callback(self._removed, name, resync)
        return Subject(name, probe, resync, cell=cell.id)

    def _install(self, name: str, mechanism: ResyncMechanism, probe: GuestProbe) -> Resync:
        if mechanism is ResyncMechanism.AGENT:
            return AgentResync(lambda: self._hypervisor.set_time(name))
        if self._server is not None and mechanism is ResyncMechanism.CHRONY:
            resync = ChronyResync(lambda: probe.ssh, HOST_IN_GUEST, self._server.port)
            resync.prepare()
            return resync
        return NoResync()

    def _removed(self, name: str, resync: Resync) -> None:
        try:
            resync.remove()
        except FreezelabError as error:
            self._view.note(f"guest {name}: what repairs its clock could not be removed: {error}")
