"""The `workload` and `tolerance` sections: what runs in guests, and the shortest pause that it fails at."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from lab.core.plan import GuestSpec, ToleranceSpec, WorkloadSpec
from lab.core.units import NS_PER_MS, format_duration
from lab.core.workload.shipped import SHIPPED, ShippedWorkload
from lab.core.workload.spec import WorkloadExpect
from lab.playbook.fields import (
    Budget,
    Duration,
    DurationOrZero,
    Flag,
    Name,
    Or,
    OrOne,
    Words,
    default,
    needed,
    section,
    section_of,
)
from lab.playbook.mistakes import Wrong, quoted
from lab.playbook.scalars import ScalarReader, found, one_of, percent, whole
from lab.playbook.setup_section import beside
from lab.playbook.tree import Items, Map, Scalar

MOST_WORKLOADS = 8
MOST_COUNT = 1_000_000
MOST_TRIES = 20
_STATE = re.compile(r"[A-Za-z][A-Za-z0-9_. -]{0,63}")
_IN_COMMAND = re.compile(r"\{([a-z0-9-]+)\}")


class PredictedEffect(StrEnum):
    """What has to become of a workload's own prediction."""

    AS_PREDICTED = "as-predicted"
    ANY = "any"


def state_names() -> ScalarReader:
    """Names of a workload's state, or of its events."""
    advice = "write a list of names, like [leader, term]"

    def read(node: object) -> tuple[str, ...]:
        items = [node] if isinstance(node, Scalar) else node
        if not isinstance(items, Sequence) or isinstance(items, str) or not items:
            raise Wrong(f"a list of names is expected here, not {found(node)}", advice)
        for index, item in enumerate(items):
            if not isinstance(item, Scalar) or not _STATE.fullmatch(item.text):
                raise Wrong(f"{found(item)} is not a name", advice, within=(index,))
        return tuple(item.text for item in items)

    one = {"type": "string", "pattern": f"^{_STATE.pattern}$"}
    return ScalarReader(read, {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]})


def options() -> ScalarReader:
    """Options of a workload by name."""

    def read(node: object) -> tuple[tuple[str, str], ...]:
        if not isinstance(node, Map):
            raise Wrong(f"names and values are expected here, not {found(node)}", "write {token: 30s}")
        for name, value in node.items():
            if not isinstance(value, Scalar):
                raise Wrong("an option has one value", "write {token: 30s}", within=(name,))
        return tuple((name, value.text) for name, value in node.items() if isinstance(value, Scalar))

    value = {"type": ["string", "number", "boolean"]}
    return ScalarReader(read, {"type": "object", "additionalProperties": value})


StateNames = Annotated[tuple[str, ...], state_names()]
Options = Annotated[tuple[tuple[str, str], ...], options()]
Count = Annotated[int, whole(0, MOST_COUNT, "requests")]
Tries = Annotated[int, whole(1, MOST_TRIES, "tries")]
Precision = Annotated[float, percent(100)]
Effect = Annotated[PredictedEffect, one_of(*PredictedEffect, hint="an expected effect")]


class WorkloadExpectSection(BaseModel):
    """What the workload has to show in each cycle with a freeze. What is left out is not asked."""

    model_config = section("{outage: 6s, lost: 0}")

    outage: Duration | None = default(None, "The longest time without a successful request.")
    beyond_pause: DurationOrZero | None = default(
        None, "The longest part of that time which is not the pause."
    )
    failed: Count | None = default(None, "The most requests that fail.")
    lost: Count | None = default(None, "The most acknowledged requests that are not delivered.")
    twice: Count | None = default(None, "The most deliveries of what was delivered before.")
    wrong_stamps: Count | None = default(
        None, "The most answers whose time, as the guest stamps them, is off by more than the tolerance."
    )
    refused: Count | None = default(
        None, "The most tokens of the guests that are not yet valid, or expired, by the host's time."
    )
    unchanged: StateNames | None = default(None, "Names of the state that keep their value, such as leader.")
    one_holder: StateNames | None = default(
        None, "Roles that at most one guest claims at a time, such as master."
    )
    never: StateNames | None = default(None, "Events that do not happen, such as disconnected.")
    prediction: Effect | None = default(
        None,
        "as-predicted: what happens agrees with what the workload's own configuration lets one expect; the "
        "default expectations of the lab's own workloads are not asked then. "
        "any: this is not a check.",
    )

    def to_plan(self, basis: WorkloadExpect) -> WorkloadExpect:
        """As the plan has it. basis: the default, unless the prediction is asked for."""
        given = {name: getattr(self, key) for name, key in _MEMBERS.items() if key in self.model_fields_set}
        if self.prediction is not None:
            given["as_predicted"] = self.prediction is PredictedEffect.AS_PREDICTED
        if given.get("as_predicted"):
            basis = WorkloadExpect()
        return replace(basis, **{name: value for name, value in given.items() if value is not None})


_MEMBERS = {
    "outage_ns": "outage",
    "beyond_pause_ns": "beyond_pause",
    "failed": "failed",
    "lost": "lost",
    "twice": "twice",
    "wrong_stamps": "wrong_stamps",
    "refused": "refused",
    "unchanged": "unchanged",
    "one_holder": "one_holder",
    "never": "never",
}


class WorkloadSection(BaseModel):
    """A workload: one of the lab's own by its name, or a client of your own by its command."""

    model_config = section("{name: my-app, command: [./client.py, '{web-0}']}, or the name of one")

    name: Name = needed(
        "Its name. Without command it is one of the lab's own: "
        + ". ".join(f"{one.name}: {one.about}" for one in SHIPPED.values())
        + ".",
        "udp-echo",
    )
    command: Words | None = default(
        None,
        "A program of the host and its arguments, run without a shell, which prints a line a sample "
        "(docs/workloads.md). '{web-0}' stands for the address of the guest web-0. "
        "Relative to the playbook's folder are a program with a /, and arguments that begin with ./ or ../.",
    )
    on: Name | None = default(
        None,
        "The guest that command runs in, as root: one that is not frozen (peer: true). Its clock is compared "
        "with the host's in each cycle. Default: the host.",
    )
    period: Duration | None = default(
        None, "Time between two requests of one of the lab's own. Default: the workload's."
    )
    delivers: Flag = default(
        False, "What it acknowledges is reported once more when it is delivered, so losses can be counted."
    )
    options: Options = default((), "Options of one of the lab's own, by name.", "")
    settle: DurationOrZero = default(0, "Time from its start until the first cycle.", "0s")
    expect: WorkloadExpectSection | None = default(
        None, "What it has to show. Default: that it reports something; or what the lab's own one says."
    )

    @model_validator(mode="after")
    def _beside(self, info: ValidationInfo) -> Self:
        if self.on is not None or self.command is None:
            return self
        program, *words = self.command
        program = beside(info, program) if "/" in program else program
        words = [beside(info, word) if word.startswith(("./", "../")) else word for word in words]
        return self.model_copy(update={"command": (program, *words)})

    @field_validator("period", mode="after")
    @classmethod
    def _not_too_short(cls, period: int | None) -> int | None:
        if period is not None and period < NS_PER_MS:
            raise Wrong(f"{format_duration(period)} is too short", "write at least 1ms")
        return period

    @model_validator(mode="after")
    def _counts_deliveries(self) -> Self:
        if self.delivers or (self.shipped is not None and self.shipped.delivers) or self.expect is None:
            return self
        for key in ("lost", "twice"):
            if getattr(self.expect, key) is not None:
                what = f"{key} counts deliveries, and {self.name} reports none"
                todo = "add delivers: true" if self.command is not None else "delete it"
                raise Wrong(what, todo, within=("expect", key))
        return self

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.command is not None:
            for key in ("period", "options"):
                if key in self.model_fields_set:
                    todo = "delete it, and give it to the command"
                    raise Wrong(f"{key} is for the lab's own workloads", todo, within=(key,))
            return self
        if self.on is not None:
            raise Wrong("on is for a command of your own", "delete it", within=("on",))
        if self.name not in SHIPPED:
            near = get_close_matches(self.name, SHIPPED, 1)
            known = f"did you mean {near[0]}? For" if near else f"known: {', '.join(SHIPPED)}; for"
            raise Wrong(
                f"{quoted(self.name)} is no workload of the lab's own",
                f"{known} your own add command",
                within=("name",),
            )
        if "delivers" in self.model_fields_set:
            raise Wrong("delivers is for a command of your own", "delete it", within=("delivers",))
        names = [name for name, _ in SHIPPED[self.name].options]
        for name, _ in self.options:
            if name not in names:
                known = f"known: {', '.join(names)}" if names else "it has none"
                raise Wrong(f"{quoted(name)} is no option of {self.name}", known, within=("options", name))
        shipped = SHIPPED[self.name]
        try:
            shipped.guests(dict(self._options(shipped)))
        except ValueError as error:
            raise Wrong(str(error), "write another value", within=("options",)) from None
        return self

    @property
    def shipped(self) -> ShippedWorkload | None:
        """The definition of one of the lab's own."""
        return None if self.command is not None else SHIPPED.get(self.name)

    def _options(self, shipped: ShippedWorkload) -> tuple[tuple[str, str], ...]:
        return tuple((dict(shipped.options) | dict(self.options)).items())

    def guests(self) -> tuple[GuestSpec, ...]:
        """Those that one of the lab's own brings along."""
        shipped = self.shipped
        if shipped is None:
            return ()
        return tuple(
            GuestSpec(
                one.name,
                one.image,
                memory_bytes=one.memory_bytes,
                watchdog=one.watchdog,
                setup=one.setup,
                is_peer=one.is_peer,
            )
            for one in shipped.guests(dict(self._options(shipped)))
        )

    def unknown(self, guests: Sequence[str]) -> str:
        """The first guest in its command that is not there; ""."""
        named = _IN_COMMAND.findall(" ".join(self.command or ()))
        return next((name for name in named if name not in guests), "")

    def to_plan(self) -> WorkloadSpec:
        """The workload as the plan has it."""
        shipped, expect = self.shipped, self.expect or WorkloadExpectSection()
        if shipped is None:
            return WorkloadSpec(
                self.name,
                command=self.command or (),
                on=self.on or "",
                delivers=self.delivers,
                settle_ns=self.settle,
                expect=expect.to_plan(WorkloadExpect()),
            )
        return WorkloadSpec(
            self.name,
            shipped=shipped.name,
            period_ns=self.period or shipped.period_ns,
            delivers=shipped.delivers,
            options=self._options(shipped),
            settle_ns=self.settle,
            roles=shipped.expect.one_holder,
            grace_ns=shipped.grace_ns,
            expect=expect.to_plan(shipped.expect),
        )


def with_workloads(given: Sequence[GuestSpec], brought: Sequence[GuestSpec]) -> list[GuestSpec]:
    """The playbook's guests and those that its workloads bring along. A guest of the playbook's that has the
    name of a workload's takes its place, with its programs."""
    of = {spec.name: spec for spec in brought}
    own = [
        replace(spec, setup=of[spec.name].setup.then(spec.setup)) if spec.name in of else spec
        for spec in given
    ]
    there = {spec.name for spec in given}
    return [*own, *(spec for spec in brought if spec.name not in there)]


def _as_list(node: object) -> object:
    """One workload stands for a list of one."""
    if isinstance(node, Items):
        if len(node) > MOST_WORKLOADS:
            raise Wrong(f"{len(node)} workloads are too many", f"write at most {MOST_WORKLOADS}")
        if not node:
            raise Wrong("the list of workloads is empty", "delete the key, or write a name")
        return node
    if not isinstance(node, Map | Scalar):
        return node
    alone = Items(node.place)
    alone.append(node)
    return alone


_SHORT = {"type": "string", "enum": list(SHIPPED)}

OneWorkload = Annotated[WorkloadSection, section_of("name"), Or(_SHORT)]
Workloads = Annotated[
    list[OneWorkload],
    BeforeValidator(_as_list),
    OrOne(),
    Field(json_schema_extra={"minItems": 1, "maxItems": MOST_WORKLOADS}),
]


class ToleranceSection(BaseModel):
    """The search for the shortest pause that the workload fails at, in place of repeat."""

    model_config = section("{shortest: 1s, longest: 60s}")

    shortest: Duration = default(
        ToleranceSpec.shortest_ns, "The shortest pause.", format_duration(ToleranceSpec.shortest_ns)
    )
    longest: Duration = default(
        ToleranceSpec.longest_ns, "The longest pause.", format_duration(ToleranceSpec.longest_ns)
    )
    tries: Tries = default(ToleranceSpec.tries, "Tries of each pause.")
    precision: Precision = default(
        ToleranceSpec.precision,
        "The search ends when the two pauses are closer than this share of the shorter one.",
        f"{ToleranceSpec.precision:.0%}",
    )
    within: Budget = default(
        ToleranceSpec.budget_ns, "The longest time of the search.", format_duration(ToleranceSpec.budget_ns)
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.shortest > self.longest:
            what = f"longest ({format_duration(self.longest)}) is less than shortest"
            raise Wrong(what, f"write {format_duration(self.shortest)} or more", within=("longest",))
        return self

    def to_plan(self) -> ToleranceSpec:
        """The search as the plan has it."""
        return ToleranceSpec(self.shortest, self.longest, self.tries, self.precision, self.within)
