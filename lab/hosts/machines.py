"""Which hosts are one machine: for `hosts check`, and before every run over hosts.

A machine is a running kernel, by its boot id: its containers share its CPUs, and are one machine. A machine's
id (machine-id(5)) may have been copied with a disk; but records tell machines apart by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lab.errors import MachineError


@dataclass(frozen=True)
class OneMachine:
    """hosts: their names, two or more. what, todo: for a message."""

    hosts: tuple[str, ...]
    what: str
    todo: str


def same(hosts: Mapping[str, tuple[str, str]]) -> Iterator[OneMachine]:
    """The hosts that are one machine, or seem to be. hosts: the digests of the machine's id and of the boot
    id, by the name."""
    for names in _alike({name: boot for name, (_, boot) in hosts.items()}):
        yield OneMachine(
            names, "are one machine: one kernel runs them", "leave out all but one: a machine runs one lab"
        )
    for names in _alike({name: machine for name, (machine, _) in hosts.items()}):
        if len({hosts[name][1] for name in names}) > 1:
            what = "have the same machine id, by which records tell machines apart: a copied disk?"
            yield OneMachine(names, what, "on one of them: rm /etc/machine-id; systemd-machine-id-setup")


def check_distinct(hosts: Mapping[str, tuple[str, str]]) -> None:
    """MachineError for the first of same()."""
    for found in same(hosts):
        raise MachineError(found.what, where=f"hosts {', '.join(found.hosts)}", hint=found.todo)


def _alike(ids: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    groups: dict[str, list[str]] = {}
    for name, each in ids.items():
        groups.setdefault(each, []).append(name)
    yield from (tuple(group) for group in groups.values() if len(group) > 1)
