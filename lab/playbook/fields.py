"""How the models declare their keys, and the types that several of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from lab.core.parallel_cells import MOST as MOST_LANES
from lab.core.plan import Depth, FreezeMethod, ResyncMechanism, RtcTrack, WatchdogAction
from lab.core.units import format_duration
from lab.playbook.hosts import folder
from lab.playbook.scalars import HOUR, argv, duration, flag, image_name, name, one_of, percent, size, whole
from lab.playbook.tree import Map, Scalar

FOLDER = "folder"
"""The key of the validation context that holds the folder that paths are meant from, a Path."""

MOST_GUESTS = 64
MOST_FILL = 90  # percent; the guest's own system needs the rest

Duration = Annotated[int, duration()]
DurationOrZero = Annotated[int, duration(zero=True)]
Budget = Annotated[int, duration(most=HOUR)]
Memory = Annotated[int, size(least=128 << 20)]
GuestCount = Annotated[int, whole(1, MOST_GUESTS, "guests")]
CpuCount = Annotated[int, whole(1, 64, "vCPUs")]
Repeats = Annotated[int, whole(1, 10_000, "cycles")]
Controls = Annotated[int, whole(0, 10_000, "cycles")]
Fill = Annotated[float, percent(MOST_FILL)]
Flag = Annotated[bool, flag()]
Name = Annotated[str, name()]
ImageName = Annotated[str, image_name()]
Words = Annotated[tuple[str, ...], argv()]
Folder = Annotated[str, folder()]
Method = Annotated[FreezeMethod, one_of(*FreezeMethod, hint="a freeze method")]
Mechanism = Annotated[ResyncMechanism, one_of(*ResyncMechanism, hint="a resync mechanism")]
Watchdog = Annotated[WatchdogAction, one_of(*WatchdogAction, hint="an action of a watchdog")]
Rtc = Annotated[RtcTrack, one_of(*RtcTrack, hint="an RTC's clock")]
ProbeDepth = Annotated[Depth, one_of(*Depth, hint="a depth of looking into a guest")]
Load = Annotated[float, percent(100)]
Lanes = Annotated[int, whole(1, MOST_LANES, "cells")]


def default(value: object, about: str, shown: str | None = None, **more: Any) -> Any:
    """A field that may be left out; shown: its default as it would be written."""
    extra: dict[str, Any] = {} if shown is None else {"default": shown}
    return Field(default=value, description=about, json_schema_extra=extra, **more)


def time(default_ns: int, about: str) -> Any:
    """A duration that may be left out."""
    return default(default_ns, about, format_duration(default_ns))


def needed(about: str, *examples: str) -> Any:
    """A field that must be there; examples of how it is written, unless it is a section."""
    return Field(description=about, examples=list(examples) or None)


def section(example: str, **rules: Any) -> ConfigDict:
    """example: the section in short, for messages; rules: more of its JSON schema."""
    return ConfigDict(extra="forbid", frozen=True, json_schema_extra={**rules, "x-example": example})


def section_of(key: str) -> BeforeValidator:
    """A value alone stands for the section that has nothing but this key."""

    def lengthen(node: object) -> object:
        if not isinstance(node, Scalar):
            return node
        long = Map(node.place)
        long[key] = node
        return long

    return BeforeValidator(lengthen)


@dataclass(frozen=True, eq=False)
class Or:
    """In the JSON schema: the section, or this."""

    json: Mapping[str, Any]

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [handler(schema), dict(self.json)]}


class OrOne:
    """In the JSON schema: the list, or one of what it holds."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        several = handler(schema)
        return {"anyOf": [several, several["items"]]}
