"""The networks of one run's guests beside QEMU's user-mode network: the lab's own, and taps on a bridge."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from lab.controller import CycleGuest
from lab.core.history import NetworkEnded, NetworkStarted
from lab.core.plan import GuestSpec
from lab.errors import MachineError, Refused
from lab.guest import lab_network
from lab.guest.session_probe import SessionProbe
from lab.host.network import Attachment, LabNetwork
from lab.host.taps import Tap
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.domain import DomainSpec
from lab.ports import Journal
from lab.process.signals import shield
from lab.session.settings import Settings


class GuestNetwork:
    """The lab's own network, which has no guests in most runs. settings: of the run. new_socket: makes the
    path of a socket that is removed with the guests."""

    def __init__(
        self,
        settings: Settings,
        hypervisor: LibvirtHypervisor,
        journal: Journal,
        new_socket: Callable[[], Path],
    ) -> None:
        self._settings, self._hypervisor, self._new_socket = settings, hypervisor, new_socket
        self._journal = journal
        self._attached: dict[str, Attachment] = {}
        self.running: LabNetwork | None = None

    def attach(self, spec: GuestSpec, domain: DomainSpec) -> DomainSpec:
        """The guest's domain with its card in the network, if the guest has a place there."""
        if spec.lab is None:
            return domain
        if self._hypervisor.remote or self._settings.kept_guest:
            why, hint = "its QEMU is another user's", "run it without --connect, or delete network: lab"
            if self._settings.kept_guest:
                why, hint = "the switch ends with this command", "delete network: lab"
            raise Refused(f"no network: lab for it: {why}", where=f"guest {spec.name}", hint=hint)
        one = Attachment(spec.lab, ours=self._new_socket(), its=self._new_socket())
        self._attached[spec.name] = one
        return replace(domain, lab_socket=one.its, lab_switch=one.ours, lab_mac=spec.lab.mac)

    def start(self, stack: ExitStack) -> None:
        """Start the switch, until `stack` is left."""
        wanted = self._settings.network
        if wanted is None or not self._attached or self.running is not None:
            return
        seed = secrets.randbelow(1 << 32) if wanted.seed is None else wanted.seed
        self.running = network = stack.enter_context(
            LabNetwork(self._attached, wanted.limits, seed, bridge=wanted.bridge)
        )
        places = {name: one.place for name, one in self._attached.items()}
        self._journal.append(NetworkStarted(seed, wanted.limits, places, network.no_host, wanted.bridge))
        stack.callback(self._count, network)

    def _count(self, network: LabNetwork) -> None:
        try:
            self._journal.append(NetworkEnded(network.counts(), moves=tuple(network.moves())))
        except MachineError as error:
            self._journal.append(NetworkEnded({}, error.what))

    def join(self, spec: GuestSpec, probe: SessionProbe) -> None:
        """Give the guest its address, and the names of all. GuestError when that fails."""
        if self.running is not None and spec.lab is not None:
            lab_network.join(probe.ssh, spec.lab.address, spec.lab.mac, self.running.names)

    def in_cycles(self, spec: GuestSpec, probe: SessionProbe, subject: CycleGuest) -> CycleGuest:
        """The guest in its cycles: the switch learns when it is frozen, and a rebooted guest joins again."""
        network = self.running
        if network is None or spec.lab is None:
            return subject

        def before_freeze(then: Callable[[], None] | None) -> None:
            network.check()
            if then is not None:
                then()

        def before_resume() -> None:
            sockets = [one.lab_socket for one in self._hypervisor.specs(spec.name) if one.lab_socket]
            if sockets:  # it has not ended
                network.thaw(spec.name, sockets[-1])

        return replace(
            subject,
            before_freeze=partial(before_freeze, subject.before_freeze),
            frozen=partial(network.freeze, spec.name),
            before_resume=before_resume,
            booted=partial(self.join, spec, probe),
        )


def taps_of(spec: GuestSpec, settings: Settings, stack: ExitStack) -> tuple[str, str]:
    """Two tap devices for a guest's network card, until `stack` is left: a process and its successor cannot
    open one together."""
    what = f"{settings.run} {spec.name}"
    with shield():
        one, other = (
            stack.enter_context(Tap.make(spec.bridge, f"{what} {n}", settings.home)).name for n in (1, 2)
        )
    return one, other
