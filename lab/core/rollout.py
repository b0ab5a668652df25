"""The order in which a fleet's domains are frozen."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from lab.core.plan import GuestSpec, Rollout

Domain = tuple[str, int]
"""A domain: its availability set's name, and its number there."""


@dataclass(frozen=True)
class Wave:
    """The domains that are frozen at the same time: at most one of each set."""

    number: int
    domains: tuple[Domain, ...]
    guests: tuple[str, ...]


def set_of(guest: GuestSpec) -> str:
    """The name of the guest's availability set; a guest in none is a set by itself."""
    return guest.availability_set or guest.name


def waves(guests: Sequence[GuestSpec], rollout: Rollout) -> tuple[Wave, ...]:
    """The rollout's waves in their order; every guest is in exactly one. A shuffled rollout is in order when
    it has no seed yet."""
    sets: dict[str, dict[int, list[str]]] = {}
    for guest in guests:
        sets.setdefault(set_of(guest), {}).setdefault(rollout.by.of(guest), []).append(guest.name)
    orders = [[(name, number) for number in _order(name, domains, rollout)] for name, domains in sets.items()]
    if rollout.together:
        steps = [[one for one in step if one is not None] for step in zip_longest(*orders)]
    else:
        steps = [[one] for one in chain.from_iterable(orders)]
    return tuple(
        Wave(number, tuple(step), tuple(guest for name, domain in step for guest in sets[name][domain]))
        for number, step in enumerate(steps, start=1)
    )


def _order(name: str, domains: dict[int, list[str]], rollout: Rollout) -> list[int]:
    order = sorted(domains)
    if rollout.shuffled and rollout.seed is not None:
        # Seeded by a text, so that sets do not all go in the same order; random.seed takes its SHA-512.
        random.Random(f"{rollout.seed} {name}").shuffle(order)  # noqa: S311 - drawn, not secret
    return order
