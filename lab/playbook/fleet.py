"""The `fleet` section: guests, the availability and scale sets that they are in, and how they are booted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from lab.core.plan import GuestSpec
from lab.core.scheduled.instance import (
    FAULT_DOMAINS,
    SCALE_SET_FAULT_DOMAINS,
    UPDATE_DOMAINS,
    scale_set_host,
    scale_set_name,
)
from lab.playbook.fields import MOST_GUESTS, GuestCount, Name, default, needed, section
from lab.playbook.guests import ONE_GUEST, GuestList, GuestSection, distinct
from lab.playbook.mistakes import Wrong, quoted
from lab.playbook.scalars import ScalarReader, one_of, whole
from lab.playbook.tree import Items, Scalar

MOST_UPDATE_DOMAINS = 20
MOST_FAULT_DOMAINS = 3

Named = Mapping[str, tuple[str, ...]]
"""Guests' names by what a playbook may call them: the name of one, or that of their entry."""


class Boot(StrEnum):
    """How guests are started."""

    GOLDEN = "golden"
    COLD = "cold"


BY_HOST = 0
"""A number of fault domains that stands for `hosts`: a guest's is the number of its host."""


def _or_hosts(number: ScalarReader) -> ScalarReader:
    def read(node: object) -> object:
        if isinstance(node, Scalar) and node.plain and node.text == "hosts":
            return BY_HOST
        return number.read(node)

    return ScalarReader(read, {"anyOf": [dict(number.json), {"const": "hosts"}]})


UpdateDomains = Annotated[int, whole(1, MOST_UPDATE_DOMAINS, "update domains")]
FaultDomains = Annotated[int, _or_hosts(whole(1, MOST_FAULT_DOMAINS, "fault domains"))]
ScaleSetFaultDomains = Annotated[int, _or_hosts(whole(1, SCALE_SET_FAULT_DOMAINS, "domains"))]
ScaleSetDomains = Annotated[int, whole(1, SCALE_SET_FAULT_DOMAINS, "domains")]
BootWay = Annotated[Boot, one_of(*Boot, hint="a kind of boot")]


def _some_names(node: object) -> object:
    if isinstance(node, Items) and not node:
        raise Wrong("the list of guests is empty", "name an entry of the fleet's guests")
    return node


Members = Annotated[
    list[Name],
    BeforeValidator(_some_names),
    Field(json_schema_extra={"minItems": 1, "maxItems": MOST_GUESTS}),
]


class AvailabilitySet(BaseModel):
    """Guests that are not all to be down at once: what their domains are, and their delivery group."""

    model_config = section("{name: web, guests: [web]}")

    name: Name = needed("Name of the set: an RFC 1123 label.", "web")
    guests: Members = needed(
        "Its members, in order: names of entries of the fleet's guests, or of single guests.", "[web]"
    )
    fault_domains: FaultDomains | None = default(
        None,
        f"Number of fault domains, at most {MOST_FAULT_DOMAINS}, or hosts: with the playbook's hosts, each "
        f"is one. Default: {FAULT_DOMAINS}, or the number of guests if that is less.",
    )
    update_domains: UpdateDomains | None = default(
        None,
        f"Number of update domains, at most {MOST_UPDATE_DOMAINS}. Default: "
        f"{UPDATE_DOMAINS}, or the number of guests if that is less.",
    )


class ScaleSet(GuestSection):
    """Guests of a kind that a cloud makes and numbers: events call them NAME_0, NAME_1 and so on, and their
    host names are NAME000000, NAME000001 and so on, counted in base 36. They belong together as those of an
    availability set do."""

    model_config = section("{name: web, count: 4}")

    name: Name = needed("Name of the scale set: an RFC 1123 label.", "web")
    count: GuestCount = default(1, "Number of instances.")
    fault_domains: ScaleSetFaultDomains | None = default(
        None,
        f"Number of fault domains, at most {SCALE_SET_FAULT_DOMAINS}, or hosts: with the playbook's hosts, "
        f"each is one. Default: {SCALE_SET_FAULT_DOMAINS}, or the number of instances if that is less.",
    )
    update_domains: ScaleSetDomains | None = default(
        None,
        f"Number of update domains, at most {SCALE_SET_FAULT_DOMAINS}. Default: "
        f"{UPDATE_DOMAINS}, or the number of instances if that is less.",
    )

    @model_validator(mode="after")
    def _numbered(self) -> Self:
        if self.domain is not None:
            raise Wrong("the instances of a scale set are guests of the lab", "delete it", within=("domain",))
        if self.compute_name is not None:
            what = f"the instances of a scale set are named {self.name}_0 and so on"
            raise Wrong(what, "delete it", within=("compute_name",))
        _check_domains(self, self.count, ())
        return self

    def names(self) -> list[str]:
        return [scale_set_host(self.name, number) for number in range(self.count)]

    def compute_names(self) -> list[str]:
        return [scale_set_name(self.name, number) for number in range(self.count)]

    def to_plan(self) -> list[GuestSpec]:
        return [
            replace(
                spec,
                availability_set=self.name,
                scale_set=True,
                fault_domain=number % (self.fault_domains or SCALE_SET_FAULT_DOMAINS),
                update_domain=number % (self.update_domains or UPDATE_DOMAINS),
            )
            for number, spec in enumerate(super().to_plan())
        ]


def _check_domains(one: AvailabilitySet | ScaleSet, members: int, at: tuple[str | int, ...]) -> None:
    for key, domains in (("fault", one.fault_domains), ("update", one.update_domains)):
        if domains is not None and domains > members:
            what = f"{domains} {key} domains for {members} guest{'s' if members > 1 else ''}"
            todo = f"set it to at most {members}, or add guests to the set"
            raise Wrong(f"{what}, so some would be empty", todo, within=(*at, f"{key}_domains"))


@dataclass(frozen=True)
class _Place:
    """Where a guest is: its set, and its domains there."""

    set: str
    fault_domain: int
    update_domain: int


class FleetSection(BaseModel):
    """Guests with availability and scale sets, instead of `guests`."""

    model_config = section("{guests: [{name: web, count: 4}], availability_sets: [...]}")

    guests: GuestList = Field(
        default=ONE_GUEST,
        description=f"The guests, at most {MOST_GUESTS} a host. Default: one, web-0; none with scale sets.",
        json_schema_extra={"default": [{"name": "web-0"}]},
    )
    availability_sets: list[AvailabilitySet] = Field(
        default=[], description="Which guests belong together, and their number of fault and update domains."
    )
    scale_sets: list[ScaleSet] = Field(default=[], description="Sets of equal, numbered guests.")
    boot: BootWay = default(
        Boot.GOLDEN,
        "The same as `start` beside fleet.",
    )

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        own = self.own()
        try:
            distinct([*own, *self.scale_sets])
        except Wrong as wrong:
            index, *rest = wrong.within or (0,)
            if isinstance(index, int) and index >= len(own):
                raise Wrong(wrong.what, wrong.todo, within=("scale_sets", index - len(own), *rest)) from None
            raise Wrong(wrong.what, wrong.todo, within=("guests", index, *rest)) from None
        return self

    @model_validator(mode="after")
    def _in_one_set_each(self) -> Self:
        named, first_at = self.named(), dict[str, tuple[str, int]]()
        places = {guest: one.name for one in self.scale_sets for guest in one.names()}
        sets = [(("availability_sets", n), one.name) for n, one in enumerate(self.availability_sets)]
        sets += [(("scale_sets", n), one.name) for n, one in enumerate(self.scale_sets)]
        for at, name in sets:
            if name in first_at:
                where = f"{_entry(first_at[name])} and {_entry(at)}"
                raise Wrong(f"two sets are named {name}, {where}", "rename one of them", within=(*at, "name"))
            first_at[name] = at
        for number, one in enumerate(self.availability_sets):
            here = ("availability_sets", number)
            members = 0
            for index, asked in enumerate(one.guests):
                within = (*here, "guests", index)
                for guest in known(named, asked, within):
                    if guest in places:
                        twice = f"{guest} is already in the set {places[guest]}"
                        raise Wrong(
                            twice, "a guest belongs to one set; delete it here or there", within=within
                        )
                    places[guest] = one.name
                    members += 1
            _check_domains(one, members, here)
        return self

    def own(self) -> list[GuestSection]:
        """The entries of guests that are in no scale set."""
        return [] if self.scale_sets and "guests" not in self.model_fields_set else self.guests

    def named(self) -> Named:
        """What every name stands for."""
        return names_of([*self.own(), *self.scale_sets])

    def outside(self) -> Iterator[tuple[int, str]]:
        """Guests that are in no set, each with the number of its entry."""
        places = self._places()
        for number, entry in enumerate(self.own()):
            yield from ((number, guest) for guest in entry.names() if guest not in places)

    def by_host(self) -> set[str]:
        """The guests whose fault domain is the number of their host."""
        named = self.named()
        sets = [one.guests for one in self.availability_sets if one.fault_domains == BY_HOST]
        members = {name for guests in sets for asked in guests for name in named[asked]}
        scaled = [one.names() for one in self.scale_sets if one.fault_domains == BY_HOST]
        return members.union(*scaled)

    def fits_one_host(self) -> None:
        """Wrong when the fleet needs hosts."""
        sets: tuple[tuple[str, Sequence[AvailabilitySet | ScaleSet]], ...] = (
            ("availability_sets", self.availability_sets),
            ("scale_sets", self.scale_sets),
        )
        for key, given in sets:
            for number, one in enumerate(given):
                if one.fault_domains == BY_HOST:
                    within = ("fleet", key, number, "fault_domains")
                    raise Wrong(
                        "hosts as fault domains go with hosts", "add hosts: [rack-1, …]", within=within
                    )

    def to_plan(self) -> list[GuestSpec]:
        """The guests as the plan has them, with their domains.

        They are spread as Azure's documentation of availability sets tells it: in order, a sixth guest of
        five update domains is in the one of the first; and fault domains in the same way. Its defaults are
        5 update domains, of at most 20, and 2 or 3 fault domains by region, of at most 3 (we take 2). A scale
        set's placement group is spread in the same way over 5 and 5.
        """
        places = self._places()
        own = [
            replace(
                spec,
                availability_set=place.set,
                fault_domain=place.fault_domain,
                update_domain=place.update_domain,
            )
            if (place := places.get(spec.name))
            else spec
            for entry in self.own()
            for spec in entry.to_plan()
        ]
        return own + [spec for one in self.scale_sets for spec in one.to_plan()]

    def _places(self) -> dict[str, _Place]:
        named = self.named()
        return {
            guest: _Place(
                one.name,
                number % (one.fault_domains or FAULT_DOMAINS),
                number % (one.update_domains or UPDATE_DOMAINS),
            )
            for one in self.availability_sets
            for number, guest in enumerate(guest for asked in one.guests for guest in named[asked])
        }


def _entry(at: tuple[str, int]) -> str:
    return f"entry {at[1] + 1} of {at[0]}"


def names_of(guests: Sequence[GuestSection]) -> dict[str, tuple[str, ...]]:
    """What every name stands for: an entry's for all of its guests."""
    named: dict[str, tuple[str, ...]] = {}
    for entry in guests:
        named[entry.label] = (*named.get(entry.label, ()), *entry.names())
    for entry in guests:
        for guest in entry.names():
            named.setdefault(guest, (guest,))
    return named


def known(named: Named, asked: str, within: tuple[str | int, ...]) -> tuple[str, ...]:
    """The guests that a name stands for. Wrong, pointing at `within`, when there are none."""
    if asked in named:
        return named[asked]
    close = get_close_matches(asked, named, n=1)
    shown = ", ".join(list(named)[:6]) + (", …" if len(named) > 6 else "")
    todo = f"did you mean {close[0]}?" if close else f"there are {shown}"
    raise Wrong(f"no guest and no entry of guests is named {quoted(asked)}", todo, within=within)
