"""Events of one guest's cycle, in the order in which they come, and what the dead-man did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from lab.core.claims import Claim
from lab.core.effects import Effects
from lab.core.method import FreezeMethod
from lab.core.timeline import Call, CpuWait, Heartbeat, MemoryProof, ProbeFacts, Reading, SamplerReport, Step
from lab.core.timesync_setup import Setup


@dataclass(frozen=True)
class OfGuest:
    """The guest, and the index of its cycle."""

    guest: str
    cycle: int


@dataclass(frozen=True)
class CycleBegan(OfGuest):
    """frozen: False for a control cycle. patch: its label; impact: core.patch.Impact's word. cell: "" without
    a matrix."""

    KIND: ClassVar[str] = "cycle"

    frozen: bool
    method: FreezeMethod
    patch: str
    impact: str = "freeze"
    budget_ns: int = field(kw_only=True)
    cell: str = ""


@dataclass(frozen=True)
class FactsRead(OfGuest):
    """What the guest says of itself, before the freeze and when the watch is over."""

    KIND: ClassVar[str] = "facts"

    when: Literal["before", "after"]
    facts: ProbeFacts


@dataclass(frozen=True)
class SetupRead(OfGuest):
    """The time-sync set-up in the guest before the freeze."""

    KIND: ClassVar[str] = "setup"

    setup: Setup


@dataclass(frozen=True)
class ReadingsTaken(OfGuest):
    """A burst of readings. On a line each is a list: t1 raw, real; t2 real, mono, boot, raw; t3 the same; t4
    raw, real; resolution; then what there is of: channel ("ssh" if it is not there); the packets' stamps:
    arrived, least apart, left, most apart."""

    KIND: ClassVar[str] = "readings"

    readings: tuple[Reading, ...]


@dataclass(frozen=True)
class GuestsFrozen:
    """All of these guests stand still now. Written while they do: so much is known after a kill -9."""

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
    """The call that let it run again."""

    KIND: ClassVar[str] = "resume"

    call: Call


@dataclass(frozen=True)
class StepsTimed(OfGuest):
    """The steps of the freeze and of the resume."""

    KIND: ClassVar[str] = "steps"

    steps: tuple[Step, ...]


@dataclass(frozen=True)
class ExchangeEnded(OfGuest):
    """How replacing the guest's process ended, when not in the usual way. called_off: why the guest was put
    back. cut: its network connections were cut."""

    KIND: ClassVar[str] = "exchange"

    called_off: str
    cut: bool


@dataclass(frozen=True)
class MemoryProven(OfGuest):
    """With prove_memory."""

    KIND: ClassVar[str] = "proof"

    proof: MemoryProof


@dataclass(frozen=True)
class CpuUsed(OfGuest):
    """CPU time of the guest's vCPU threads on the host between stop and resume."""

    KIND: ClassVar[str] = "cpu"

    used_ns: int | None


@dataclass(frozen=True)
class CpuWaited(OfGuest):
    """How long the guest's QEMU waited for a CPU of the host, from before the stop to the end of the watch,
    in order of time."""

    KIND: ClassVar[str] = "waited"

    waits: tuple[CpuWait, ...]


@dataclass(frozen=True)
class PatchApplied(OfGuest):
    """What became of the host's patch; ok None: nobody knows. facts: what it says of itself. steps: its
    own."""

    KIND: ClassVar[str] = "patch"

    ok: bool | None
    why: str
    facts: dict[str, Any] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class SamplesTaken(OfGuest):
    """The record of the sampler in the guest."""

    KIND: ClassVar[str] = "samples"

    sampler: SamplerReport


@dataclass(frozen=True)
class BeatsArrived(OfGuest):
    """All heartbeats of the cycle. On a line each is a list: sequence, sent raw, arrived raw, real."""

    KIND: ClassVar[str] = "beats"

    beats: tuple[Heartbeat, ...]


@dataclass(frozen=True)
class ResyncReported(OfGuest):
    """What the resync mechanism says of its own action. finished_raw_ns: host MONOTONIC_RAW when it had done
    all that it does after a resume; None when it has not, or goes on by itself."""

    KIND: ClassVar[str] = "resync"

    said: str
    finished_raw_ns: int | None = None


@dataclass(frozen=True)
class WatcherReported(OfGuest):
    """What programs in the guest said of its clock, and what else the pause did to it."""

    KIND: ClassVar[str] = "watched"

    claims: tuple[Claim, ...]
    effects: Effects | None


@dataclass(frozen=True)
class VersionsCompared(OfGuest):
    """Versions of what was patched. why: it is not what the patch claims, "" when it is."""

    KIND: ClassVar[str] = "verified"

    before: str
    after: str
    why: str


@dataclass(frozen=True)
class ProblemMet(OfGuest):
    """What went wrong with observing the guest; its first line counts."""

    KIND: ClassVar[str] = "problem"

    text: str


@dataclass(frozen=True)
class CycleEnded(OfGuest):
    """host_step_ns: how far the host's REALTIME moved against its MONOTONIC_RAW over the cycle."""

    KIND: ClassVar[str] = "cycle-end"

    host_step_ns: int


@dataclass(frozen=True)
class DeadManActed:
    """What the dead-man did: a process of its own that writes to the same file while the controller writes,
    or when it is gone. Its lines have no number, so they are not counted in the sequence, and they may come
    anywhere, also on the rest of a line that the controller did not finish.

    act: "resumed", "failed", … why: it acted. call: by which it resumed the guest. text: what went wrong.
    guest, cycle: as far as it knows them.
    """

    KIND: ClassVar[str] = "deadman"

    act: str
    why: str
    call: Call | None = None
    text: str | None = None
    guest: str = ""
    cycle: int | None = None
