"""The hosts of a cluster's workers: what they are, and whether they can run cells together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lab.errors import MachineError
from lab.hosts import cell_task
from lab.hosts.machines import check_distinct

if TYPE_CHECKING:
    from lab.hosts.cluster import Cluster

HOST = "host"
"""The member of a host's details with its name."""


@dataclass(frozen=True)
class WorkerHost:
    """A host with a worker that was asked about itself. about: see cell_task.about()."""

    name: str
    worker: str
    about: dict[str, Any]

    @property
    def machine_id(self) -> str:
        return str(self.about["machine"]["machine"])

    @property
    def details(self) -> dict[str, Any]:
        """What a record says of it beside what it says itself."""
        return {HOST: self.name}


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
    """The hosts. MachineError when two are one machine."""
    check_distinct({host.name: (host.machine_id, str(host.about["machine"]["boot"])) for host in hosts})
    return list(hosts)


def check_version(what: str, there: str, here: str, where: str) -> None:
    """MachineError when a host has another version of something than this machine."""
    if there != here:
        hint = "hosts and controller need the same"
        raise MachineError(f"{what} is {there or 'unknown'} there and {here} here", where=where, hint=hint)
