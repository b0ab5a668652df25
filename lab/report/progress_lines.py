"""The lines of `run --json-lines`: a run's progress for other programs, one JSON object a line.

Every line has `event`, its kind, and `at`, when it was made (ISO 8601, UTC). Times are integer nanoseconds;
a measure has value_ns, low_ns and high_ns; null means unknown. The first line is `started`, the last one
`run-ended` or `failed`. Kinds and members may be added: a reader ignores those that it does not know
(docs/formats.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, get_args

from lab.core.verdict import Outcome
from lab.record.model import Measure, Offsets

SCHEMA = "freezelab.progress/1"
SCHEMA_ID = "urn:freezelab:schema:progress:1"


@dataclass(frozen=True)
class ProgressStarted:
    """The command has begun. freezelab: its version. cells: ids of the matrix, empty without one."""

    EVENT: ClassVar[str] = "started"

    schema: str
    freezelab: str
    playbook: str
    guests: tuple[str, ...]
    cells: tuple[str, ...]


@dataclass(frozen=True)
class ProgressRunBegan:
    """The run has an id, and its folder a history. accelerator: kvm or tcg."""

    EVENT: ClassVar[str] = "run-started"

    run: str
    path: str
    accelerator: str


@dataclass(frozen=True)
class ProgressPhase:
    """A new phase begins. guest: "" for all. length_ns: how long it takes, where that is known. text: for
    people."""

    EVENT: ClassVar[str] = "phase"

    name: str
    guest: str
    length_ns: int | None
    text: str


@dataclass(frozen=True)
class ProgressNote:
    """A line for people."""

    EVENT: ClassVar[str] = "note"

    text: str


@dataclass(frozen=True)
class ProgressImage:
    """A step of an image's build. fraction: of the step, 0 to 1."""

    EVENT: ClassVar[str] = "image"

    stage: str
    fraction: float | None


@dataclass(frozen=True)
class ProgressCell:
    """A cell of the matrix. state: started, skipped or refused. why: the reason of the last two."""

    EVENT: ClassVar[str] = "cell"

    cell: str
    state: str
    why: str


@dataclass(frozen=True)
class ProgressGuest:
    """A guest's probe answers. how: golden, cold or own; "" when that is not known."""

    EVENT: ClassVar[str] = "guest-started"

    guest: str
    cell: str
    how: str


@dataclass(frozen=True)
class ProgressCycle:
    """Cycle `number`, from 1, of `of` begins."""

    EVENT: ClassVar[str] = "cycle-started"

    number: int
    of: int


@dataclass(frozen=True)
class ProgressAnnounced:
    """A Scheduled Event is published. not_before: ISO 8601."""

    EVENT: ClassVar[str] = "announced"

    cycle: int
    id: str
    type: str
    resources: tuple[str, ...]
    not_before: str


@dataclass(frozen=True)
class ProgressHappening:
    """Something happens to a Scheduled Event, or in its group. what: seen, approved, started, gone, refused
    and so on. id: "" for none. guest: "" for the service."""

    EVENT: ClassVar[str] = "scheduled-event"

    what: str
    id: str
    group: str
    guest: str
    text: str


@dataclass(frozen=True)
class ProgressFrozen:
    """The guests stand still."""

    EVENT: ClassVar[str] = "frozen"

    budget_ns: int


@dataclass(frozen=True)
class ProgressResumed:
    """The guests run again."""

    EVENT: ClassVar[str] = "resumed"


@dataclass(frozen=True)
class ProgressDomain:
    """A domain of a rollout has reached a state: waiting, announced, started, frozen, resyncing, gate, done,
    stopped. wave: its number, from 1, of `of`."""

    EVENT: ClassVar[str] = "domain"

    domain: str
    state: str
    wave: int
    of: int


@dataclass(frozen=True)
class ProgressGate:
    """A gate of a rollout was asked of a guest. why: the reason when it does not hold."""

    EVENT: ClassVar[str] = "gate"

    guest: str
    gate: str
    ok: bool
    why: str


@dataclass(frozen=True)
class ProgressCycleEnded:
    """A guest's cycle has ended and was judged by itself: its bounds may be a little wider than in
    run.json, and its outcome is not final. control: a cycle without a freeze. resync: synced, not synced or
    undecided; "" when it was not measured. in_time_ns: from the resume."""

    EVENT: ClassVar[str] = "cycle-ended"

    guest: str
    cell: str
    cycle: int
    control: bool
    method: str
    outcome: Outcome
    pause: Measure | None
    offset: Offsets
    resync: str
    in_time_ns: int | None


@dataclass(frozen=True)
class ProgressTried:
    """One try of a search for the shortest pause that a workload fails at."""

    EVENT: ClassVar[str] = "tried"

    workload: str
    cell: str
    pause_ns: int
    outcome: Outcome


@dataclass(frozen=True)
class ProgressRunEnded:
    """The verdict. path: the run's folder, which has run.json. findings: their number by outcome. failure:
    what ended the run early or made its clean-up fail, "" when nothing did."""

    EVENT: ClassVar[str] = "run-ended"

    run: str
    path: str
    playbook: str
    outcome: Outcome
    exit_code: int
    complete: bool
    interrupted: bool
    findings: dict[str, int]
    failure: str


@dataclass(frozen=True)
class ProgressFailed:
    """There is no run to judge."""

    EVENT: ClassVar[str] = "failed"

    failure: str
    exit_code: int


ProgressLine = (
    ProgressStarted | ProgressRunBegan | ProgressPhase | ProgressNote | ProgressImage | ProgressCell |
    ProgressGuest | ProgressCycle | ProgressAnnounced | ProgressHappening | ProgressFrozen | ProgressResumed
    | ProgressDomain | ProgressGate | ProgressCycleEnded | ProgressTried | ProgressRunEnded | ProgressFailed
)  # fmt: skip


def text_of(line: ProgressLine, at: str) -> str:
    """The line as ASCII text without its line break. at: ISO 8601."""
    members = {"event": line.EVENT, "at": at, **{f.name: getattr(line, f.name) for f in fields(line)}}
    text = json.dumps(_printable(members), default=vars, separators=(",", ":"))
    return text.replace("\x7f", "\\u007f")


def _printable(value: Any) -> Any:
    """The value with question marks for surrogates, which UTF-8 has no form for."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {key: _printable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(each) for each in value]
    return value


def schema() -> dict[str, Any]:
    """The JSON schema of a line (draft 2020-12)."""
    from pydantic import TypeAdapter

    made = TypeAdapter(ProgressLine).json_schema(mode="serialization")
    head = {"at": {"type": "string", "format": "date-time"}}
    for line in get_args(ProgressLine):
        kind = made["$defs"][line.__name__]
        kind["properties"] = {"event": {"const": line.EVENT}, **head, **kind.get("properties", {})}
        kind["required"] = ["event", "at", *kind.get("required", [])]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": SCHEMA,
        **made,
    }
