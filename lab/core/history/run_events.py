"""Events of a whole run, of its cells and of its guests' starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lab.core.handlers import HandlerEnd
from lab.core.history.fields import OPTIONAL
from lab.core.plan import Plan

SCHEMA = "freezelab.events/1"

Timing = int | float | str | bool | None


@dataclass(frozen=True)
class Host:
    """The machine that guests ran on, and what it ran them with.

    details: load, steal and the like, by the names that host.facts has for them.
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
    """The first event, once. calibration: the last one of this machine, as record.model.Calibration has it,
    left as it is here, for an older program's has other members."""

    KIND: ClassVar[str] = "run-start"

    schema: str
    id: str
    plan: Plan
    host: Host
    calibration: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class CellReached:
    """A cell of the matrix begins; or, with `skipped`, it is not run, or not to its end: the reason. refused,
    then: whether this machine or this guest cannot do it at all."""

    KIND: ClassVar[str] = "cell"

    id: str
    skipped: str = field(default="", metadata=OPTIONAL)
    refused: bool | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class GuestBooted:
    """A guest's probe answers. timings: of its start, by name; those in seconds end in "_s"."""

    KIND: ClassVar[str] = "boot"

    guest: str = field(default="", metadata=OPTIONAL)
    timings: dict[str, Timing] = field(default_factory=dict)
    cell: str | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class PatchUndone:
    """What was applied to the host was taken back after the cell. what: it was, one line."""

    KIND: ClassVar[str] = "undo"

    cell: str = ""
    what: str = ""


@dataclass(frozen=True)
class HandlerEnded:
    """A guest's handler of Scheduled Events runs no more. cycle: None after the last one."""

    KIND: ClassVar[str] = "handler"

    guest: str
    end: HandlerEnd
    cell: str = ""
    cycle: int | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class ServiceFailed:
    """What was wrong with the metadata service in the end, one line."""

    KIND: ClassVar[str] = "service"

    trouble: str
    cell: str = ""


@dataclass(frozen=True)
class RunEnded:
    """The last event, once; missing when the run was cut off. failure: what ended it early, "" when nothing
    did. host: its load and the like once more. not_undone: what failed of the clean-up after everything had
    been measured, "" when nothing did: it has no part in the verdict."""

    KIND: ClassVar[str] = "run-end"

    interrupted: bool
    failure: str
    host: dict[str, Any] | None = field(default=None, metadata=OPTIONAL)
    not_undone: str = field(default="", metadata=OPTIONAL)
