"""Starts a cell's workloads: waits until they are complete in their guests, and runs their clients."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from lab.core.clock import GuestClock, Interval, intersect
from lab.core.history import WorkloadStarted
from lab.core.network import HOST
from lab.core.plan import Cell, WorkloadSpec
from lab.core.units import NS_PER_MS, format_duration
from lab.core.workload.shipped import SHIPPED
from lab.core.workload.shipped.base import ShippedWorkload
from lab.errors import GuestError, MachineError
from lab.guest.address import Address
from lab.guest.health import bounded
from lab.guest.session_probe import SessionProbe
from lab.host.network import LabNetwork
from lab.host.workload_client import HostClient
from lab.ports import Clock, Journal, View, WorkloadClient
from lab.process.runner import quote
from lab.session.parallel import together
from lab.session.ssh_command import ssh_command

COMMAND_S = 30.0
"""The longest time of one of a workload's own commands in a guest."""

EVERY_NS = 500 * NS_PER_MS
READINGS = 8
_NAME = re.compile(r"\{([a-z0-9-]+)\}")


class CellWorkloads:
    """Runs the workloads of a cell. probes, addresses: of its guests. network: the lab's own of these guests;
    None: there is none. folder: the run's. state: of a guest, in libvirt's words."""

    def __init__(
        self,
        cell: Cell,
        probes: Mapping[str, SessionProbe],
        addresses: Callable[[str], Address],
        network: LabNetwork | None,
        folder: Path,
        clock: Clock,
        view: View,
        journal: Journal,
        state: Callable[[str], str],
    ) -> None:
        self._cell, self._probes, self._network, self._folder = cell, probes, network, folder
        self._addresses, self._state = addresses, state
        self._clock, self._view, self._journal = clock, view, journal

    def start(self, stack: ExitStack) -> list[WorkloadClient]:
        """The clients of all workloads, which run until `stack` is left. GuestError when a workload does not
        become complete in its guests, MachineError when a client does not start."""
        clients: list[WorkloadClient] = []
        for spec in self._cell.workloads:
            self._view.phase("workload", guest=spec.name)
            shipped = SHIPPED.get(spec.shipped)
            config: dict[str, str] = {}
            guests: list[str] = []
            if shipped is not None:
                guests = [guest.name for guest in shipped.guests(dict(spec.options))]
                self._await_formed(shipped, guests)
                config = {name: self._said(name, shipped.config) for name in guests}
                if self._network is not None:
                    network = self._network
                    config[HOST] = "\n".join(f"{name}: {network.keeping(name)}" for name in guests)
            argv = self._command(spec, shipped, guests)
            client = HostClient(
                spec.name,
                self._in_guest(spec.on, argv) if spec.on else argv,
                self._folder / f"workload-{spec.name}{f'-{self._cell.id}' if self._cell.id else ''}.log",
                self._clock,
                self._cell.id,
                grace_ns=spec.grace_ns if spec.delivers else 0,
                ahead=partial(self._ahead, spec.on) if spec.on else None,
                check=self._check,
                prepare=partial(self._prepare, guests, shipped) if shipped and shipped.before else None,
            )
            stack.enter_context(client)
            self._journal.append(WorkloadStarted(spec.name, client.program, config, self._cell.id))
            if spec.settle_ns:
                self._view.phase("settle", length_ns=spec.settle_ns)
                self._clock.sleep_until(self._clock.now().raw_ns + spec.settle_ns)
            clients.append(client)
        return clients

    def _check(self) -> None:
        """MachineError when the lab's network has ended; GuestError when a guest has that is not frozen."""
        if self._network is not None:
            self._network.check()
        for peer in (spec.name for spec in self._cell.guests if spec.is_peer):
            state = self._state(peer)
            if state != "running":
                raise GuestError(f"it is {state}, and was not frozen", where=f"guest {peer}")

    def _prepare(self, guests: Sequence[str], shipped: ShippedWorkload) -> None:
        """Have each guest ready for a cycle. GuestError when one is not in time."""
        deadline = self._clock.now().raw_ns + shipped.before_within_ns
        failed = f"{shipped.name} is not ready for a cycle within {format_duration(shipped.before_within_ns)}"
        together(
            guests, lambda name: self._until_it_holds(name, shipped.before, deadline, failed), lambda: None
        )

    def _command(
        self, spec: WorkloadSpec, shipped: ShippedWorkload | None, guests: Sequence[str]
    ) -> list[str]:
        network = self._network
        if shipped is None:
            argv = [_NAME.sub(lambda found: self._address(found[1]), word) for word in spec.command]
            return argv if network is None or spec.on else network.command(argv)
        if network is None:
            raise MachineError(
                "its client needs the lab's own network",
                where=f"workload {spec.name}",
                hint="add network: lab to the playbook",
            )
        argv = [sys.executable, "-P", "-m", f"lab.host.clients.{shipped.client}"]
        argv += ["--period-ns", str(spec.period_ns or shipped.period_ns)]
        argv += [f"--guest={name}={network.address(name)}" for name in guests]
        argv += [f"--option={name}={value}" for name, value in spec.options]
        return network.command(argv)

    def _in_guest(self, guest: str, argv: Sequence[str]) -> list[str]:
        """The command line that runs a program in a guest."""
        return ssh_command(self._addresses(guest), self._folder, quote(argv))

    def _ahead(self, guest: str) -> Interval:
        """How far a guest's REALTIME is ahead of the host's: what several readings have in common."""
        read = [self._probes[guest].read().offset(GuestClock.REAL) for _ in range(READINGS)]
        return intersect(read) or min(read, key=lambda one: one.half_width_ns)

    def _address(self, guest: str) -> str:
        if self._network is None:
            raise MachineError(
                f"the address of {guest} is asked for, which it has only in the lab's own network",
                where="workload",
                hint="add network: lab to the playbook",
            )
        return self._network.address(guest)

    def _said(self, guest: str, command: str) -> str:
        """The output of a command in a guest. GuestError when it fails."""
        result = self._probes[guest].ssh.run(bounded(command, COMMAND_S, "/bin/sh -c"), 2 * COMMAND_S)
        if result.status:
            lines = (result.err or result.out).strip().splitlines()
            why = f": {lines[-1][:200]}" if lines else ""
            raise GuestError(
                f"{command.strip().splitlines()[0][:60]} exited with {result.status}{why}",
                where=f"guest {guest}",
            )
        return result.out

    def _await_formed(self, shipped: ShippedWorkload, guests: Sequence[str]) -> None:
        if not shipped.formed:
            return
        deadline = self._clock.now().raw_ns + shipped.formed_within_ns
        within = format_duration(shipped.formed_within_ns)
        for name in guests:
            self._until_it_holds(
                name, shipped.formed, deadline, f"{shipped.name} is not complete within {within}"
            )

    def _until_it_holds(self, guest: str, command: str, deadline_ns: int, otherwise: str) -> None:
        """Repeat a command in a guest until it exits with 0. GuestError, which begins with `otherwise`, when
        it does not until deadline_ns, host MONOTONIC_RAW."""
        while True:
            try:
                self._said(guest, command)
                return
            except GuestError as error:
                now = self._clock.now().raw_ns
                if now >= deadline_ns:
                    raise GuestError(f"{otherwise}: {error.what}", where=f"guest {guest}") from error
                self._clock.sleep_until(min(deadline_ns, now + EVERY_NS))
