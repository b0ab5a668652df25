"""Starts the guests of a run, and removes them after it in any case."""

from __future__ import annotations

import secrets
import shutil
import socket
import uuid
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from lab.controller import CycleGuest
from lab.core.history import GuestBooted
from lab.core.history.run_events import Timing
from lab.core.plan import Cell, Depth, GuestSpec, TimeFault
from lab.core.units import NS_PER_S
from lab.errors import FreezelabError, GuestError, GuestGone, HypervisorError, Interrupted
from lab.guest.address import Address
from lab.guest.connections import GuestConnections
from lab.guest.console import ConsoleLog, Panicked, console_end
from lab.guest.probe import GuestProbe, Waiting
from lab.guest.serial import SerialLine
from lab.guest.session_probe import SessionProbe, probe_timings
from lab.guest.ssh import SSH
from lab.host.network import LabNetwork
from lab.hypervisor import memory
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.domain import Accelerator, Console, Disk, DomainSpec, push_socket
from lab.image.store import overlay
from lab.ports import Clock, Journal, NullView, View
from lab.process.signals import Teardown, shield, whole
from lab.record.journal import NullJournal
from lab.session.agent_guests import booted_agent
from lab.session.clones import Clones
from lab.session.guest_monitor import GuestMonitor
from lab.session.guest_network import GuestNetwork, taps_of
from lab.session.guest_seed import write_seed
from lab.session.guest_setup import GuestSetup
from lab.session.own_guests import OwnGuests
from lab.session.parallel import together
from lab.session.paths import made
from lab.session.settings import (
    FOR_TCG,
    PreparedGuest,
    Settings,
    StartedGuest,
    devices_of,
    emulator_for,
    lab_key,
    on_a_free_port,
    ram_file,
)

REACHABLE = (
    "this libvirt runs guests as a user who may not enter these folders; set FREEZELAB_HOME and "
    "FREEZELAB_CACHE to folders open to it, such as /var/lib/freezelab"
)

BOOT_TRIES = 3
T = TypeVar("T")
ASKED_FOR = "cold starts were asked for"
CALLED_OFF = GuestGone("called off", ended=True)


class Guests:
    """Starts guests, and removes at the end all that are left. A context manager."""

    def __init__(
        self, hypervisor: LibvirtHypervisor, settings: Settings, clock: Clock, view: View, journal: Journal
    ) -> None:
        self._hypervisor, self._settings = hypervisor, settings
        self._clock, self._view, self._journal = clock, view, journal
        self._stack = self._teardown()
        self._probes: dict[str, SessionProbe] = {}
        self._launched, self._addresses = list[str](), dict[str, Address]()
        self._connections: dict[str, GuestConnections] = {}
        self._timings: dict[GuestSpec, dict[str, Timing]] = {}
        self._called_off = self._left = False
        self._monitor: GuestMonitor | None = None
        self._own = OwnGuests(hypervisor, settings, clock, view)
        self._setup = GuestSetup(hypervisor, settings, clock, view)
        self._network = GuestNetwork(settings, hypervisor, journal, self._socket)
        self._key, self._public = lab_key(settings.home)
        self._folder = settings.home / "guests" / settings.run
        self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)

    def __enter__(self) -> Guests:
        return self

    @whole
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._left:
                self._view.phase("remove guests")
                together(list(dict.fromkeys(self._launched)), self._try_to_remove)
        finally:
            self._stack.__exit__(kind, value, trace)
            if not self._left:
                with suppress(HypervisorError):  # a log that stays is recover's
                    self._hypervisor.drop_logs(self._settings.run, self._settings.folder)

    def boot(self, specs: Mapping[GuestSpec, str]) -> None:
        """Boot the guests in parallel, each for the cell with this name, and open a probe in each; those that
        are the user's own run already. GuestError when one does not answer."""
        for spec in [spec for spec in specs if spec.is_own]:
            self._watch(spec.name, partial(self._hypervisor.look, spec.name))
            self._ready(spec, *self._own.take(spec, self._connections[spec.name], self._stack))
        begun = {spec: self._clock.now().raw_ns for spec in specs if not spec.is_own}
        prepared = {spec: self._prepare(spec) for spec in begun}
        self._network.start(self._stack)
        clones = None
        if self._settings.golden and prepared:
            clones = Clones(self, self._hypervisor, self._settings, self._clock, self._view)
            # Closed by hand: who is interrupted in between still holds the generator, and so its workers.
            with closing(clones.start(list(prepared.values()))) as started_so:
                for spec, clone in started_so:
                    self._ready(spec, clone.probe, clone.timings(begun[spec]))
                    del prepared[spec]
        started = {spec: self._start(guest) for spec, guest in prepared.items()}
        for spec, guest in started.items():
            self._view.phase("boot", guest=spec.name)
            probe, again = self._booted(prepared[spec], guest, self._reach)
            why = clones.booted(spec) if clones is not None else ASKED_FOR
            to_probe_s = round((self._clock.now().raw_ns - begun[spec]) / NS_PER_S, 2)
            timings: dict[str, Timing] = {"to_probe_s": to_probe_s, "started": "cold"}
            timings |= {"because": why} if why else {}
            timings |= {"panics": again} if again else {}
            timings |= probe_timings(probe) if guest.imported else {}
            self._ready(spec, probe, timings)
        self._set_up(specs)

    def _ready(self, spec: GuestSpec, probe: SessionProbe, timings: dict[str, Timing]) -> None:
        if not probe.resting:
            probe.rest()  # until its cycle: the probes of a fleet would keep the host busy
        self._probes[spec.name], self._timings[spec] = probe, timings

    def _set_up(self, cells: Mapping[GuestSpec, str]) -> None:
        """Install the user's programs, in parallel, fill memories, and record the starts."""
        together(list(cells), lambda spec: self._network.join(spec, self._probes[spec.name]), self.call_off)
        programs = [spec for spec in cells if spec.setup.in_guest]

        def install(spec: GuestSpec) -> float:
            return self._setup.install(spec, self._probes[spec.name])

        for spec, set_up_s in zip(programs, together(programs, install, self.call_off), strict=True):
            self._timings[spec] |= {"set_up_s": set_up_s}
        for spec, cell in cells.items():
            if spec.fill:
                self._timings[spec] |= {"filled_bytes": self._setup.fill(spec, self._probes[spec.name])}
            self._journal.append(GuestBooted(spec.name, self._timings[spec], cell))

    def apart(self, settings: Settings) -> Guests:
        """Guests of another run on the same host, which nobody is shown and no history names."""
        return Guests(self._hypervisor, settings, self._clock, NullView(), NullJournal())

    def login(self, spec: GuestSpec) -> SSH:
        """Boot a guest and log in to it, once, without a probe. GuestError when it does not answer."""
        guest = self._prepare(spec)
        ssh, _ = self._booted(guest, self._start(guest), self._connect)
        return self._stack.enter_context(ssh)

    def _booted(
        self, guest: PreparedGuest, started: StartedGuest, reach: Callable[[StartedGuest], T]
    ) -> tuple[T, int]:
        """The result of `reach` for a booting guest, and the number of restarts after kernel panics: on a
        busy host an emulated guest may find that its timers do not work."""
        for again in range(BOOT_TRIES):
            try:
                return reach(started), again
            except Panicked as error:
                if again == BOOT_TRIES - 1:
                    raise
                self._view.note(f"{str(error).splitlines()[0]}; it is started again")
                self.remove(guest.spec.name)
                started = self._start(guest)
        raise AssertionError  # the last try returns or raises

    def serve_time(self, offset_ns: int, fault: TimeFault | None = None) -> None:
        """Run the host's NTP server as long as the guests, with this offset and fault."""
        self._setup.serve_time(self._stack, offset_ns, fault)

    def equip(self, cell: Cell, stack: ExitStack) -> dict[str, CycleGuest]:
        """The cell's guests, ready for its cycles; see GuestSetup.equip."""
        stacks = {spec: self._teardown() for spec in cell.guests}

        def leave(_kind: object, value: BaseException | None, _trace: object) -> None:
            if isinstance(value, Interrupted):
                self.call_off()  # nothing need be taken out of guests that are taken down
            together(list(stacks.values()), Teardown.close)

        stack.push(leave)

        def equip(spec: GuestSpec) -> CycleGuest:
            probe = self._probes[spec.name]
            return self._network.in_cycles(spec, probe, self._setup.equip(spec, probe, cell, stacks[spec]))

        return {subject.name: subject for subject in together(cell.guests, equip, self.call_off)}

    def up(self, cell: Cell) -> dict[str, CycleGuest]:
        """Boot a cell's guests, and equip them for as long as they are there."""
        self.boot(dict.fromkeys(cell.guests, cell.id))
        if cell.resync.uses_ntp:
            self.serve_time(0)
        return self.equip(cell, self._stack)

    @property
    def network(self) -> LabNetwork | None:
        """The lab's own network of these guests; None without one, and before they are booted."""
        return self._network.running

    @property
    def probes(self) -> Mapping[str, SessionProbe]:
        """The probes of booted guests, by name."""
        return self._probes

    def address(self, name: str) -> Address:
        """The address of a guest that was started here."""
        return self._addresses[name]

    def leave(self) -> None:
        """Leave everything that was started running; the caller has to remove it."""
        for probe in self._probes.values():
            probe.close()
        if self._monitor is not None:
            self._monitor.__exit__()
        self._stack = self._teardown()  # what was to be undone is not: nobody leaves the old one
        self._left = True

    def _teardown(self) -> Teardown:
        return Teardown(self._view.note, self._hypervisor.recover_command)

    def _prepare(self, spec: GuestSpec) -> PreparedGuest:
        settings = self._settings
        image = settings.images[spec.image_key]
        remote = self._hypervisor.remote
        folder = made(made(self._folder, private=not remote) / spec.name)
        seed = write_seed(spec, image, self._public, folder, for_others=remote)
        emulator = emulator_for(spec, settings, self._hypervisor)
        emulated = FOR_TCG if settings.accelerator.accelerator is Accelerator.TCG else ()
        one, other = taps_of(spec, settings, self._stack) if spec.bridge else ("", "")
        domain = DomainSpec(
            guest=spec.name,
            run=settings.run,
            home=settings.home,
            memory_bytes=spec.memory_bytes,
            vcpus=spec.vcpus,
            accelerator=settings.accelerator.accelerator,
            emulator=emulator.path,
            machine=emulator.machine,
            kernel=image.kernel,
            initrd=image.initrd,
            firmware=image.firmware,
            cmdline=" ".join((image.cmdline, *emulated, *spec.kernel_options)),
            console_log=settings.folder / f"console-{spec.name}.log",
            disk=Disk(folder / "disk.qcow2"),
            console=Console.VIRTIO if "console=hvc0" in image.cmdline else Console.SERIAL,
            seed_disk=seed.disk,
            fw_cfg=seed.fw_cfg,
            mac=seed.mac,
            agent_socket=None if remote else self._socket(),
            probe_socket=None if remote else self._socket(),
            monitor_socket=None if remote else self._socket(),
            control_socket=None if remote else self._socket(),
            memory_file=ram_file(spec, settings, self._stack),
            guest_sleep=settings.guest_sleep,
            rtc_track=spec.rtc,
            tap=one,
            other_tap=other,
            kept_guest=settings.kept_guest,
            watchdog=spec.watchdog or "",
            devices=devices_of(spec, emulator, settings),
            nested=settings.nested,
        )
        return PreparedGuest(spec, self._network.attach(spec, domain), image, folder, seed)

    def _start(self, guest: PreparedGuest) -> StartedGuest:
        """Start the guest from its image, whatever was tried before."""
        (guest.folder / "disk.qcow2").unlink(missing_ok=True)
        if guest.domain.memory_file is not None:
            memory.allocate(guest.domain.memory_file, guest.domain.memory_bytes)
        overlay(guest.image, guest.folder / "disk.qcow2")
        # With an id of its own: libvirt's events of the other domain may still come.
        return self.launch(guest, replace(guest.domain, uuid=str(uuid.uuid4()), machine_uuid=""), self._boot)

    def launch(
        self, guest: PreparedGuest, domain: DomainSpec, start: Callable[[DomainSpec], object]
    ) -> StartedGuest:
        """Start the domain with `start`, on a port of its own if it needs one."""
        name = guest.spec.name
        self._launched.append(name)
        console = ConsoleLog(name, domain.console_log)

        def look() -> None:
            self._hypervisor.look(name)
            console.look()

        self._watch(name, look)
        self._stack.callback(self.remove, guest.spec.name)
        with shield():  # a domain that libvirt starts has to become known here
            if domain.tap:
                start(domain)
                host, port = guest.spec.address.split("/")[0], 22
            else:
                host, port = "127.0.0.1", on_a_free_port(domain, start)
        address = Address(guest.spec.name, host, port, guest.image.user, self._key, guest.seed.host_key)
        self._addresses[name] = address
        return StartedGuest(guest.spec, address, domain.console_log, guest.image.imported, guest.image.depth)

    def _watch(self, name: str, look: Callable[[], None]) -> None:
        """Have the connections of a guest cut when it is known to have ended. look: see GuestConnections."""
        if self._monitor is None:
            self._monitor = self._stack.enter_context(
                GuestMonitor(self._hypervisor, self._connections, self._probes)
            )
        self._connections[name] = connections = GuestConnections(look)
        if self._called_off:
            connections.end(CALLED_OFF)

    def _boot(self, domain: DomainSpec) -> None:
        try:
            self._hypervisor.define_and_start(domain)
        except FreezelabError as error:
            if not self._hypervisor.remote or "Permission denied" not in str(error):
                raise
            raise HypervisorError(error.what, where=error.where, hint=REACHABLE) from error

    def _socket(self) -> Path:
        path = made(self._settings.home / "agents") / secrets.token_hex(4)  # unix(7) allows 107 bytes
        self._stack.callback(path.unlink, missing_ok=True)
        self._stack.callback(push_socket(path).unlink, missing_ok=True)
        return path

    def until_removed(self, undo: Callable[[], object]) -> None:
        """Undo something when the guests are removed."""
        self._stack.callback(undo)

    def call_off(self) -> None:
        """End all waiting for the guests, permanently."""
        self._called_off = True
        for connections in tuple(self._connections.values()):
            connections.end(CALLED_OFF)

    def remove(self, name: str) -> None:
        """End a guest of this run: another run may have one of the same name, and this run's was refused.
        HypervisorError when it does not end."""
        there = self._hypervisor.spec(name)
        if there is not None and there.run == self._settings.run:
            self._hypervisor.destroy(name)

    def _try_to_remove(self, name: str) -> None:
        """Remove all guests in parallel first; failures are retried, and reported, when the stack is left."""
        with suppress(FreezelabError):
            self.remove(name)

    def alive(self, name: str) -> None:
        """GuestError when its domain does not run."""
        state = self._hypervisor.state(name)
        if state != "running":
            raise GuestError(f"the guest is {state} instead of booting", where=f"guest {name}")

    def _boot_s(self, guest: StartedGuest) -> float:
        return self._settings.boot_s or guest.boot_s(self._settings.accelerator.accelerator)

    def _connect(self, guest: StartedGuest, listens: bool = False) -> SSH:
        known, within_s = self._connections[guest.spec.name], self._boot_s(guest)
        return guest.patient(
            lambda: SSH.connect(guest.address, self._clock, within_s, known, listens=listens)
        )

    def _reach(self, guest: StartedGuest) -> SessionProbe:
        """What looks into a booting guest, until the end. GuestError when it does not answer."""
        if guest.depth is not Depth.AGENT:
            return self.probe(guest)
        name, look = guest.spec.name, self._connections[guest.spec.name].check
        return booted_agent(self._hypervisor, name, self._clock, self._boot_s(guest), look)

    def probe(
        self, guest: StartedGuest, waiting: Waiting | None = None, connected: socket.socket | None = None
    ) -> GuestProbe:
        """The same by a program in it. waiting: see GuestProbe. connected: see SerialLine."""
        name = guest.spec.name

        def socket_now() -> Path | None:
            domain = self._hypervisor.spec(name)
            return domain.probe_socket if domain is not None else None

        try:
            serial = SerialLine(name, self._clock, socket_now, connected)
            connect = partial(self._connect, guest, waiting is not None)
            return self._stack.enter_context(GuestProbe(name, connect, serial, waiting, guest.depth))
        except GuestError as error:
            error.hint = error.hint or console_end(guest.console)
            raise
