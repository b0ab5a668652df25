"""Looks at the domains of the user's own in a plan, before a run and for `freezelab plan`: what they are, and
which methods work."""

from __future__ import annotations

from lab.core.method import FreezeMethod
from lab.core.own_domain import refusal
from lab.core.patch import HoldPatch
from lab.core.plan import Depth, GuestSpec, Plan
from lab.core.units import NS_PER_S, format_size
from lab.errors import FreezelabError, UsageError
from lab.hypervisor.accelerators import Choice
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.connection import connect
from lab.hypervisor.domain import Accelerator
from lab.hypervisor.facts import Emulator
from lab.hypervisor.own_domain import OwnDomain
from lab.process.clock import HostClock
from lab.session import kept_guests, paths
from lab.session.own_guests import own_specs, route

CONNECT = "--connect qemu:///system, or the URI of the libvirt that has it"


def check_plan(plan: Plan, uri: str | None) -> None:
    """UsageError when the plan has domains of the user's own and no libvirt is named, or ssh_config is not
    valid. Kept guests are on the embedded driver."""
    kept = {guest.domain for guest in kept_guests.read_all(paths.home())}
    for spec in own_specs(plan):
        if not uri and spec.domain not in kept:
            raise UsageError(
                f"domain {spec.domain} is your own, and no libvirt is named",
                where=f"guest {spec.name}",
                hint=CONNECT,
            )
        if spec.probe is not Depth.AGENT:
            route(spec)


def look_at(hypervisor: LibvirtHypervisor, plan: Plan) -> dict[str, OwnDomain]:
    """What libvirt says of the plan's domains of the user's own, by guest. UsageError when there is no such
    domain, Refused when it does not run. Nothing is changed."""
    found = {}
    for spec in own_specs(plan):
        found[spec.name] = hypervisor.own.look(spec.domain)
    return found


def machine_of(own: OwnDomain) -> tuple[Choice, Emulator]:
    """The accelerator and the emulator of a domain, for the record of a run that starts no guest itself."""
    accelerator = Accelerator.KVM if own.kind == "kvm" else Accelerator.TCG
    return Choice(accelerator, f"that of domain {own.name}"), own.machine_type


def look(plan: Plan, uri: str | None) -> tuple[list[tuple[str, str]], list[FreezelabError]]:
    """(guest, text) for each domain of the user's own in a plan, and why a run would be refused. Nothing is
    changed, and the guests are not connected to."""
    specs = own_specs(plan)
    if not specs:
        return [], []
    try:
        check_plan(plan, uri)
        found: list[tuple[str, str]] = []
        failures: list[FreezelabError] = []
        with connect(uri, paths.home(), clock=HostClock()) as hypervisor:
            for spec in specs:
                try:
                    own = hypervisor.own.look(spec.domain)
                    found.append((spec.name, f"{_described(own)}; {_works(hypervisor, own, spec)}"))
                except FreezelabError as error:
                    failures.append(error)
    except FreezelabError as error:
        return [], [error]
    return found, failures


def _described(own: OwnDomain) -> str:
    parts = [
        f"domain {own.name}",
        "runs",
        "persistent" if own.persistent else "transient",
        f"{own.vcpus} vCPU{'s' if own.vcpus > 1 else ''}",
        format_size(own.memory_bytes >> 20 << 20),
        own.kind,
    ]
    for word, names in (("disks", own.disks), ("CD", own.cdroms), ("host devices", own.host_devices)):
        if names:
            parts.append(f"{word} {' '.join(names)}")
    if own.snapshots:
        parts.append(f"{own.snapshots} snapshots")
    return ", ".join(parts)


def _works(hypervisor: LibvirtHypervisor, own: OwnDomain, spec: GuestSpec) -> str:
    """Which methods work, and why the others do not."""
    good, bad = [], []
    for method in FreezeMethod:
        if not method.needs_resume:
            continue
        hold = HoldPatch(0 if method.traits.overlaps else NS_PER_S)
        why = (
            refusal(method, hold, spec.migrate_to)
            or own.refusal(method)
            or hypervisor.own.obstacle(own, method)
        )
        if why:
            bad.append(f"{method}: {why}")
        else:
            good.append(method.value)
    return f"works: {', '.join(good) or 'nothing'}; not {'; not '.join(bad)}"
