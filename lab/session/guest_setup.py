"""Equips a guest: with programs of the user's own, and for a cell with its resync mechanism and with programs
that watch it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from lab.controller import CycleGuest
from lab.core.depth_needs import obstacle
from lab.core.plan import Cell, CycleSpec, Depth, GuestSpec, RtcTrack, TimeFault
from lab.core.timesync_setup import Setup
from lab.core.units import NS_PER_S, format_size
from lab.errors import FreezelabError, GuestGone, Interrupted, Refused
from lab.guest import timesync
from lab.guest.fill import Fill, room
from lab.guest.installer import GuestInstaller
from lab.guest.probe_command import LOAD_PTP_KVM
from lab.guest.session_probe import SessionProbe
from lab.guest.shell_thaw import ShellThaw
from lab.guest.ssh_route import SshRoute
from lab.guest.timesync.put_back import PutBack
from lab.guest.wall_clock import wall_clock_page
from lab.guest.watcher import GuestWatcher
from lab.guest.work_counter import GuestWorkCounter
from lab.guest.writer import GuestWriter
from lab.host import chronyd
from lab.host.chronyd import Chronyd
from lab.host.ntprelay import NtpRelay
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.agent import SetBy
from lab.hypervisor.domain import Accelerator
from lab.ports import Clock, Resync, View
from lab.process.pace import paced
from lab.session.images import check_cell
from lab.session.paths import default_home
from lab.session.settings import Settings

HOST_IN_GUEST = "10.0.2.2"
"""The address of the host's loopback in a guest on QEMU's user-mode network (QEMU, "Network emulation")."""

SELF_THAW_NS = 2 * NS_PER_S
"""How long after the end of the budget a guest thaws its own file systems, if nobody else has."""

AGENT_NS = 60 * NS_PER_S
"""The longest time from SSH's first answer to the agent's."""


OWN_AGENT_NS = 5 * NS_PER_S
"""The same in a guest that has run for long."""

SPARE_NS = 600 * NS_PER_S
"""How much longer than its own times a cycle may take, on a busy host or when it is another one, by hand."""


def most_ns(cycle: CycleSpec) -> int:
    """How long a program in the guest works in such a cycle, if nobody has it stop before."""
    return cycle.before_ns + cycle.budget_ns + cycle.watch_ns + SPARE_NS


class _AtFault:
    """A resync mechanism whose server has a fault until some time after the resume: ports.Resync."""

    def __init__(self, resync: Resync, relay: NtpRelay) -> None:
        self._resync, self._relay = resync, relay
        self.outcome, self.finished_raw_ns = resync.outcome, resync.finished_raw_ns
        self.remove = resync.remove

    def setup(self) -> Setup:
        return replace(self._resync.setup(), server_fault=self._relay.fault.text)

    def resumed(self) -> None:
        self._relay.end_in(self._relay.fault.lasts_ns)
        self._resync.resumed()


class GuestSetup:
    """Equips running guests of a run with these settings."""

    def __init__(self, hypervisor: LibvirtHypervisor, settings: Settings, clock: Clock, view: View) -> None:
        self._hypervisor, self._home, self._folder = hypervisor, settings.home, settings.folder
        self._clock, self._view, self._settings = clock, view, settings
        self._server: Chronyd | None = None
        self._equipped: set[str] = set()
        self._relay: NtpRelay | None = None  # before the server, when that is at fault

    def serve_time(self, stack: ExitStack, offset_ns: int = 0, fault: TimeFault | None = None) -> None:
        """Run the host's NTP server until `stack` is left. The calling thread has to live that long."""
        if self._server is None:
            program = chronyd.find(self._home, default_home())
            server = Chronyd(program, self._folder / "chronyd", self._clock, offset_ns=offset_ns)
            self._server = stack.enter_context(server)
            if fault is not None:
                self._relay = stack.enter_context(NtpRelay((server.address, server.port), fault, self._clock))

    def install(self, spec: GuestSpec, probe: SessionProbe) -> float:
        """Put the user's programs into a guest; the result is the time in seconds. GuestError, with the last
        lines of what failed."""
        begun = self._clock.now().raw_ns
        values = self._settings.secret_values(spec)

        def progress(step: str) -> None:
            self._view.phase("set up", guest=f"{spec.name}: {values.mask(step)}")

        GuestInstaller(spec.name, lambda: probe.ssh, self._clock, values, progress).install(spec.setup)
        return round((self._clock.now().raw_ns - begun) / NS_PER_S, 2)

    def fill(self, spec: GuestSpec, probe: SessionProbe) -> int:
        """Fill the guest's memory with incompressible pages, before anything is measured; the result is the
        number of bytes."""
        self._view.phase("fill memory", guest=spec.name)
        wanted, most = round(spec.memory_bytes * spec.fill), room(probe.ssh)
        if wanted > most:
            text = f"{format_size(most >> 20 << 20)} are filled; the guest needs the rest"
            self._view.note(f"guest {spec.name}: {text}")
        if most <= 0:
            return 0
        fill = Fill(lambda: probe.ssh, min(wanted, most)).start()
        fill.wait()
        return fill.size

    def equip(self, spec: GuestSpec, probe: SessionProbe, cell: Cell, stack: ExitStack) -> CycleGuest:
        """A guest that is ready for its cycles and in time; everything installed is removed when `stack` is
        left. Refused when the guest does not support the cell's mechanism, GuestError or HypervisorError when
        its installation failed."""
        name = spec.name
        image = self._settings.images.get(spec.image_key)  # none: it is the user's own
        if image is not None:
            check_cell(cell, spec, image)
        if why := obstacle(probe.depth, cell, spec):
            raise Refused(why, where=f"guest {name}")
        if cell.resync.uses_agent:
            self._hypervisor.agent_ready(name, self._clock.now().raw_ns + round(paced(AGENT_NS)))
        elif spec.is_own and cell.cycle.method.traits.freezes_files:  # before the writer, which hangs
            self._hypervisor.agent_ready(name, self._clock.now().raw_ns + round(paced(OWN_AGENT_NS)))
        on_kvm = self._settings.accelerator.accelerator is Accelerator.KVM
        if on_kvm and not spec.is_own and probe.depth is Depth.PYTHON:
            probe.ssh.run(LOAD_PTP_KVM)  # for its readings, if it can
        if on_kvm and cell.cycle.prove_memory:
            self._hypervisor.wall_clocks[name] = wall_clock_page(probe.ssh)
        access = self._access(spec, probe)
        self._equipped.add(name)
        resync = timesync.install(cell.resync, access)
        stack.callback(self._removed, name, resync)
        watcher = self._watcher(spec, probe, cell, stack)
        begin: list[Callable[[], object]] = []
        if self._relay is not None and cell.resync.uses_ntp:
            resync = _AtFault(resync, self._relay)
            begin.append(self._relay.begin)
        writer = self._writer(spec, probe, cell, stack)
        if (thaws := writer or self._shell_thaw(spec, probe, cell, stack)) is not None:
            self._hypervisor.thaws[name] = thaws.thaw
            stack.callback(self._hypervisor.thaws.pop, name, None)
            begin.append(partial(thaws.arm, cell.cycle.budget_ns + SELF_THAW_NS))

        def before_freeze() -> None:
            for each in begin:
                each()

        return CycleGuest(
            name,
            probe,
            resync,
            watcher,
            cell.id,
            before_freeze=before_freeze,
            writer=writer,
            work=self._counter(probe, cell, stack),
        )

    def _counter(self, probe: SessionProbe, cell: Cell, stack: ExitStack) -> GuestWorkCounter | None:
        """The program that dirties the guest's memory. None when none is wanted."""
        if cell.cycle.dirty is None:
            return None
        return stack.enter_context(GuestWorkCounter(lambda: probe.ssh, cell.cycle.dirty, most_ns(cell.cycle)))

    def _writer(
        self, spec: GuestSpec, probe: SessionProbe, cell: Cell, stack: ExitStack
    ) -> GuestWriter | None:
        """The writer of a guest whose file systems are to be frozen. None without Python in it."""
        if probe.depth is not Depth.PYTHON or not cell.cycle.method.traits.freezes_files:
            return None
        writer = GuestWriter(spec.name, lambda: probe.ssh, most_ns(cell.cycle), sysrq=not spec.is_own)
        return stack.enter_context(writer)

    def _shell_thaw(
        self, spec: GuestSpec, probe: SessionProbe, cell: Cell, stack: ExitStack
    ) -> ShellThaw | None:
        """What thaws such a guest from inside where there is only a shell. None where there is none."""
        if probe.depth is not Depth.SHELL or not cell.cycle.method.traits.freezes_files:
            return None
        return stack.enter_context(ShellThaw(spec.name, lambda: probe.ssh))

    def _watcher(
        self, spec: GuestSpec, probe: SessionProbe, cell: Cell, stack: ExitStack
    ) -> GuestWatcher | None:
        """The watcher of a guest. None when no program disciplines the clock and no effects are recorded:
        then there is nothing to watch, and without Python nobody who could."""
        effects, load = cell.cycle.effects, cell.cycle.load
        if probe.depth is not Depth.PYTHON or not (cell.resync.is_daemon or effects or load):
            return None
        own = self._hypervisor.own.facts(spec.name)
        vcpus = own.vcpus if own is not None else spec.vcpus
        return stack.enter_context(
            GuestWatcher(spec.name, lambda: probe.ssh, cell.resync, effects, load, vcpus, most_ns(cell.cycle))
        )

    def _access(self, spec: GuestSpec, probe: SessionProbe) -> timesync.GuestAccess:
        hypervisor, name = self._hypervisor, spec.name
        own = hypervisor.own.facts(name)
        # A guest on a bridge of the host's has no way to the host's loopback, where the server listens.
        inside = own.user_network if own is not None else not spec.bridge
        server = self._server if inside else None
        return timesync.GuestAccess(
            guest=name,
            ssh=lambda: probe.ssh,
            clock=self._clock,
            server=HOST_IN_GUEST if server else "",
            port=(self._relay or server).port if server else 0,
            agent=timesync.Agent(
                ping=lambda: hypervisor.agent_ping(name),
                set_time=lambda: hypervisor.set_time(name),
                set_seconds=lambda: hypervisor.set_time(name, SetBy.SECONDS),
                read_rtc=lambda: hypervisor.set_time(name, SetBy.RTC),
                system=lambda: hypervisor.own.system(name) if spec.is_own else {},
            ),
            rtc_stops=(own.rtc if own is not None else spec.rtc) is RtcTrack.GUEST,
            push_sockets=lambda: hypervisor.push_sockets(name),
            clock_line=lambda: probe.clock_line(self._clock),
            untouched=name not in self._equipped,
            own=spec.is_own,
            foreign=not spec.is_own and self._settings.images[spec.image_key].imported,
            is_root=probe.depth is Depth.AGENT
            or not isinstance(way := probe.ssh.address, SshRoute)
            or way.is_root,
            depth=probe.depth,
        )

    def _removed(self, name: str, resync: Resync) -> None:
        try:
            resync.remove()
        except Interrupted:
            raise
        except FreezelabError as error:
            if isinstance(error, GuestGone) and error.ended and not isinstance(resync, PutBack):
                return
            self._view.note(f"guest {name}: its resync mechanism could not be removed: {error}")
