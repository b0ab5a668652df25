"""The keys of `cycle` that are live-migrate's own."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel

from lab.core.plan import DirtySpec, MigrationSpec
from lab.core.units import format_duration, format_size, parse_byte_rate
from lab.playbook.fields import Flag, default
from lab.playbook.mistakes import Wrong, quoted
from lab.playbook.scalars import HOUR, ScalarReader, duration, expect_scalar, size, whole

NEVER = -1
"""post_copy: never."""

_LEAST_BANDWIDTH = 1 << 20
_MOST_CHANNELS = 16


def byte_rate(*, least: int) -> ScalarReader:
    """Bytes per second, at least `least`."""
    advice = "write it like 32 MiB/s"

    def read(node: object) -> int:
        text = expect_scalar(node, "a rate", advice).text
        try:
            value = parse_byte_rate(text)
        except ValueError as error:
            raise Wrong(str(error)) from error
        if value < least:
            raise Wrong(f"{quoted(text)} is too little", f"write at least {format_size(least)}/s")
        return value

    pattern = r"^\s*\+?[0-9]+(\.[0-9]+)?\s*(B|KiB|MiB|GiB|TiB)\s*/\s*s\s*$"
    return ScalarReader(read, {"type": "string", "pattern": pattern})


def duration_or_never() -> ScalarReader:
    """Nanoseconds, or NEVER for the word "never"."""
    some = duration(most=HOUR)

    def read(node: object) -> object:
        text = expect_scalar(node, "a duration or never", "write it like 5s, or never").text
        return NEVER if text.strip() == "never" else some.read(node)

    return ScalarReader(read, {"anyOf": [dict(some.json), {"const": "never"}]})


Downtime = Annotated[int, duration(most=HOUR)]
Bandwidth = Annotated[int, byte_rate(least=_LEAST_BANDWIDTH)]
Channels = Annotated[int, whole(0, _MOST_CHANNELS, "channels")]
DirtyRate = Annotated[int, byte_rate(least=0)]
DirtyMemory = Annotated[int, size(least=1 << 20)]
PostCopy = Annotated[int, duration_or_never()]


class MigrationKeys(BaseModel):
    """They are None when they are left out."""

    max_downtime: Downtime | None = default(
        None, "For live-migrate: for how long the guest may be stopped at the end. Default: 300 ms."
    )
    bandwidth: Bandwidth | None = default(
        None, "For live-migrate: how fast memory is sent, at most. Default: 128 MiB/s."
    )
    multifd: Channels | None = default(
        None,
        "For live-migrate: the number of channels that memory is sent through. Default: 0, one channel "
        "without multifd.",
    )
    auto_converge: Flag | None = default(
        None, "For live-migrate: slow the guest's vCPUs down until the migration converges. Default: false."
    )
    post_copy: PostCopy | None = default(
        None,
        "For live-migrate: after this time the guest is moved, and gets the rest of its memory on demand. "
        "Default: never.",
    )

    dirty_rate: DirtyRate | None = default(
        None,
        "For live-migrate: how much memory a program in the guests dirties in a second. It also counts how "
        "fast the guests work: with 0 MiB/s it only counts. Default: there is no such program.",
    )
    dirty_memory: DirtyMemory | None = default(
        None, "For live-migrate: the memory that dirty_rate is about, over and over. Default: 64 MiB."
    )

    def dirty(self) -> DirtySpec | None:
        """The program that dirties memory. None without one."""
        if self.dirty_rate is None:
            return None
        return DirtySpec(self.dirty_rate, self.dirty_memory or DirtySpec.memory)

    def migration(self) -> MigrationSpec:
        """The settings of a live migration: those that are written, and QEMU's defaults."""
        written = {
            "max_downtime_ns": self.max_downtime,
            "bandwidth": self.bandwidth,
            "multifd": self.multifd,
            "auto_converge": self.auto_converge,
            "post_copy_ns": None if self.post_copy == NEVER else self.post_copy,
        }
        return MigrationSpec(**{key: value for key, value in written.items() if value is not None})  # type: ignore[arg-type]


def word(axis: str, value: object) -> str:
    """A value of one of these axes in a cell's id; "" for another axis."""
    match axis, value:
        case "max_downtime", int():
            return f"downtime-{_length(value)}"
        case "post_copy", int():
            return "pre-copy" if value == NEVER else f"post-copy-{_length(value)}"
        case (("bandwidth" | "dirty_rate"), int()):
            text = f"{format_size(value).replace(' ', '')}ps"
            return text if axis == "bandwidth" else f"dirty-{text}"
        case "dirty_memory", int():
            return f"in-{format_size(value).replace(' ', '')}"
        case "multifd", int():
            return f"multifd-{value}"
        case "auto_converge", bool():
            return "converging" if value else "unthrottled"
        case _:
            return ""


def _length(ns: int) -> str:
    return format_duration(ns).replace(" ", "")
