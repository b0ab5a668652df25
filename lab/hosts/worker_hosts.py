"""The hosts of a cluster's workers: what they are, and whether they can run cells together."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lab.errors import MachineError
from lab.hosts import cell_task
from lab.record.parts import MACHINE

if TYPE_CHECKING:
    from lab.hosts.cluster import Cluster

HOST = "host"
"""The member of a host's details with its name."""


@dataclass(frozen=True)
class WorkerHost:
    """A host with a worker that was asked about itself. about: see cell_task.about(). machine: what tells it
    from others in records, when its machine's id does not; else ""."""

    name: str
    worker: str
    about: dict[str, Any]
    machine: str = ""

    @property
    def machine_id(self) -> str:
        return str(self.about["machine"]["machine"])

    @property
    def details(self) -> dict[str, Any]:
        """What a record says of it beside what it says itself."""
        return {HOST: self.name, **({MACHINE: self.machine} if self.machine else {})}


def asked(cluster: Cluster) -> list[WorkerHost]:
    """The hosts of a cluster's workers. MachineError when they cannot run cells together: another version,
    or one machine twice."""
    workers = cluster.workers()
    here = cell_task.versions()
    for what, there in cluster.versions().items():
        check_version(what, there, here[what], f"scheduler {cluster.where}")
    answers = cluster.ask(cell_task.about, workers=[worker.address for worker in workers])
    hosts: list[WorkerHost] = []
    for worker in workers:
        answer = answers.get(worker.address)
        if not isinstance(answer, dict):
            what = f"freezelab there does not answer: {'; '.join(str(answer).splitlines())}"
            hint = "install the same freezelab, with its extra hosts, in the Python of each worker"
            raise MachineError(what, where=f"worker {worker.name}", hint=hint)
        name = worker.name if worker.name != worker.address else str(answer["node"])
        for what, version in here.items():
            check_version(what, answer["versions"].get(what, ""), version, f"host {name}")
        hosts.append(WorkerHost(name, worker.address, answer))
    many = Counter(host.name for host in hosts)
    return distinct(
        [replace(host, name=f"{host.name} {host.worker}") if many[host.name] > 1 else host for host in hosts]
    )


def distinct(hosts: Sequence[WorkerHost]) -> list[WorkerHost]:
    """The hosts, so that records tell their machines apart. MachineError when two are one: then both ids are
    the same. The machine's alone may have been copied with its disk, and the kernel's is that of all its
    containers."""
    known: dict[tuple[str, str], str] = {}
    for host in hosts:
        key = host.machine_id, str(host.about["machine"]["boot"])
        if key in known:
            what = f"it is the same machine as {known[key]}, and a machine has one lab at a time"
            raise MachineError(what, where=f"host {host.name}", hint="leave one of them out")
        known[key] = host.name
    many = Counter(machine for machine, _ in known)
    return [replace(host, machine=_digest(host)) if many[host.machine_id] > 1 else host for host in hosts]


def _digest(host: WorkerHost) -> str:
    return hashlib.sha256(f"{host.name} of {host.machine_id}".encode()).hexdigest()[:16]


def check_version(what: str, there: str, here: str, where: str) -> None:
    """MachineError when a host has another version of something than this machine."""
    if there != here:
        hint = "hosts and controller need the same"
        raise MachineError(f"{what} is {there or 'unknown'} there and {here} here", where=where, hint=hint)
