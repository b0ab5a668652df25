"""The document: which keys a playbook has, what they mean and which rules join them.

Values arrive as nodes of lab.playbook.tree; docstrings and descriptions here are also the
JSON schema's, and defaults are those of lab.core.plan.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from lab.core.plan import CycleSpec, Expectations, FreezeMethod, GuestSpec, Regime, ResyncMechanism
from lab.core.units import format_duration, format_size
from lab.playbook.mistakes import Wrong
from lab.playbook.scalars import (
    HOUR,
    MOST_NAME,
    argv,
    duration,
    image_name,
    name,
    one_of,
    ppm,
    size,
    text,
    whole,
)

MOST_GUESTS = 64


class KernelLog(StrEnum):
    """What the guest's kernel log may hold."""

    CLEAN = "clean"
    ANY = "any"


Duration = Annotated[int, duration()]
DurationOrZero = Annotated[int, duration(zero=True)]
Budget = Annotated[int, duration(most=HOUR)]
Memory = Annotated[int, size(least=128 << 20)]
GuestCount = Annotated[int, whole(1, MOST_GUESTS, "guests")]
CpuCount = Annotated[int, whole(1, 64, "vCPUs")]
Repeats = Annotated[int, whole(1, 10_000, "cycles")]
Controls = Annotated[int, whole(0, 10_000, "cycles")]
PartsPerMillion = Annotated[float, ppm()]
Name = Annotated[str, name()]
ImageName = Annotated[str, image_name()]
Text = Annotated[str, text()]
Words = Annotated[tuple[str, ...], argv()]
Method = Annotated[FreezeMethod, one_of(*FreezeMethod, hint="a way to freeze")]
Mechanism = Annotated[ResyncMechanism, one_of(*ResyncMechanism, hint="a way to resync")]
ExpectedRegime = Annotated[Regime, one_of(Regime.RESUMED, Regime.JUMPED, Regime.MIXED, hint="a regime")]
LogState = Annotated[KernelLog, one_of(*KernelLog, hint="a state of the kernel log")]


def _default(value: object, about: str, shown: str | None = None) -> Any:
    """A field that may be left out; shown: its default as it would be written."""
    extra: dict[str, Any] = {} if shown is None else {"default": shown}
    return Field(default=value, description=about, json_schema_extra=extra)


def _time(default_ns: int, about: str) -> Any:
    return _default(default_ns, about, format_duration(default_ns))


def _needed(about: str, *examples: str) -> Any:
    """A field that must be there; examples of how it is written, unless it is a section."""
    return Field(description=about, examples=list(examples) or None)


def _section(example: str, **rules: Any) -> ConfigDict:
    """example: the section in short, for messages; rules: more of its JSON schema."""
    return ConfigDict(extra="forbid", frozen=True, json_schema_extra={**rules, "x-example": example})


class Guest(BaseModel):
    """A guest to start, or several of a kind."""

    model_config = _section("{name: web-0}")

    name: Name = _needed("Host name of the guest: an RFC 1123 label.", "web-0")
    count: GuestCount | None = _default(None, "Start this many, named NAME-0, NAME-1 and so on.")
    image: ImageName = _default(
        GuestSpec.image, "Name of the guest's image, see `freezelab image list`.", GuestSpec.image
    )
    vcpus: CpuCount = _default(GuestSpec.vcpus, "Number of virtual CPUs.")
    memory: Memory = _default(
        GuestSpec.memory_bytes,
        "Memory, in whole MiB, at least 128 MiB.",
        format_size(GuestSpec.memory_bytes),
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        longest = self.names()[-1]
        if len(longest) > MOST_NAME:
            todo = f"shorten name to {MOST_NAME - (len(longest) - len(self.name))} characters"
            raise Wrong(f"{longest} is longer than {MOST_NAME} characters", todo, within=("name",))
        return self

    def names(self) -> list[str]:
        """Names of the guests this entry stands for."""
        return [self.name] if self.count is None else [f"{self.name}-{n}" for n in range(self.count)]


class Patch(BaseModel):
    """What is done to the host while the guests are frozen: `hold`, or `command` with `deadline`."""

    model_config = _section(
        "{hold: 5s}",
        oneOf=[
            {"required": ["hold"], "properties": {"command": False, "deadline": False}},
            {"required": ["command", "deadline"], "properties": {"hold": False}},
        ],
    )

    hold: DurationOrZero | None = _default(
        None, "Change nothing and take this long. May exceed the budget, to rehearse an overrun."
    )
    command: Words | None = _default(None, "Run this program on the host: a list of words, no shell.")
    deadline: Duration | None = _default(None, "Kill the command when it takes longer than this.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.hold is not None and self.command is not None:
            raise Wrong("a patch cannot both hold and run a command", "keep one of them", within=("command",))
        if self.hold is None and self.command is None:
            raise Wrong("the patch does nothing", "write {hold: 5s}, or a command with a deadline")
        if self.hold is not None and self.deadline is not None:
            what = "only a command has a deadline"
            raise Wrong(what, "delete it; the cycle's budget ends a long hold", within=("deadline",))
        if self.command is not None and self.deadline is None:
            raise Wrong("a command needs a deadline", "add deadline: 10s next to it", within=("command",))
        return self


class Cycle(BaseModel):
    """One settle, measure, freeze, patch, resume and watch cycle."""

    model_config = _section("{patch: {hold: 5s}}")

    method: Method = _default(
        FreezeMethod.SUSPEND,
        "How guests are frozen. suspend: by libvirt, their clocks stop. sigstop: the whole QEMU "
        "process is stopped by a signal, their clocks run on.",
    )
    patch: Patch = _needed("What is done to the host while the guests are frozen.")
    settle: DurationOrZero = _time(CycleSpec.settle_ns, "Quiet time before the first reading.")
    before: Duration = _time(CycleSpec.before_ns, "How long offset and drift are measured before the freeze.")
    budget: Budget = _time(
        CycleSpec.budget_ns,
        "From the freeze to the resume, at most 1 h. Guests are resumed when it ends, whatever the "
        "patch does, and the cycle fails.",
    )
    watch: Duration = _time(CycleSpec.watch_ns, "How long guests are watched from the resume on.")


class Pause(BaseModel):
    """Limits of the pause, by the host's clock."""

    model_config = _section("{at_least: 5s, at_most: 6s}", minProperties=1)

    at_least: DurationOrZero | None = _default(None, "No shorter than this.")
    at_most: Duration | None = _default(None, "No longer than this.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise Wrong("no limit is given", "write at_least, at_most or both")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            least, most = format_duration(self.at_least), format_duration(self.at_most)
            raise Wrong(
                f"at_most ({most}) is below at_least ({least}), so no pause could pass",
                f"raise it to {least} or more",
                within=("at_most",),
            )
        return self


class InTime(BaseModel):
    """When the guest's clock has to be back on the host's, and to stay there."""

    model_config = _section("{within: 5s}")

    within: Duration = _needed("From the resume to the first instant in time.", "5s")
    tolerance: Duration = _time(Expectations.tolerance_ns, "In time: the offset is no larger than this.")
    hold: Duration = _time(Expectations.hold_ns, "It has to stay so for this long.")


class FinalOffset(BaseModel):
    """The offset when the watch ends."""

    model_config = _section("{within: 50ms}")

    within: Duration = _needed("No larger than this, either side.", "50ms")


class Drift(BaseModel):
    """The drift after the resync."""

    model_config = _section("{within: 200 ppm}")

    within: PartsPerMillion = _needed("No larger than this, either side.", "200 ppm")


class Expect(BaseModel):
    """What a cycle has to show to pass. What is left out is not asked."""

    model_config = _section("{regime: resumed}")

    regime: ExpectedRegime | None = _default(
        None,
        "What the guest's clocks did. resumed: they stopped with it. jumped: they ran on. mixed: "
        "some of both.",
    )
    pause: Pause | None = _default(None, "How long the pause may be.")
    in_time: InTime | None = _default(None, "How soon the clock is back in time.")
    final_offset: FinalOffset | None = _default(None, "How far off the clock may be in the end.")
    drift: Drift | None = _default(None, "How fast the clock may drift once it is back.")
    kernel_log: LogState = _default(
        KernelLog.CLEAN,
        "clean: no soft lockup, RCU stall or unstable clocksource. any: whatever it holds.",
    )


def _not_too_many(guests: object) -> object:
    # Asked first: a list of ten thousand needs one answer, not ten thousand.
    if isinstance(guests, list):
        if not guests:
            raise Wrong("the list of guests is empty", "add one, or delete the key for one guest, web-0")
        if len(guests) > MOST_GUESTS:
            raise _too_many(len(guests))
    return guests


def _too_many(asked: int) -> Wrong:
    return Wrong(f"{asked} guests are too many", f"ask for at most {MOST_GUESTS}")


class Document(BaseModel):
    """A freezelab playbook: which guests are frozen, how, and what the run has to show."""

    model_config = _section("name, resync, cycle and so on")

    name: Name = _needed("Name of the playbook: an RFC 1123 label.", "first-freeze")
    about: Text = _default("", "What it is for, in a sentence or two.")
    guests: Annotated[
        list[Guest],
        BeforeValidator(_not_too_many),
        Field(json_schema_extra={"minItems": 1, "maxItems": MOST_GUESTS}),
    ] = Field(
        default=[Guest.model_construct(name="web-0")],
        description=f"The guests, at most {MOST_GUESTS}. Left out: one, web-0.",
        json_schema_extra={"default": [{"name": "web-0"}]},
    )
    resync: Mechanism = _needed(
        "What brings the guests' clocks back after the resume. none: nothing. agent: the host sets "
        "them through qemu-guest-agent. chrony: chronyd in the guest, from a chronyd on the host.",
        "agent",
    )
    cycle: Cycle = _needed("How guests are frozen.")
    expect: Expect = _default(Expect(), "What has to be shown to pass.", "")
    repeat: Repeats = _default(1, "Number of cycles with a freeze.")
    control: Controls = _default(
        0, "Number of cycles without a freeze, run before the others: the noise of the measurement."
    )

    @field_validator("guests", mode="after")
    @classmethod
    def _distinct(cls, guests: list[Guest]) -> list[Guest]:
        first: dict[str, int] = {}
        for index, guest in enumerate(guests):
            for one in guest.names():
                if one in first:
                    what = f"two guests are named {one}, entries {first[one] + 1} and {index + 1} of the list"
                    raise Wrong(what, "rename one of them", within=(index, "name"))
                first[one] = index
        if len(first) > MOST_GUESTS:
            raise _too_many(len(first))
        return guests

    @field_validator("expect", mode="after")
    @classmethod
    def _watched_long_enough(cls, expect: Expect, info: ValidationInfo) -> Expect:
        cycle: Cycle | None = info.data.get("cycle")
        if cycle and expect.in_time:
            needed = expect.in_time.within + expect.in_time.hold
            if cycle.watch < needed:
                raise Wrong(
                    f"in_time needs {format_duration(needed)} after the resume (within + hold) but "
                    f"cycle.watch ends after {format_duration(cycle.watch)}, so it could never pass",
                    f"set cycle.watch to {format_duration(needed)} or more",
                    within=("in_time", "within"),
                )
        return expect
