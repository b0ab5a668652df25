"""The `fleet` section: guests, the availability sets that they are in, and how they are booted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, Field, field_validator, model_validator

from lab.core.plan import GuestSpec
from lab.playbook.fields import MOST_GUESTS, Name, default, needed, section
from lab.playbook.guests import ONE_GUEST, Guest, GuestList, distinct
from lab.playbook.mistakes import Wrong, quoted
from lab.playbook.scalars import one_of, whole
from lab.playbook.tree import Items

MOST_UPDATE_DOMAINS = 20
MOST_FAULT_DOMAINS = 3
UPDATE_DOMAINS = 5
FAULT_DOMAINS = 2

Named = Mapping[str, tuple[str, ...]]
"""Guests' names by what a playbook may call them: the name of one, or that of their entry."""


class Boot(StrEnum):
    """How guests are started."""

    GOLDEN = "golden"
    COLD = "cold"


UpdateDomains = Annotated[int, whole(1, MOST_UPDATE_DOMAINS, "update domains")]
FaultDomains = Annotated[int, whole(1, MOST_FAULT_DOMAINS, "fault domains")]
BootWay = Annotated[Boot, one_of(*Boot, hint="a way to boot")]


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
        f"How many fault domains they are spread over, at most {MOST_FAULT_DOMAINS}. Left out: "
        f"{FAULT_DOMAINS}, or one a guest.",
    )
    update_domains: UpdateDomains | None = default(
        None,
        f"How many update domains they are spread over, at most {MOST_UPDATE_DOMAINS}. Left out: "
        f"{UPDATE_DOMAINS}, or one a guest.",
    )


@dataclass(frozen=True)
class _Place:
    """Where a guest is: its set, and its domains there."""

    set: str
    fault_domain: int
    update_domain: int


class Fleet(BaseModel):
    """Guests with availability sets, instead of `guests`."""

    model_config = section("{guests: [{name: web, count: 4}], availability_sets: [...]}")

    guests: GuestList = Field(
        default=ONE_GUEST,
        description=f"The guests, at most {MOST_GUESTS}. Left out: one, web-0.",
        json_schema_extra={"default": [{"name": "web-0"}]},
    )
    availability_sets: list[AvailabilitySet] = Field(
        default=[], description="Which guests belong together, and over how many domains they are spread."
    )
    boot: BootWay = default(
        Boot.GOLDEN,
        "golden: guests are started from one of their kind that was booted before; the first run boots it. "
        "cold: every guest is booted.",
    )

    @field_validator("guests", mode="after")
    @classmethod
    def _distinct(cls, guests: list[Guest]) -> list[Guest]:
        return distinct(guests)

    @model_validator(mode="after")
    def _in_one_set_each(self) -> Self:
        named, places, seen = self.named(), dict[str, str](), dict[str, int]()
        for number, one in enumerate(self.availability_sets):
            at = ("availability_sets", number)
            if one.name in seen:
                what = f"two sets are named {one.name}, entries {seen[one.name] + 1} and {number + 1}"
                raise Wrong(what, "rename one of them", within=(*at, "name"))
            seen[one.name] = number
            members = 0
            for index, asked in enumerate(one.guests):
                within = (*at, "guests", index)
                for guest in known(named, asked, within):
                    if guest in places:
                        twice = f"{guest} is in the set {places[guest]} already"
                        raise Wrong(twice, "a guest is in one set; delete it here or there", within=within)
                    places[guest] = one.name
                    members += 1
            for key, domains in (("fault", one.fault_domains), ("update", one.update_domains)):
                if domains is not None and domains > members:
                    what = f"{domains} {key} domains for {members} guest{'s' if members > 1 else ''}"
                    todo = f"set it to at most {members}, or add guests to the set"
                    raise Wrong(f"{what}, so some would be empty", todo, within=(*at, f"{key}_domains"))
        return self

    def named(self) -> Named:
        """What every name stands for."""
        return names_of(self.guests)

    def outside(self) -> Iterator[tuple[int, str]]:
        """Guests that are in no set, each with the number of its entry."""
        places = self._places()
        for number, entry in enumerate(self.guests):
            yield from ((number, guest) for guest in entry.names() if guest not in places)

    def meant(self) -> list[GuestSpec]:
        """The guests as the plan has them, with their domains.

        They are spread as Azure's documentation of availability sets tells it: in order, a sixth guest of
        five update domains is in the one of the first; and fault domains in the same way. Its defaults are
        5 update domains, of at most 20, and 2 or 3 fault domains by region, of at most 3 (we take 2).
        """
        places = self._places()
        return [
            replace(
                spec,
                availability_set=place.set,
                fault_domain=place.fault_domain,
                update_domain=place.update_domain,
            )
            if (place := places.get(spec.name))
            else spec
            for entry in self.guests
            for spec in entry.meant()
        ]

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


def names_of(guests: Sequence[Guest]) -> dict[str, tuple[str, ...]]:
    """What every name stands for: an entry's for all of its guests."""
    named: dict[str, tuple[str, ...]] = {}
    for entry in guests:
        named[entry.name] = (*named.get(entry.name, ()), *entry.names())
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
    raise Wrong(f"no guest, and no entry of guests, is named {quoted(asked)}", todo, within=within)
