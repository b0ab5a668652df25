"""The document: which keys a playbook has, what they mean and which rules join them.

Values arrive as nodes of lab.playbook.tree; docstrings and descriptions here and in the sections'
modules are also the JSON schema's, and defaults are those of lab.core.plan.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from lab.core.plan import ResyncMechanism
from lab.playbook.cycles import Cycle
from lab.playbook.expecting import Expect
from lab.playbook.fields import (
    MOST_GUESTS,
    Controls,
    DurationOrZero,
    Mechanism,
    Name,
    Repeats,
    default,
    needed,
    section,
)
from lab.playbook.guests import Guest, GuestList, distinct
from lab.playbook.matrix import HOMES, Matrix
from lab.playbook.scalars import text

Text = Annotated[str, text()]


def _in_matrix(axis: str) -> dict[str, Any]:
    return {"required": ["matrix"], "properties": {"matrix": {"required": [axis]}}}


def _in_section(home: tuple[str, ...]) -> dict[str, Any]:
    if len(home) == 1:
        return {"required": [home[0]]}
    given: dict[str, Any] = {"required": [home[1]]}
    if home[0] == "guests":
        given = {"contains": given}
    return {"required": [home[0]], "properties": {home[0]: given}}


def _once_each() -> list[dict[str, Any]]:
    """Resync and patch are given once, in their section or in the matrix; other values at most once."""
    rules: list[dict[str, Any]] = [
        {"oneOf": [_in_section(HOMES["resync"]), _in_matrix("resync")]},
        {"oneOf": [_in_section(HOMES["patch"]), _in_matrix("patch"), _in_matrix("hold")]},
    ]
    return rules + [
        {"not": {"allOf": [_in_section(home), _in_matrix(axis)]}}
        for axis, home in HOMES.items()
        if axis not in ("resync", "patch", "hold")
    ]


class TimeServer(BaseModel):
    """The NTP server on the host, for guests that help themselves."""

    model_config = section("{off_by: 2s}")

    off_by: DurationOrZero = default(
        0, "How far ahead of the host's clock the time is that it serves, on purpose.", "0s"
    )


class Document(BaseModel):
    """A freezelab playbook: which guests are frozen, how, and what the run has to show."""

    model_config = section("name, resync, cycle and so on", required=["name"], allOf=_once_each())

    name: Name = needed("Name of the playbook: an RFC 1123 label.", "first-freeze")
    about: Text = default("", "What it is for, in a sentence or two.")
    guests: GuestList = Field(
        default=[Guest.model_construct(name="web-0")],
        description=f"The guests, at most {MOST_GUESTS}. Left out: one, web-0.",
        json_schema_extra={"default": [{"name": "web-0"}]},
    )
    resync: Mechanism = needed(
        "What brings the guests' clocks back after the resume. "
        + ". ".join(f"{mechanism}: {mechanism.about}" for mechanism in ResyncMechanism)
        + ".",
        "agent",
    )
    time_server: TimeServer = default(TimeServer(), "The NTP server on the host.", "")
    cycle: Cycle = needed("How guests are frozen.")
    matrix: Matrix | None = default(
        None, "Run all of this once for each combination of these values, one after another."
    )
    expect: Expect = default(Expect(), "What has to be shown to pass.", "")
    repeat: Repeats = default(1, "Number of cycles with a freeze.")
    control: Controls = default(
        0, "Number of cycles without a freeze, run before the others: the noise of the measurement."
    )

    @field_validator("guests", mode="after")
    @classmethod
    def _distinct(cls, guests: list[Guest]) -> list[Guest]:
        return distinct(guests)

    @field_validator("expect", mode="after")
    @classmethod
    def _possible(cls, expect: Expect, info: ValidationInfo) -> Expect:
        cycle: Cycle | None = info.data.get("cycle")
        if cycle:
            expect.fits(cycle)
        return expect
