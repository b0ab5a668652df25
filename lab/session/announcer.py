"""Sets up the announcements of a cell: the metadata service, its connection into each guest, and the handlers
in the guests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from lab.controller.meeting import Meeting
from lab.core.announcement import ENABLED_WITHIN_NS, answers_of, rules_of
from lab.core.handlers import HandlerEnd
from lab.core.history import HandlerEnded, ServiceFailed
from lab.core.plan import Announcement, GuestSpec
from lab.core.scheduled.instance import InstanceInfo, size_name
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import GuestError, Refused
from lab.events.service import MetadataService
from lab.guest.forward import MetadataForward
from lab.guest.handler import GuestHandler
from lab.guest.host_names import MetadataHostNames
from lab.guest.session_probe import SessionProbe
from lab.guest.ssh import SSH
from lab.guest.ssh_route import SshRoute
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.image.seed import USER_NETWORK
from lab.ports import Announcer, Clock, Journal, View
from lab.session.fleet_service import FleetService
from lab.session.parallel import enter_together
from lab.session.paths import made

LOOK_NS = 20 * NS_PER_MS


def ssh_of(probe: SessionProbe) -> SSH:
    """The guest's SSH connection; a lost one is replaced."""
    return probe.ssh


def _current_of(probe: SessionProbe) -> SSH | None:
    """The guest's present SSH connection, for another thread."""
    return probe.current


def _removed(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # another process's service has its sockets there
        folder.parent.rmdir()


class CellMetadataService:
    """A metadata service for the guests of a cell, until `stack` is left. cell: its id. log_folder: the run's
    own; folder: for the service's sockets, with a short path. public_key: the line of the key that may log
    in. mask: for a guest, what takes its secrets out of a text. meeting: of a host of a fleet, whose
    controller has the service."""

    def __init__(
        self,
        hypervisor: LibvirtHypervisor,
        clock: Clock,
        view: View,
        journal: Journal,
        cell: str,
        folder: Path,
        log_folder: Path,
        public_key: str,
        mask: Callable[[GuestSpec], Callable[[str], str]] = lambda _: str,
        meeting: Meeting | None = None,
    ) -> None:
        self._hypervisor, self._clock, self._view = hypervisor, clock, view
        self._journal, self._cell = journal, cell
        self._folder, self._log_folder, self._public_key = folder, log_folder, public_key
        self._mask, self._meeting = mask, meeting
        self._handlers: dict[str, GuestHandler] = {}
        self._reported: set[str] = set()

    def start(
        self,
        spec: Announcement,
        guests: Sequence[GuestSpec],
        probes: Mapping[str, SessionProbe],
        stack: ExitStack,
        call_off: Callable[[], None],
    ) -> Announcer:
        """Start the service and the handlers, and wait for their first requests. call_off: ends all waiting
        for the guests. GuestError when a guest cannot reach it, or a handler sends no request. Refused for
        a domain of the user's own whose login is not root's."""
        self._view.phase("metadata service")
        for guest in guests:
            way = probes[guest.name].ssh.address
            if isinstance(way, SshRoute) and (way.sudo or not way.is_root):
                what = "the metadata service needs a login as root: only root's sshd may listen on port 80"
                raise Refused(what, where=f"guest {guest.name}", hint=f"set user: root; it was {way}")
        instances = [self._about(guest, spec) for guest in guests]
        service = self._service(spec, instances, stack)
        ways = {guest.name: partial(ssh_of, probes[guest.name]) for guest in guests}
        connects = {guest.name: partial(service.connect, guest.name) for guest in guests}
        forwards = [
            MetadataForward(name, partial(_current_of, probes[name]), connect)
            for name, connect in connects.items()
        ]
        enter_together(stack, forwards, call_off)
        names = spec.cloud.traits.host_names
        currents = [partial(_current_of, probes[guest.name]) for guest in guests]
        enter_together(stack, [MetadataHostNames(current, names) for current in currents], call_off)
        stack.callback(self._farewell, service, forwards)
        if spec.handler:
            self._view.phase("handler", guest=", ".join(ways))
            self._handlers = {guest.name: self._handler(spec, guest, ways[guest.name]) for guest in guests}
            enter_together(stack, list(self._handlers.values()), call_off)
            self._await(service, [guest.name for guest in guests])
        return service.announcer

    def _service(
        self, spec: Announcement, instances: Sequence[InstanceInfo], stack: ExitStack
    ) -> MetadataService | FleetService:
        if self._meeting is not None:
            return stack.enter_context(FleetService(self._meeting, instances))
        stack.callback(_removed, made(self._folder))
        service = MetadataService(instances, rules_of(spec), self._clock, self._folder, answers_of(spec))
        return stack.enter_context(service)

    def booted(self, guest: str) -> None:
        """Start the guest's handler again after a reboot, as a service of the guest itself would start.
        GuestError when that fails."""
        if handler := self._handlers.get(guest):
            handler.start()
            self._reported.discard(guest)

    def handler_end(self, guest: str) -> HandlerEnd | None:
        """The end of the guest's handler; None while it runs. GuestError when the guest does not answer."""
        handler = self._handlers.get(guest)
        end = handler.look() if handler is not None else None
        if end is not None and guest not in self._reported:
            self._reported.add(guest)
            self._view.note(f"the handler in guest {guest} {end.text}")
        return end

    def _farewell(self, service: MetadataService | FleetService, forwards: Sequence[MetadataForward]) -> None:
        """Report errors of the service at its end. Handlers are closed by then."""
        for name, handler in self._handlers.items():
            if handler.end is not None and name not in self._reported:
                self._view.note(f"the handler in guest {name} {handler.end.text}")
                self._journal.append(HandlerEnded(name, handler.end, self._cell))
        lost = [
            f"cannot be reached from guest {one.guest}: {one.why}"
            for one in forwards
            if one.why and not one.up
        ]
        for trouble in filter(None, [service.trouble, *lost]):
            self._view.note(f"metadata service: {trouble}")
            self._journal.append(ServiceFailed(trouble, self._cell))

    def _handler(self, spec: Announcement, guest: GuestSpec, ssh: Callable[[], SSH]) -> GuestHandler:
        program, *arguments = spec.handler
        log = self._log_folder / f"handler-{guest.name}.log"
        stem, mask = Path(program).stem, self._mask(guest)
        return GuestHandler(guest.name, ssh, Path(program), arguments, stem, log, mask=mask)

    def _await(self, service: MetadataService | FleetService, guests: Sequence[str]) -> None:
        deadline = self._clock.now().raw_ns + ENABLED_WITHIN_NS
        look = self._clock.now().raw_ns + NS_PER_S
        while silent := [name for name in guests if not service.has_asked(name)]:
            now = self._clock.now().raw_ns
            if now >= look:
                for name in silent:
                    if (end := self._handlers[name].look()) is not None:
                        raise GuestError(f"its handler {end.text}", where=f"guest {name}")
                look = self._clock.now().raw_ns + NS_PER_S
            if now >= deadline:
                raise GuestError(
                    f"its handler has not asked for events within {ENABLED_WITHIN_NS // NS_PER_S} s",
                    where=f"guest {silent[0]}",
                    hint=f"its output is in {self._log_folder / f'handler-{silent[0]}.log'}",
                )
            self._clock.sleep_until(now + LOOK_NS)

    def _about(self, guest: GuestSpec, spec: Announcement) -> InstanceInfo:
        given = spec.instance + guest.instance
        if (own := self._hypervisor.own.facts(guest.name)) is not None:
            size = size_name(own.vcpus, own.memory_bytes)
            return InstanceInfo(
                guest.name, guest.event_name, own.machine_uuid, size, mac=own.mac, given=given
            )
        domain = self._hypervisor.spec(guest.name)
        if domain is None:
            raise GuestError("its domain has gone", where=f"guest {guest.name}")
        address, _, prefix = (guest.address if guest.bridge else USER_NETWORK).partition("/")
        return InstanceInfo(
            guest=guest.name,
            name=guest.event_name,
            vm_id=domain.machine_uuid,
            size=size_name(guest.vcpus, guest.memory_bytes),
            availability_set=guest.availability_set,
            scale_set=guest.scale_set,
            fault_domain=guest.fault_domain,
            update_domain=guest.update_domain,
            mac=domain.mac,
            address=address,
            prefix=int(prefix),
            public_key=self._public_key,
            given=given,
        )
