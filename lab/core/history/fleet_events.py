"""Events of announcements (Scheduled Events) and of rollouts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from lab.core.history.fields import OPTIONAL
from lab.core.plan import Cloud, DomainKind, RolloutEnd
from lab.core.scheduled.model import Event, Happening


@dataclass(frozen=True)
class EventsAnnounced:
    """A cycle was announced to its guests. time_factor: how many times as fast as real time the service's
    time passes. cloud: in whose words."""

    KIND: ClassVar[str] = "announced"

    cycle: int
    events: tuple[Event, ...]
    time_factor: float = 1.0
    cloud: Cloud = Cloud.AZURE


@dataclass(frozen=True)
class EventHappened:
    """An entry of an announced event's timeline; written when the controller learns of it."""

    KIND: ClassVar[str] = "notice"

    happening: Happening
    cycle: int | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class RolloutPlanned:
    """A rollout before its first wave. seed: that of a shuffled order. waves: the guests of each."""

    KIND: ClassVar[str] = "rollout"

    seed: int | None
    by: DomainKind
    waves: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class WaveReached:
    """A wave begins or ends. number: from 1; of: the number of waves. domains: (availability set, number)."""

    KIND: ClassVar[str] = "wave"

    cycle: int
    number: int
    domains: tuple[tuple[str, int], ...]
    guests: tuple[str, ...]
    when: Literal["begin", "end"]
    of: int = 0


@dataclass(frozen=True)
class GateAsked:
    """The result of a gate of one guest, after its domain's cycle. gate: its label. took_ns: the time until
    it held, or was given up."""

    KIND: ClassVar[str] = "gate"

    guest: str
    cycle: int
    gate: str
    ok: bool
    why: str
    took_ns: int


@dataclass(frozen=True)
class RolloutEnded:
    """A rollout has ended. wave: the number of its last wave."""

    KIND: ClassVar[str] = "rollout-end"

    ended: RolloutEnd
    why: str
    wave: int | None
