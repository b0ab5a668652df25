"""The `matrix` section: lists of values, each combination of which is a cell.

Only the lists are read here; what becomes of them is in lab.playbook.cells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from lab.playbook.fields import (
    CpuCount,
    DurationOrZero,
    Fill,
    Flag,
    Folder,
    ImageName,
    Lanes,
    Load,
    Mechanism,
    Memory,
    Method,
    Rtc,
    default,
    section,
)
from lab.playbook.migration_keys import Bandwidth, Channels, DirtyRate, Downtime, PostCopy
from lab.playbook.mistakes import Wrong
from lab.playbook.patch_section import PatchOrWord
from lab.playbook.scalars import found
from lab.playbook.tree import Items, Scalar
from lab.playbook.workload_section import OneWorkload

MOST_CELLS = 500

HOMES: Mapping[str, tuple[str, ...]] = {
    "method": ("cycle", "method"),
    "rtc": ("guests", "rtc"),
    "memory": ("guests", "memory"),
    "vcpus": ("guests", "vcpus"),
    "patch": ("cycle", "patch"),
    "resync": ("resync",),
    "hold": ("cycle", "patch"),
    "save_to": ("cycle", "save_to"),
    "fill": ("guests", "fill"),
    "image": ("guests", "image"),
    "prove_memory": ("cycle", "prove_memory"),
    "load": ("cycle", "load"),
    "max_downtime": ("cycle", "max_downtime"),
    "bandwidth": ("cycle", "bandwidth"),
    "multifd": ("cycle", "multifd"),
    "auto_converge": ("cycle", "auto_converge"),
    "post_copy": ("cycle", "post_copy"),
    "dirty_rate": ("cycle", "dirty_rate"),
    "workload": ("workload",),
}
"""Where each axis puts its values; those of guests into every one of them."""

T = TypeVar("T")


def _some(values: object) -> object:
    if isinstance(values, Items):
        if not values:
            raise Wrong("an axis without values", "add some, or delete the key")
        if len(values) > MOST_CELLS:
            raise Wrong(f"{len(values)} values are too many", f"a matrix has at most {MOST_CELLS} cells")
    elif isinstance(values, Scalar):
        what = f"a list of values is expected here, not {found(values)}"
        plain = re.fullmatch(r"[\w./% -]{1,40}", values.text, re.ASCII)
        raise Wrong(what, f"write [{values.text if plain else '..., ...'}]")
    return values


def _distinct(values: list[T]) -> list[T]:
    first: dict[T, int] = {}
    for index, value in enumerate(values):
        if value in first:
            what = f"the same value as entry {first[value] + 1} of the list"
            raise Wrong(what, "delete one of the two", within=(index,))
        first[value] = index
    return values


# What every axis is: a list with something in it, and nothing twice.
_SOME = BeforeValidator(_some)
_ONCE = AfterValidator(_distinct)
_FILLED = Field(json_schema_extra={"minItems": 1, "maxItems": MOST_CELLS})


class Combinations(BaseModel):
    """The combinations of a matrix that have all of these values."""

    model_config = section("{method: in-place, memory: 8 GiB}", minProperties=1)

    method: Method | None = default(None, "With this value of the axis method.")
    memory: Memory | None = default(None, "With this value of the axis memory.")
    vcpus: CpuCount | None = default(None, "With this value of the axis vcpus.")
    patch: PatchOrWord | None = default(None, "With this value of the axis patch.")
    resync: Mechanism | None = default(None, "With this value of the axis resync.")
    hold: DurationOrZero | None = default(None, "With this value of the axis hold.")
    save_to: Folder | None = default(None, "With this value of the axis save_to.")
    fill: Fill | None = default(None, "With this value of the axis fill.")
    image: ImageName | None = default(None, "With this value of the axis image.")
    prove_memory: Flag | None = default(None, "With this value of the axis prove_memory.")
    rtc: Rtc | None = default(None, "With this value of the axis rtc.")
    load: Load | None = default(None, "With this value of the axis load.")
    max_downtime: Downtime | None = default(None, "With this value of the axis max_downtime.")
    bandwidth: Bandwidth | None = default(None, "With this value of the axis bandwidth.")
    multifd: Channels | None = default(None, "With this value of the axis multifd.")
    auto_converge: Flag | None = default(None, "With this value of the axis auto_converge.")
    post_copy: PostCopy | None = default(None, "With this value of the axis post_copy.")
    dirty_rate: DirtyRate | None = default(None, "With this value of the axis dirty_rate.")
    workload: OneWorkload | None = default(None, "With this value of the axis workload.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.given():
            raise Wrong("an empty entry means everything", "name an axis and its value")
        return self

    def given(self) -> dict[str, Any]:
        """The values that are asked for, by axis."""
        return {axis: getattr(self, axis) for axis in HOMES if getattr(self, axis) is not None}

    def covers(self, values: Mapping[str, object]) -> bool:
        """Whether this combination is one of them."""
        return all(values[axis] == value for axis, value in self.given().items())


class Matrix(BaseModel):
    """Axes, each a list of values as written in its own section; every combination of them is a cell."""

    model_config = section(
        "{method: [suspend, in-place]}",
        anyOf=[{"required": [axis]} for axis in HOMES],
    )

    method: Annotated[list[Method], _SOME, _ONCE, _FILLED] | None = default(None, "Values of cycle.method.")
    memory: Annotated[list[Memory], _SOME, _ONCE, _FILLED] | None = default(
        None, "Values of memory, for all guests."
    )
    vcpus: Annotated[list[CpuCount], _SOME, _ONCE, _FILLED] | None = default(
        None, "Values of vcpus, for all guests."
    )
    patch: Annotated[list[PatchOrWord], _SOME, _ONCE, _FILLED] | None = default(
        None, "Values of cycle.patch."
    )
    resync: Annotated[list[Mechanism], _SOME, _ONCE, _FILLED] | None = default(None, "Values of resync.")
    hold: Annotated[list[DurationOrZero], _SOME, _ONCE, _FILLED] | None = default(
        None, "Values of cycle.patch's hold."
    )
    save_to: Annotated[list[Folder], _SOME, _ONCE, _FILLED] | None = default(
        None, "Values of cycle.save_to. Methods that save nothing run once for all of them."
    )
    fill: Annotated[list[Fill], _SOME, _ONCE, _FILLED] | None = default(
        None, "Values of fill, for all guests."
    )
    image: Annotated[list[ImageName], _SOME, _ONCE, _FILLED] | None = default(
        None, "Values of image, for all guests."
    )
    prove_memory: Annotated[list[Flag], _SOME, _ONCE, _FILLED] | None = default(
        None, "Values of cycle.prove_memory."
    )
    rtc: Annotated[list[Rtc], _SOME, _ONCE, _FILLED] | None = default(None, "Values of rtc, for all guests.")
    load: Annotated[list[Load], _SOME, _ONCE, _FILLED] | None = default(None, "Values of cycle.load.")
    max_downtime: Annotated[list[Downtime], _SOME, _ONCE, _FILLED] | None = default(
        None, "Values of cycle.max_downtime."
    )
    bandwidth: Annotated[list[Bandwidth], _SOME, _ONCE, _FILLED] | None = default(
        None, "Values of cycle.bandwidth."
    )
    multifd: Annotated[list[Channels], _SOME, _ONCE, _FILLED] | None = default(
        None, "Values of cycle.multifd."
    )
    auto_converge: Annotated[list[Flag], _SOME, _ONCE, _FILLED] | None = default(
        None, "Values of cycle.auto_converge."
    )
    post_copy: Annotated[list[PostCopy], _SOME, _ONCE, _FILLED] | None = default(
        None, "Values of cycle.post_copy."
    )
    dirty_rate: Annotated[list[DirtyRate], _SOME, _ONCE, _FILLED] | None = default(
        None, "Values of cycle.dirty_rate."
    )
    workload: Annotated[list[OneWorkload], _SOME, _ONCE, _FILLED] | None = default(
        None, "Workloads, one for each cell, with the guests that they bring along."
    )
    exclude: list[Combinations] | None = default(None, "Combinations to exclude.")
    may_be_refused: list[Combinations] | None = default(
        None,
        "Combinations that this host or the guests need not support: such a cell passes when it is refused "
        "before anything is stopped. Otherwise a refused cell is inconclusive.",
    )
    side_by_side: Lanes = default(
        1,
        "How many cells that differ only in their resync run at the same time, each on its own guests.",
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not any(self.values(axis) for axis in HOMES):
            raise Wrong("a matrix without an axis", f"add one, such as method, or delete it{_KNOWN}")
        if self.patch is not None and self.hold is not None:
            raise Wrong("patch and hold are the same axis", "write [{hold: 5s}, ...]", within=("hold",))
        if self.side_by_side > 1 and len(self.values("resync")) < 2:
            what = "only cells that differ in their resync run side by side"
            raise Wrong(what, "add the axis resync, with several values", within=("side_by_side",))
        self._check_values("exclude", self.exclude)
        self._check_values("may_be_refused", self.may_be_refused)
        return self

    def _check_values(self, key: str, named: Sequence[Combinations] | None) -> None:
        for number, combinations in enumerate(named or ()):
            for axis, value in combinations.given().items():
                if value not in self.values(axis):
                    why = (
                        "the axis does not have this value" if self.values(axis) else "there is no such axis"
                    )
                    what = f"{key}[{number}].{axis} is of no combination: {why}"
                    raise Wrong(what, "correct or delete it", within=(key, number, axis))

    def values(self, axis: str) -> Sequence[object]:
        """The values of an axis; () when there is none."""
        return getattr(self, axis) or ()


_KNOWN = f" ({', '.join(HOMES)})"
