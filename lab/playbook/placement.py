"""The key `hosts` of a playbook, and `host` of its guests: which host each guest is on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field

from lab.playbook.fields import MOST_GUESTS, Name
from lab.playbook.mistakes import Wrong

if TYPE_CHECKING:
    from lab.core.plan import GuestSpec
    from lab.playbook.fleet import FleetSection
    from lab.playbook.guests import GuestSection
    from lab.playbook.rollouts import RolloutSection

MOST_HOSTS = 64


def _number(hosts: object) -> object:
    if isinstance(hosts, list) and not 1 <= len(hosts) <= MOST_HOSTS:
        raise Wrong(f"{len(hosts)} hosts", f"write 1 to {MOST_HOSTS} names, like [rack-1, rack-2]")
    return hosts


HostNames = Annotated[
    list[Name], BeforeValidator(_number), Field(json_schema_extra={"minItems": 1, "maxItems": MOST_HOSTS})
]

ALONE = ("matrix", "workload", "tolerance", "network")
"""Keys that do not go with hosts: what they set up is on one host."""

At = tuple[str | int, ...]
Entries = Sequence[tuple[At, Sequence["GuestSection"]]]
"""Lists of guests, and where they are in the playbook."""


def placement(hosts: Sequence[str], entries: Entries) -> dict[str, list[str]]:
    """The names of the guests on each host: those that name theirs, the others in turn, as they are
    written."""
    placed: dict[str, list[str]] = {host: [] for host in hosts}
    turn = cycle(hosts)
    for _, guests in entries:
        for guest in guests:
            for name in guest.names():
                placed.setdefault(guest.host or next(turn), []).append(name)
    return placed


def with_hosts(
    specs: Sequence[GuestSpec], hosts: Sequence[str] | None, entries: Entries, by_host: Collection[str]
) -> list[GuestSpec]:
    """The guests; the fault domain of those whose name is in `by_host` is the number of their host."""
    number = {
        name: number
        for number, names in enumerate(placement(hosts or ("",), entries).values())
        for name in names
        if name in by_host
    }
    return [replace(spec, fault_domain=number[spec.name]) if spec.name in number else spec for spec in specs]


def check_placement(
    hosts: Sequence[str] | None,
    entries: Entries,
    given: Collection[str],
    fleet: FleetSection | None,
    rollout: RolloutSection | None,
) -> None:
    """Wrong when a guest cannot be on its host, or a host has none, or what is wanted of them does not go
    with hosts or without, or a host has more than MOST_GUESTS. given: the playbook's keys."""
    for host, names in placement(hosts or ("",), entries).items():
        if len(names) > MOST_GUESTS:
            on = f" on {host}" if host else ""
            what, todo = f"{len(names)} guests{on} are too many", f"ask for at most {MOST_GUESTS}"
            raise Wrong(what, todo, within=entries[0][0])
    for place, guests in entries:
        for number, guest in enumerate(guests):
            at = (*place, number)
            if guest.host is not None and guest.host not in (hosts or ()):
                what = f"{guest.host} is none of the hosts" if hosts else "host goes with hosts"
                todo = f"known: {', '.join(hosts)}" if hosts else f"add hosts: [{guest.host}], or delete it"
                raise Wrong(what, todo, within=(*at, "host"))
            if hosts and guest.domain is not None:
                what = "a domain of your own is on the host of its libvirt"
                raise Wrong(what, "delete hosts, or the domain", within=(*at, "domain"))
    if hosts is None:
        if fleet is not None:
            fleet.fits_one_host()
        return
    if rollout is not None:
        rollout.fits_hosts()
    for key in ALONE:
        if key in given:
            raise Wrong(f"{key} does not go with hosts", "delete one of them", within=(key,))
    for number, host in enumerate(hosts):
        if host in hosts[:number]:
            raise Wrong(f"the host {host} is given twice", "delete one of the two", within=("hosts", number))
    for number, (host, names) in enumerate(placement(hosts, entries).items()):
        if not names:
            raise Wrong(f"no guest is on {host}", "add guests, or delete the host", within=("hosts", number))
