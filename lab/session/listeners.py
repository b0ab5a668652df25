"""The guests and listening addresses of `freezelab events serve`, from the command's options."""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lab.core.scheduled.instance import (
    COMPUTE_NAME,
    FAULT_DOMAINS,
    SCALE_SET_FAULT_DOMAINS,
    UPDATE_DOMAINS,
    Given,
    InstanceInfo,
    refusal,
    scale_set_host,
    scale_set_name,
)
from lab.errors import UsageError

if TYPE_CHECKING:  # `events serve` starts without SSH
    from lab.session.kept_guests import KeptGuest

Listener = tuple[str, int, str]
"""Address, port and guest."""

_COMPUTER_NAME = ("compute", "osProfile", "computerName")
_GUEST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Wanted:
    """Options about the guests. sets, scale_sets: NAME=GUEST,…; names: GUEST=NAME; instance: PATH=VALUE, for
    every guest."""

    sets: Sequence[str] = ()
    scale_sets: Sequence[str] = ()
    names: Sequence[str] = ()
    instance: Sequence[str] = ()


def listeners_of(listen: Sequence[str]) -> list[Listener]:
    """The listeners from ADDRESS:PORT[=GUEST]; a guest without a name gets one. UsageError for an invalid
    one."""
    found: list[Listener] = []
    named = [text.partition("=")[2] for text in listen]
    spare = (f"web-{n}" for n in range(len(listen) + len(named)) if f"web-{n}" not in named)
    for text in listen:
        address, _, guest = text.partition("=")
        host, port = address_of(address, "--listen", "=web-0")
        found.append((host, port, _checked(guest or next(spare), "--listen")))
    return found


def address_of(text: str, option: str, more: str = "") -> tuple[str, int]:
    """Host and port of ADDRESS:PORT. more: what follows it in a message. UsageError for an invalid one."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not port.isascii() or int(port) > 65535 or not host:
        hint = f"write it like 127.0.0.1:8169{more}"
        raise UsageError(f"not an address: {text!r}", where=option, hint=hint)
    return host.strip("[]"), int(port)


def instances_of(listened: Sequence[str], kept: Sequence[KeptGuest], wanted: Wanted) -> list[InstanceInfo]:
    """All guests: kept ones with the data of their domains, those with listeners, and members of sets. Those
    without a domain get an invented machine. UsageError for options that contradict each other."""
    sets, scale_sets = _members(wanted.sets, "--set"), _members(wanted.scale_sets, "--scale-set")
    if both := set(sets) & set(scale_sets):
        raise UsageError(f"there are two sets named {min(both)}", where="--scale-set")
    member_of: dict[str, str] = {}
    numbered: dict[str, str] = {}
    hosts: dict[str, str] = {}
    for name, members in (*sets.items(), *scale_sets.items()):
        for number, guest in enumerate(members):
            if guest in member_of:
                raise UsageError(f"{guest} is in two sets", where="--set")
            member_of[guest] = name
            if name in scale_sets:
                numbered[guest] = scale_set_name(name, number)
                hosts[guest] = scale_set_host(name, number)
    machines = {guest.name: guest for guest in kept}
    guests = list(dict.fromkeys([*machines, *listened, *member_of]))
    names = numbered | _names(wanted.names, guests, numbered)
    if twice := _repeated([names.get(guest, guest) for guest in guests]):
        raise UsageError(f"two guests are named {twice} in events", hint="--compute-name GUEST=NAME")
    given, count = _given(wanted.instance), dict[str, int]()
    instances: list[InstanceInfo] = []
    for number, guest in enumerate(guests):
        about = machines[guest].about() if guest in machines else made_up(guest, number)
        own = given
        if guest in hosts and guest not in machines:  # an invented machine's host name is as in Azure
            own = ((_COMPUTER_NAME, hosts[guest]), *given)
        about = replace(about, name=names.get(guest, guest), given=own)
        if group := member_of.get(guest, ""):
            place = count[group] = count.get(group, -1) + 1
            scales = group in scale_sets
            about = replace(
                about,
                availability_set=group,
                scale_set=scales,
                fault_domain=place % (SCALE_SET_FAULT_DOMAINS if scales else FAULT_DOMAINS),
                update_domain=place % UPDATE_DOMAINS,
            )
        instances.append(about)
    return instances


def made_up(guest: str, number: int) -> InstanceInfo:
    """An invented machine. Real clients (waagent) regard an empty address as a fault of the service. The
    first address of a subnet is .4."""
    machine = uuid.uuid5(uuid.NAMESPACE_DNS, f"{guest}.freezelab")
    return InstanceInfo(
        guest=guest,
        name=guest,
        vm_id=str(machine),
        size="lab",
        mac=f"52:54:00:{machine.bytes[-3:].hex(':')}",
        address=str(ipaddress.IPv4Address("10.0.0.4") + number),
    )


def _checked(guest: str, where: str) -> str:
    if not _GUEST.fullmatch(guest):
        raise UsageError(f"not a name for a guest or a set: {guest!r}", where=where)
    return guest


def _members(texts: Sequence[str], option: str) -> dict[str, list[str]]:
    sets: dict[str, list[str]] = {}
    for text in texts:
        name, equals, members = text.partition("=")
        if not equals or not members:
            raise UsageError(f"invalid: {text!r}", where=option, hint="write it like web=web-0,web-1")
        given = sets.setdefault(_checked(name, option), [])
        given += [_checked(guest, option) for guest in members.split(",")]
    return sets


def _names(texts: Sequence[str], guests: Sequence[str], numbered: Mapping[str, str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for text in texts:
        guest, equals, name = text.partition("=")
        where = "--compute-name"
        if not equals or not COMPUTE_NAME.fullmatch(name):
            raise UsageError(f"invalid: {text!r}", where=where, hint="write it like web-0=prod_web_0")
        if guest not in guests:
            raise UsageError(f"there is no guest {guest!r}", where=where, hint=f"guests: {', '.join(guests)}")
        if guest in numbered:
            raise UsageError(f"{guest} is in a scale set, which determines its name", where=where)
        names[guest] = name
    return names


def _repeated(names: Sequence[str]) -> str:
    return next((name for index, name in enumerate(names) if name in names[:index]), "")


def _given(texts: Sequence[str]) -> Given:
    given = []
    for text in texts:
        place, equals, value = text.partition("=")
        path = tuple(place.strip("/").split("/"))
        where = "--instance"
        if not equals:
            raise UsageError(f"invalid: {text!r}", where=where, hint="write it like compute/zone=1")
        if why := refusal(path):
            raise UsageError(f"{place} cannot be set: {why}", where=where)
        given.append((path, value))
    return tuple(given)
