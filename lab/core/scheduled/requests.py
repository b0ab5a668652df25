"""A request of a client's, and what it is answered: the wire contract without the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lab.core.clock import Stamp
from lab.core.scheduled.instance import About
from lab.core.scheduled.machine import Machine


@dataclass(frozen=True)
class Request:
    """As it came. path: decoded no further than the wire has it, without the query. query: raw, without "?".
    headers: names and values in their order, names in any case."""

    verb: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """What goes back. after_ns: real time to wait before it is sent. never: the connection is held, and
    nothing is sent."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    after_ns: int = 0
    never: bool = False


def answer(machine: Machine, abouts: Mapping[str, About], guest: str, now: Stamp, request: Request) -> Answer:
    """What the guest's request is answered; abouts: by guest. Raises nothing, whatever the request holds."""
    raise NotImplementedError
