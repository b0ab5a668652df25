"""/metadata/instance: what a guest is told of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """One guest as the metadata service knows it.

    name: compute.name, the one that events name; by intent another than `guest`, the host name. mac: as
    "52:54:00:12:34:56". address: its private IPv4 address.
    """

    guest: str
    name: str
    vm_id: str
    size: str
    location: str = "lab"
    availability_set: str = ""
    fault_domain: int = 0
    update_domain: int = 0
    mac: str = ""
    address: str = ""
    tags: tuple[tuple[str, str], ...] = ()


def compute_name(guest: str, availability_set: str) -> str:
    """compute.name of a guest: never its host name, because clients that mix the two up are to find out
    here."""
    return f"{availability_set or 'lab'}_{guest}"
