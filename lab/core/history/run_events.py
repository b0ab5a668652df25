"""Events of a whole run, of its cells and of its guests' starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lab.core.handlers import HandlerEnd
from lab.core.history.fields import OPTIONAL
from lab.core.network import AddressMove, FrameCounts, NetworkLimits, NetworkPlace
from lab.core.plan import Plan

SCHEMA = "freezelab.events/1"

Timing = int | float | str | bool | None


@dataclass(frozen=True)
class Host:
    """The host of the guests, and its hypervisor.

    details: load, steal and the like, by their names in host.facts.
    """

    kernel: str = ""
    cpu: str = ""
    memory_bytes: int = 0
    qemu: str = ""
    libvirt: str = ""
    accelerator: str = ""
    accelerator_reason: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunStarted:
    """The first event of a run. calibration: the last one of this host, in the form of
    record.model.Calibration; not validated here, as an older program's has other members. tags: names that
    the user gave to the run. whole: the playbook's plan, when this run has only a part of its cells."""

    KIND: ClassVar[str] = "run-start"

    schema: str
    id: str
    plan: Plan
    host: Host
    calibration: Mapping[str, Any] | None = None
    tags: tuple[str, ...] = ()
    whole: Plan | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class PartMerged:
    """The events of another run follow, which had a part of this one's cells. Their cycles are numbered on,
    and times are those of that run's host. run: its id. calibration: see RunStarted. ended_real_ns: when its
    last event was written, host REALTIME. damage: the damage at the end of its history, "" for none."""

    KIND: ClassVar[str] = "part"

    run: str
    host: Host
    calibration: Mapping[str, Any] | None
    ended_real_ns: int
    damage: str = field(default="", metadata=OPTIONAL)


@dataclass(frozen=True)
class CellReached:
    """A cell of the matrix begins. skipped: the reason for which it is not run, or not to its end. refused:
    True when this host or this guest does not support it."""

    KIND: ClassVar[str] = "cell"

    id: str
    skipped: str = field(default="", metadata=OPTIONAL)
    refused: bool | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class GuestBooted:
    """A guest's probe answers. timings: durations of its start, by name; those in seconds end in "_s"."""

    KIND: ClassVar[str] = "boot"

    guest: str = field(default="", metadata=OPTIONAL)
    timings: dict[str, Timing] = field(default_factory=dict)
    cell: str | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class PatchUndone:
    """A host patch was undone after its cell. what: its effect, one line."""

    KIND: ClassVar[str] = "undo"

    cell: str = ""
    what: str = ""


@dataclass(frozen=True)
class HandlerEnded:
    """A guest's handler of Scheduled Events has ended. cycle: None after the last one."""

    KIND: ClassVar[str] = "handler"

    guest: str
    end: HandlerEnd
    cell: str = ""
    cycle: int | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class ServiceFailed:
    """The metadata service failed. trouble: the error, one line."""

    KIND: ClassVar[str] = "service"

    trouble: str
    cell: str = ""


@dataclass(frozen=True)
class NetworkStarted:
    """The switch of the lab's own network runs. seed: of its losses. limits: those of the host's place.
    places: the guests', by name. no_host: why the host has no place in it, "" when it has. bridge: it is a
    Linux bridge."""

    KIND: ClassVar[str] = "network"

    seed: int
    limits: NetworkLimits
    places: dict[str, NetworkPlace]
    no_host: str = field(default="", metadata=OPTIONAL)
    bridge: bool = field(default=False, metadata=OPTIONAL)


@dataclass(frozen=True)
class NetworkEnded:
    """The guests of the lab's own network are gone. counts: what has passed each place, by name, the host's
    among them. failure: why that is not known, "" when it is. moves: addresses that have moved, in order of
    time."""

    KIND: ClassVar[str] = "network-end"

    counts: dict[str, FrameCounts]
    failure: str = field(default="", metadata=OPTIONAL)
    moves: tuple[AddressMove, ...] = field(default=(), metadata=OPTIONAL)


@dataclass(frozen=True)
class RunEnded:
    """The last event of a run; missing when the run was cut off. failure: what ended it early, "" when
    nothing did. host: its load and the like at the end. not_undone: the part of the clean-up that failed
    after all measurements, "" when none did; it does not count for the verdict."""

    KIND: ClassVar[str] = "run-end"

    interrupted: bool
    failure: str
    host: dict[str, Any] | None = field(default=None, metadata=OPTIONAL)
    not_undone: str = field(default="", metadata=OPTIONAL)
