"""The `announce` section: the Scheduled Event before the freeze, and deliberate faults of the service."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from lab.core import announcement as planned
from lab.core.plan import Announcement, Cloud, OtherEvent, ServiceFaults
from lab.core.scheduled.model import (
    UNKNOWN_S,
    EventSource,
    EventType,
    Fault,
    Late,
    OnPurpose,
    Recorded,
    on_purpose,
)
from lab.core.units import NS_PER_S, format_duration
from lab.playbook.cycles import CycleSection
from lab.playbook.fields import FOLDER, DurationOrZero, Flag, Words, default, needed, section, time
from lab.playbook.guests import Instance
from lab.playbook.mistakes import Wrong, quoted
from lab.playbook.scalars import HOUR, ScalarReader, alternatives, duration, expect_scalar, one_of, text
from lab.playbook.tree import Items, Scalar

UNKNOWN = "unknown"
MOST_FACTOR = 1000
MOST_ANSWERS = 100
MOST_OTHERS = 20
MOST_DOCUMENT_BYTES = 1 << 20

_FACTOR = re.compile(r"[0-9]+(\.[0-9]+)?")


def announced_duration() -> ScalarReader:
    """DurationInSeconds: whole seconds, or `unknown`."""
    length = duration(zero=True)
    advice = f"write whole seconds, like 5s, or {UNKNOWN}"

    def read(node: object) -> int:
        if expect_scalar(node, "a duration", advice).text == UNKNOWN:
            return UNKNOWN_S
        value = length.read(node)
        if not isinstance(value, int) or value % NS_PER_S:
            raise Wrong("announced durations are whole seconds", advice)
        return value // NS_PER_S

    pattern = str(length.json["pattern"]).removeprefix("^").removesuffix("$")
    return ScalarReader(read, {"type": "string", "pattern": f"^({UNKNOWN}|{pattern})$"})


def factor() -> ScalarReader:
    """How many times as fast as real time the service's time passes."""
    advice = f"write a number from 1 (real time) to {MOST_FACTOR}, like 60"

    def read(node: object) -> float:
        scalar = expect_scalar(node, "a number", advice)
        shown = quoted(scalar.text)
        if not scalar.plain or not _FACTOR.fullmatch(scalar.text.lstrip("-")) or len(scalar.text) > 20:
            raise Wrong(f"not a factor: {shown}", advice)
        value = float(scalar.text)
        if value < 1:
            raise Wrong(f"the service's time cannot pass {scalar.text} times as fast as real time", advice)
        if value > MOST_FACTOR:
            raise Wrong(f"{scalar.text} times as fast leaves no time to observe anything", advice)
        return value

    return ScalarReader(read, {"type": "number", "minimum": 1, "maximum": MOST_FACTOR})


def answer() -> ScalarReader:
    """What a request is answered with on purpose. A document's file is read later."""
    words = [fault.value for fault in Fault]
    advice = f"write {alternatives([*words, 'late 5s', 'document FILE'])}"
    length = duration(most=HOUR)

    def read(node: object) -> OnPurpose:
        scalar = expect_scalar(node, "an answer", advice)
        try:
            given = on_purpose(scalar.text, lambda _: "")
        except ValueError:
            raise Wrong(f"{quoted(scalar.text)} is not an answer", advice) from None
        if isinstance(given, Late):
            length.read(replace(scalar, text=scalar.text.strip().removeprefix("late")))
        return given

    numbers = [int(word) for word in words if word.isdigit()]
    late = str(length.json["pattern"]).removeprefix("^").removesuffix("$")
    pattern = {"type": "string", "pattern": rf"^\s*(late {late}|document .*\S.*)$"}
    return ScalarReader(read, {"anyOf": [{"enum": [*numbers, *words]}, pattern]})


CloudName = Annotated[Cloud, one_of(*Cloud, hint="a cloud")]
Type = Annotated[EventType, one_of(*EventType, hint="a type of event", small=True)]
Source = Annotated[EventSource, one_of(*EventSource, hint="a source of events", small=True)]
AnnouncedDuration = Annotated[int, announced_duration()]
Factor = Annotated[float, factor()]
Answer = Annotated[OnPurpose, answer()]
Text = Annotated[str, text()]


def _not_too_many(node: object) -> object:
    if isinstance(node, Items) and len(node) > MOST_ANSWERS:
        raise Wrong(f"{len(node)} answers are too many", f"write at most {MOST_ANSWERS}")
    if isinstance(node, Scalar):
        raise Wrong("a list of answers is expected here", f"write [{node.text[:20]}]")
    return node


def _loaded(given: OnPurpose, folder: Path, number: int) -> OnPurpose:
    """A recorded document with its text."""
    if not isinstance(given, Recorded):
        return given
    try:
        path = (folder / given.name).resolve()
        if path.stat().st_size > MOST_DOCUMENT_BYTES:
            raise Wrong(
                f"{quoted(given.name, 80)} is larger than 1 MiB",
                "record a shorter document",
                within=(number,),
            )
        return Recorded(path.name, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise Wrong(f"{quoted(given.name, 80)} is not UTF-8", "record it again", within=(number,)) from None
    except (OSError, RuntimeError, ValueError):
        what = f"no file {quoted(given.name, 80)} in the playbook's folder"
        raise Wrong(what, "write its path relative to the playbook's folder", within=(number,)) from None


def _not_too_many_events(node: object) -> object:
    if isinstance(node, Items) and len(node) > MOST_OTHERS:
        raise Wrong(f"{len(node)} events are too many", f"write at most {MOST_OTHERS}")
    if not isinstance(node, Items):
        raise Wrong("a list of events is expected here", "write [{type: reboot, notice: 1h}]")
    return node


class ServiceSection(BaseModel):
    """What is wrong with the metadata service, on purpose."""

    model_config = section("{first_answer: 2min}")

    first_answer: DurationOrZero = time(
        ServiceFaults.first_answer_ns, "Delay of the first answer, in the service's time."
    )
    answers: Annotated[list[Answer], BeforeValidator(_not_too_many)] = Field(
        default=[],
        description="List of the answers to each guest's requests, one after another, from the "
        "announcement on: an error (404, 410, 429, 500, 503), hang (no answer at all), "
        "empty (200 with an empty body), plain (text/plain), no-events (without the "
        "member Events), truncated (half of the document), late 5s (real time), "
        "document FILE (recorded; its path is relative to the playbook's folder), or "
        "200 (the correct answer). After the list, correct answers.",
        json_schema_extra={"maxItems": MOST_ANSWERS},
    )
    restart_incarnation: Flag = default(
        ServiceFaults.restarts, "The document's incarnation restarts at 1, right after the announcement."
    )
    rate_limit: Flag = default(
        ServiceFaults.rate_limit, "More than 5 requests a second from one guest are answered with 429."
    )

    @field_validator("answers", mode="after")
    @classmethod
    def _documents(cls, answers: list[OnPurpose], info: ValidationInfo) -> list[OnPurpose]:
        folder = (info.context or {}).get(FOLDER, Path())
        return [_loaded(one, folder, number) for number, one in enumerate(answers)]

    def to_plan(self) -> ServiceFaults:
        """The faults as the plan has them."""
        return ServiceFaults(
            self.first_answer, tuple(self.answers), self.restart_incarnation, self.rate_limit
        )


class Other(BaseModel):
    """An event that is shown beside the one that the freeze is about, and that nothing follows from."""

    model_config = section("{type: reboot, notice: 1h}")

    type: Type = needed("The event's EventType.", "reboot")
    notice: DurationOrZero | None = default(
        None, "From the announcement to NotBefore, in the service's time. Default: the type's minimum."
    )
    source: Source = default(EventSource.PLATFORM, "The event's EventSource: platform or user.", "platform")
    description: Text = default("", "The event's Description. Left out: the lab writes one.")

    def to_plan(self) -> OtherEvent:
        """The event as the plan has it."""
        return OtherEvent(self.type, self.notice, self.source, self.description)


class Announce(BaseModel):
    """What guests are told before the freeze, through the metadata service's Scheduled Events."""

    model_config = section("{notice: 15min}")

    cloud: CloudName = default(
        Cloud.AZURE,
        "Whose metadata service answers in the guests: azure (Scheduled Events), gce (maintenance-event) or "
        "ec2 (events/maintenance/scheduled, spot). Only guests in azure can approve.",
        "azure",
    )
    imdsv1: Flag = default(
        Announcement.imdsv1, "EC2: requests without a session token are answered. false: only IMDSv2's are."
    )
    type: Type | None = default(
        None, "The event's EventType. Default: reboot when guests are shut down, otherwise freeze."
    )
    notice: DurationOrZero | None = default(
        None,
        (
            "From the announcement to NotBefore, in the service's time. 0s: Started at "
            "once. Default: the type's documented minimum, "
        )
        + ", ".join(f"{one.lower()} {format_duration(one.minimum_notice_s * NS_PER_S)}" for one in EventType)
        + ".",
    )
    duration: AnnouncedDuration | None = default(
        None,
        "The announced DurationInSeconds: whole seconds of real time, like the pause, "
        "or unknown. Default: the first of 5, 9 and 30 s that is long enough for the "
        "patch and the freeze method's overhead. Only a freeze has one.",
    )
    source: Source = default(EventSource.PLATFORM, "The event's EventSource: platform or user.", "platform")
    description: Text = default("", "The event's Description. Left out: the lab writes one.")
    time_factor: Factor = default(
        Announcement.time_factor,
        "Speed of the service's time: how many times as fast as real time it passes.",
    )
    started_for: DurationOrZero = time(
        Announcement.started_ns,
        "The shortest time for which the event is shown as Started before the freeze, in real time.",
    )
    cancel_after: DurationOrZero | None = default(
        None,
        "The event is called off this long after the announcement, in the service's "
        "time, unless it has started by then. Default: never.",
    )
    handler: Words | None = default(
        None,
        "A program that handles events in every guest, with its arguments. Its path is "
        "relative to the playbook's folder. Default: none.",
    )
    others: Annotated[list[Other], BeforeValidator(_not_too_many_events)] = Field(
        default=[],
        description="Further events for the same guests, announced together with the main event. "
        "No action follows them. They disappear together with the main event.",
        json_schema_extra={"maxItems": MOST_OTHERS},
    )
    service: ServiceSection = default(ServiceSection(), "Deliberate faults of the metadata service.", "")
    instance: Instance = default(
        (),
        "Values of /metadata/instance for every guest, in place of the lab's, written "
        "as the service answers them. A guest's own instance takes precedence.",
        "",
    )

    @field_validator("handler", mode="after")
    @classmethod
    def _there(cls, words: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if not words:
            return words
        folder = (info.context or {}).get(FOLDER, Path())
        file = words[0]
        try:
            file = str((folder / words[0]).resolve())
            there = Path(file).is_file()
        except (OSError, RuntimeError, ValueError):  # a name too long, a loop of links, a lone surrogate
            there = False
        if not there:
            what = f"no file {quoted(words[0], 80)} in the playbook's folder"
            raise Wrong(
                what,
                "write its path relative to the playbook's folder, like ../examples/drain.py",
                within=(0,),
            )
        return (file, *words[1:])

    @model_validator(mode="after")
    def _in_itself(self) -> Self:
        if self.cloud is not Cloud.AZURE and (only := self._only_azures()):
            what = f"only Azure's service has this, and the guests are in {self.cloud}"
            raise Wrong(what, "delete it, or set cloud to azure", within=only)
        if not self.imdsv1 and self.cloud is not Cloud.EC2:
            what = f"only EC2's service has tokens, and the guests are in {self.cloud}"
            raise Wrong(what, "delete it, or set cloud to ec2", within=("imdsv1",))
        if self.type not in (None, EventType.FREEZE) and self.duration not in (None, UNKNOWN_S):
            what = f"a {self.type.lower()} is announced without a duration; only a freeze has one"
            raise Wrong(what, f"delete it, or write {UNKNOWN}", within=("duration",))
        return self

    def _only_azures(self) -> tuple[str | int, ...]:
        """Where something is written that only Azure's service has."""
        if self.service.restart_incarnation:
            return "service", "restart_incarnation"
        if Fault.NO_EVENTS in self.service.answers:
            return "service", "answers", self.service.answers.index(Fault.NO_EVENTS)
        return ("instance",) if self.instance else ()

    def type_for(self, cycle: CycleSection) -> EventType:
        """The type, or the one that the cycle's patch asks for."""
        return planned.event_type(self.to_plan(), cycle.patch.to_plan())

    def duration_for(self, cycle: CycleSection) -> int:
        """DurationInSeconds as it is announced, or UNKNOWN_S."""
        return planned.duration_s(self.to_plan(), self.type_for(cycle), cycle.to_plan())

    def notice_for(self, cycle: CycleSection) -> int:
        """From the announcement to NotBefore: nanoseconds of the service's time."""
        return planned.service_notice_ns(self.to_plan(), self.type_for(cycle))

    def fits(self, cycle: CycleSection) -> None:
        """Wrong when it makes no sense before such a cycle."""
        notice = self.notice_for(cycle)
        if (
            self.type is None
            and self.type_for(cycle) is EventType.REBOOT
            and self.duration not in (None, UNKNOWN_S)
        ):
            what = "the patch is announced as a reboot; only a freeze has a duration"
            raise Wrong(what, f"delete it, or write {UNKNOWN}", within=("duration",))
        if self.cancel_after is not None and self.cancel_after >= notice:
            late, end = format_duration(self.cancel_after), format_duration(notice)
            what = f"the event cannot be called off after {late}: it starts when its notice of {end} ends"
            todo = f"write less than {end}" if notice else "set a longer notice"
            raise Wrong(what, todo, within=("cancel_after",))

    def to_plan(self) -> Announcement:
        """The announcement as the plan has it."""
        return Announcement(
            type=self.type,
            notice_ns=self.notice,
            duration_s=self.duration,
            source=self.source,
            description=self.description,
            time_factor=self.time_factor,
            started_ns=self.started_for,
            cancel_after_ns=self.cancel_after,
            handler=self.handler or (),
            service=self.service.to_plan(),
            instance=self.instance,
            others=tuple(other.to_plan() for other in self.others),
            cloud=self.cloud,
            imdsv1=self.imdsv1,
        )
