"""Takes domains of the user's own into a run: a lease, an SSH connection, a probe; and gives them back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from lab.core.depth_needs import obstacle
from lab.core.history.run_events import Timing
from lab.core.own_domain import refusal, resync_refusal
from lab.core.plan import Cell, Depth, GuestSpec, Plan
from lab.core.units import NS_PER_S
from lab.errors import HypervisorError, Interrupted, Refused, UsageError
from lab.guest.connections import GuestConnections
from lab.guest.probe import GuestProbe
from lab.guest.session_probe import SessionProbe, probe_timings
from lab.guest.ssh import SSH
from lab.guest.ssh_route import SshRoute
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.ports import Clock, View
from lab.session.agent_guests import agent_probe
from lab.session.settings import Settings

SSH_S = 60.0
"""Time limit for the first answer of its sshd: it runs already, so only the way to it takes time."""


def own_specs(plan: Plan) -> list[GuestSpec]:
    """The domains of the user's own in a plan, each once."""
    return list(dict.fromkeys(spec for cell in plan.parts for spec in cell.guests if spec.is_own))


def check_cells(cells: Sequence[Cell]) -> None:
    """Refused when domains of the user's own are not frozen as a cell asks."""
    for cell in cells:
        for spec in cell.guests:
            if spec.is_own and (why := _refusal(cell, spec)):
                raise Refused(
                    f"is your own, and not frozen by {cell.cycle.method}: {why}", where=_where(spec)
                )
            if why := resync_refusal(cell.resync, spec.probe, is_own=spec.is_own):
                raise Refused(why, where=_where(spec))
            if spec.is_own and (why := obstacle(spec.probe, cell, spec)):
                raise Refused(why, where=_where(spec))


def _refusal(cell: Cell, spec: GuestSpec) -> str:
    cycle = cell.cycle
    return refusal(cycle.method, cycle.patch, spec.migrate_to, cycle.migration)


def route(spec: GuestSpec) -> SshRoute:
    """The way to its sshd. UsageError when ssh_config is not valid."""
    if spec.ssh is None:
        raise UsageError("no SSH target is given", where=_where(spec))
    return SshRoute(spec.name, spec.ssh)


class OwnGuests:
    """Takes and gives back the domains of one run."""

    def __init__(self, hypervisor: LibvirtHypervisor, settings: Settings, clock: Clock, view: View) -> None:
        self._hypervisor, self._settings = hypervisor, settings
        self._clock, self._view = clock, view

    def take(
        self, spec: GuestSpec, connections: GuestConnections, stack: ExitStack
    ) -> tuple[SessionProbe, dict[str, Timing]]:
        """A probe in the domain's guest, until `stack` is left, when the domain is given back; and what is
        recorded of its start. Errors as OwnDomains.take and SSH.connect raise them."""
        begun = self._clock.now().raw_ns
        self._view.phase("connect", guest=spec.name)
        history = self._hypervisor.dead_man.history
        own = self._hypervisor.own.take(spec.name, spec.domain, self._settings.run, history, spec.migrate_to)
        stack.callback(self._give_back, spec.name)
        probe: SessionProbe
        if spec.probe is Depth.AGENT:
            probe = agent_probe(self._hypervisor, spec.name, self._clock)
        else:
            probe = self._over_ssh(spec, connections)
        stack.callback(probe.close)
        took_s = round((self._clock.now().raw_ns - begun) / NS_PER_S, 2)
        return probe, {
            "to_probe_s": took_s,
            **probe_timings(probe),
            "started": "own",
            "domain": own.name,
            "uuid": own.uuid,
            "vcpus": own.vcpus,
            "memory_bytes": own.memory_bytes,
        }

    def _over_ssh(self, spec: GuestSpec, connections: GuestConnections) -> GuestProbe:
        way, first = route(spec), iter([True])

        def connect() -> SSH:
            ssh = SSH.connect(way, self._clock, self._settings.boot_s or SSH_S, connections)
            if next(first, False):
                self._rights(way, ssh)
            return ssh

        return GuestProbe(spec.name, connect, wanted=spec.probe).__enter__()

    def _rights(self, way: SshRoute, ssh: SSH) -> None:
        """Find out whether commands can be root's."""
        user = ssh.run("sh -c 'id -u; sudo -n id -u 2>/dev/null'").out.split()
        way.sudo = user[:1] != ["0"] and user[1:2] == ["0"]
        way.is_root = way.sudo or user[:1] == ["0"]
        if not way.is_root:
            what = "is not root, and sudo asks for a password: its kernel log and packet stamps are not read"
            self._view.note(f"guest {way.guest}: the user of {way} {what}")

    def _give_back(self, name: str) -> None:
        try:
            found = self._hypervisor.own.give_back(name)
        except Interrupted:
            raise
        except HypervisorError as error:
            self._view.note(f"guest {name}: {error}")
            return
        for line in found:
            self._view.note(f"guest {name}: libvirt's XML differs from before: {line}")


def _where(spec: GuestSpec) -> str:
    return f"guest {spec.name}"
