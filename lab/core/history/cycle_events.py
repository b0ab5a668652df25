"""The events of one guest's cycle, in the order in which they are written, and the dead-man's event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from lab.core.claims import Claim
from lab.core.effects import Effects
from lab.core.file_stall import FileWrites
from lab.core.method import FreezeMethod
from lab.core.migration import MigrationReport
from lab.core.timeline import Call, CpuWait, Heartbeat, MemoryProof, ProbeFacts, Reading, SamplerReport, Step
from lab.core.timesync_setup import Setup
from lab.core.work import WorkCounts


@dataclass(frozen=True)
class OfGuest:
    """Base class. guest: its name. cycle: the index of its cycle."""

    guest: str
    cycle: int


@dataclass(frozen=True)
class CycleBegan(OfGuest):
    """A guest's cycle begins. frozen: False for a control cycle. patch: the patch's label. impact: a value of
    core.patch.Impact. cell: the cell of the matrix; "" without a matrix."""

    KIND: ClassVar[str] = "cycle"

    frozen: bool
    method: FreezeMethod
    patch: str
    impact: str = "freeze"
    budget_ns: int = field(kw_only=True)
    cell: str = ""


@dataclass(frozen=True)
class FactsRead(OfGuest):
    """The guest's facts, read before the freeze and after the watch."""

    KIND: ClassVar[str] = "facts"

    when: Literal["before", "after"]
    facts: ProbeFacts


@dataclass(frozen=True)
class SetupRead(OfGuest):
    """The guest's time-sync set-up before the freeze."""

    KIND: ClassVar[str] = "setup"

    setup: Setup


@dataclass(frozen=True)
class ReadingsTaken(OfGuest):
    """A burst of readings. In the history each reading is a list, all in ns: t1 raw, real; t2 real, mono,
    boot, raw; t3 likewise; t4 raw, real; resolution. A clock that was not read is null. Two parts are
    optional: the channel (default "ssh"), and the packets' stamps (arrived, least apart, left, most apart).
    """

    KIND: ClassVar[str] = "readings"

    readings: Sequence[Reading]


@dataclass(frozen=True)
class GuestsFrozen:
    """All of these guests are frozen now. It is written during the freeze, so that it survives a kill -9."""

    KIND: ClassVar[str] = "freeze"

    cycle: int
    guests: tuple[str, ...]
    method: FreezeMethod | None = None


@dataclass(frozen=True)
class StopCalled(OfGuest):
    """The call that stopped the guest."""

    KIND: ClassVar[str] = "stop"

    call: Call


@dataclass(frozen=True)
class ResumeCalled(OfGuest):
    """The call that resumed the guest."""

    KIND: ClassVar[str] = "resume"

    call: Call


@dataclass(frozen=True)
class StepsTimed(OfGuest):
    """The timed steps of the freeze and of the resume."""

    KIND: ClassVar[str] = "steps"

    steps: tuple[Step, ...]


@dataclass(frozen=True)
class ExchangeEnded(OfGuest):
    """An unusual end of the exchange of the guest's process. called_off: why the guest was rolled back to its
    old process; "" when it was not. cut: the guest's network connections were cut."""

    KIND: ClassVar[str] = "exchange"

    called_off: str
    cut: bool


@dataclass(frozen=True)
class WorkCounted(OfGuest):
    """What a program in the guest counted that dirtied memory."""

    KIND: ClassVar[str] = "work"

    counts: WorkCounts


@dataclass(frozen=True)
class MigrationWatched(OfGuest):
    """What was seen of a live migration, completed or called off."""

    KIND: ClassVar[str] = "migration"

    report: MigrationReport


@dataclass(frozen=True)
class MemoryProven(OfGuest):
    """The memory proof of a cycle with prove_memory."""

    KIND: ClassVar[str] = "proof"

    proof: MemoryProof


@dataclass(frozen=True)
class CpuUsed(OfGuest):
    """CPU time that the guest's vCPU threads used on the host between stop and resume; None: unknown."""

    KIND: ClassVar[str] = "cpu"

    used_ns: int | None


@dataclass(frozen=True)
class CpuWaited(OfGuest):
    """Samples of how long the guest's QEMU has waited for a host CPU, from before the stop to the end of the
    watch, in order of time."""

    KIND: ClassVar[str] = "waited"

    waits: tuple[CpuWait, ...]


@dataclass(frozen=True)
class PatchApplied(OfGuest):
    """The result of the host patch. ok: None when it is unknown. why: the reason when not ok. facts: the
    patch's own report. steps: the patch's timed steps."""

    KIND: ClassVar[str] = "patch"

    ok: bool | None
    why: str
    facts: dict[str, Any] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class SamplesTaken(OfGuest):
    """The report of the sampler in the guest."""

    KIND: ClassVar[str] = "samples"

    sampler: SamplerReport


@dataclass(frozen=True)
class BeatsArrived(OfGuest):
    """All heartbeats of the cycle. In the history each is a list: sequence, sent raw, arrived raw, real."""

    KIND: ClassVar[str] = "beats"

    beats: Sequence[Heartbeat]


@dataclass(frozen=True)
class ResyncReported(OfGuest):
    """The resync mechanism's report of its own action. finished_raw_ns: host MONOTONIC_RAW at which it had
    finished its work after the resume; None when it did not finish, or works continuously."""

    KIND: ClassVar[str] = "resync"

    said: str
    finished_raw_ns: int | None = None


@dataclass(frozen=True)
class WatcherReported(OfGuest):
    """What programs in the guest claimed about its clock, and other side effects of the pause."""

    KIND: ClassVar[str] = "watched"

    claims: tuple[Claim, ...]
    effects: Effects | None


@dataclass(frozen=True)
class FilesWritten(OfGuest):
    """The record of the writer in a guest whose file systems were frozen. None: it has none."""

    KIND: ClassVar[str] = "writes"

    writes: FileWrites | None


@dataclass(frozen=True)
class VersionsCompared(OfGuest):
    """The versions before and after the patch. why: why the patch did not take effect; "" when it did."""

    KIND: ClassVar[str] = "verified"

    before: str
    after: str
    why: str


@dataclass(frozen=True)
class ProblemMet(OfGuest):
    """A problem with observing the guest. Only the first line of its text is used."""

    KIND: ClassVar[str] = "problem"

    text: str


@dataclass(frozen=True)
class CycleEnded(OfGuest):
    """The guest's cycle ends. host_step_ns: how far the host's REALTIME moved against its MONOTONIC_RAW
    during the cycle; positive: forward."""

    KIND: ClassVar[str] = "cycle-end"

    host_step_ns: int


@dataclass(frozen=True)
class DeadManActed:
    """An action of the dead-man, a separate process that writes to the same file, even while the controller
    writes or after the controller has ended. Its lines have no sequence number and may come anywhere, even
    after a line that the controller did not finish.

    act: see deadman.rescue.Rescued: "resumed", "failed", … why: the reason for acting. call: the call that
    resumed the guest, if one did. text: details or the error. guest, cycle: "" and None when unknown.
    """

    KIND: ClassVar[str] = "deadman"

    act: str
    why: str
    call: Call | None = None
    text: str | None = None
    guest: str = ""
    cycle: int | None = None
