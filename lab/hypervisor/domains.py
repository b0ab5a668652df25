"""Starts, finds and lists domains by guests' names.

A guest's name means, in this order: the domain that this process has started for it, the lab's domain of that
guest (by its metadata; a run's guest before a kept one), the user's own domain of exactly that name.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from lab.errors import HypervisorError
from lab.hypervisor.binding import as_hypervisor_error, is_code, libvirt, mapped
from lab.hypervisor.domain import NAMESPACE, DomainSpec, render
from lab.hypervisor.process import QemuProcess

_STATES: dict[int, str] = {
    libvirt.VIR_DOMAIN_NOSTATE: "no state",
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "blocked",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_SHUTDOWN: "in shutdown",
    libvirt.VIR_DOMAIN_SHUTOFF: "shut off",
    libvirt.VIR_DOMAIN_CRASHED: "crashed",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "pmsuspended",
}


@dataclass(frozen=True)
class LabDomain:
    """A domain that the lab of this home has started, in this process or an earlier one.

    monitor: the socket of the lab's own QMP monitor; "": none. generation, kept: see DomainSpec. Two domains
    of one guest and run are the two ends of an interrupted hand-over."""

    name: str
    guest: str
    run: str
    uuid: str
    state: str
    generation: int = 0
    ssh_port: int | None = None
    kept_guest: bool = False
    monitor: str = ""

    @classmethod
    def of(cls, spec: DomainSpec, state: str, ssh_port: int | None = None) -> LabDomain:
        """The domain that `spec` describes."""
        monitor = str(spec.monitor_socket or "")
        return cls(
            spec.name,
            spec.guest,
            spec.run,
            spec.uuid,
            state,
            spec.generation,
            ssh_port,
            spec.kept_guest,
            monitor,
        )

    @classmethod
    def of_mark(cls, mark: ET.Element, name: str, uuid: str, state: str) -> LabDomain:
        """The domain with this metadata element of the lab's."""
        return cls(
            name=name,
            guest=mark.get("name", ""),
            run=mark.get("run", ""),
            uuid=uuid,
            state=state,
            generation=int(mark.get("generation", "0")),
            ssh_port=int(port) if (port := mark.get("port", "")) else None,
            kept_guest=mark.get("kept") == "yes",
            monitor=mark.get("monitor", ""),
        )


class Domains:
    """The domains of one connection. home: the lab's state folder. recover: the command that cleans up after
    a killed run."""

    def __init__(self, connection: Any, home: Path, recover: str) -> None:
        self.connection, self._recover = connection, recover
        self._home = str(home.absolute())
        self._lock = threading.Lock()
        self._started: dict[str, Any] = {}

    def start(self, spec: DomainSpec) -> Any:
        """Create and start the guest's domain. It is transient: when it ends, libvirt keeps nothing of it.
        HypervisorError when libvirt refuses, or the guest exists already."""
        for there in self.lab():
            if there.guest == spec.guest and there.kept_guest == spec.kept_guest:
                raise HypervisorError(
                    f"a guest of this name exists already, of run {there.run}, {there.state}",
                    where=spec.guest,
                    hint=f"wait until that run ends; if it was killed: {self._recover}",
                )
        if self._by_name(spec.name) is not None:
            raise HypervisorError(
                f"a domain {spec.name} that is not this lab's exists already",
                where=spec.guest,
                hint="nothing was changed; give the guest another name in the playbook",
            )
        domain = self.create(spec)
        self.now(spec.guest, domain)
        return domain

    def find(self, guest: str) -> Any:
        """The guest's domain. HypervisorError when there is none, or the name is ambiguous."""
        with self._lock:
            known = self._started.get(guest)
        if known is not None:
            return known
        marked = [(domain, facts) for domain, facts in self._lab() if facts.guest == guest]
        # A run's guest takes precedence over a kept one of the same name.
        ours = [domain for domain, facts in marked if not facts.kept_guest] or [
            domain for domain, _ in marked
        ]
        if len(ours) > 1:
            raise HypervisorError(
                "several runs have a guest of this name", where=guest, hint=f"{self._recover} removes them"
            )
        domain = ours[0] if ours else self._by_name(guest)
        if domain is None:
            raise HypervisorError("no such guest", where=guest, hint="a guest exists only as long as its run")
        with self._lock:
            return self._started.setdefault(guest, domain)

    def now(self, guest: str, domain: Any) -> None:
        """Make the guest's name mean this domain from now on."""
        with self._lock:
            self._started[guest] = domain

    def drop(self, guest: str) -> None:
        """Let the guest's name mean nothing in particular."""
        with self._lock:
            self._started.pop(guest, None)

    def choose(self, wanted: LabDomain) -> None:
        """Make the guest's name mean this domain from now on. HypervisorError when the domain is gone."""
        with mapped("is gone", wanted.guest):
            self.now(wanted.guest, self.connection.lookupByUUIDString(wanted.uuid))

    def uuids(self) -> dict[str, str]:
        """The uuids of the guests that were found so far, by guest's name."""
        with self._lock:
            return {guest: str(domain.UUIDString()) for guest, domain in self._started.items()}

    def create(self, spec: DomainSpec, *, paused: bool = False) -> Any:
        """Create a domain for `spec`; the guest's name does not mean it yet. HypervisorError when libvirt or
        QEMU refuses."""
        xml = render(spec)
        with mapped("cannot be started", spec.guest):
            return self.connection.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED if paused else 0)

    def lab(self) -> list[LabDomain]:
        """The lab's domains of this home, by name."""
        return sorted((facts for _domain, facts in self._lab()), key=lambda facts: facts.name)

    def pids(self) -> list[int]:
        """The pids of QEMU processes of this lab's guests on this host."""
        found = []
        for domain in self.lab():
            with contextlib.suppress(HypervisorError), QemuProcess.find(domain.uuid, domain.guest) as process:
                found.append(process.pid)
        return found

    def _lab(self) -> list[tuple[Any, LabDomain]]:
        found = []
        with mapped("the domains cannot be listed"):
            for domain in self.connection.listAllDomains(0):
                marked = _mark(domain)
                if marked is not None and marked.get("home") == self._home:
                    name, uuid = str(domain.name()), str(domain.UUIDString())
                    found.append((domain, LabDomain.of_mark(marked, name, uuid, state_of(domain))))
        return found

    def _by_name(self, name: str) -> Any | None:
        try:
            return self.connection.lookupByName(name)
        except libvirt.libvirtError as error:
            if is_code(error, "VIR_ERR_NO_DOMAIN"):
                return None
            raise as_hypervisor_error(error, "cannot be looked up", name) from error


def state_of(domain: Any) -> str:
    """The domain's state in libvirt's words; a transient domain that has ended is "shut off". It queries only
    libvirt, never QEMU, so it does not hang on a stopped process."""
    try:
        return _STATES.get(int(domain.state()[0]), "unknown")
    except libvirt.libvirtError as error:
        if is_code(error, "VIR_ERR_NO_DOMAIN"):
            return "shut off"
        raise as_hypervisor_error(error, "its state cannot be read") from error


def _mark(domain: Any) -> ET.Element | None:
    """The lab's metadata element of a domain; None when it has none, or has just ended."""
    try:
        text = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
    except libvirt.libvirtError as error:
        if is_code(error, "VIR_ERR_NO_DOMAIN_METADATA", "VIR_ERR_NO_DOMAIN"):
            return None
        raise
    return ET.fromstring(text)  # noqa: S314 - libvirt has parsed it before us
