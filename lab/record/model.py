"""run.json's members. Schema "freezelab.run/1", kept compatible: new members may come, none goes or changes
its meaning. All times are integer nanoseconds; offsets are guest minus host; null means that it was not
measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab.core.clock import Interval
from lab.core.effects import Backward, Timers
from lab.core.history import Host as Host
from lab.core.verdict import Finding, Outcome
from lab.record.model_clock import AuditRecord as AuditRecord
from lab.record.model_clock import Clocksource as Clocksource
from lab.record.model_clock import Drifts as Drifts
from lab.record.model_clock import ForecastRecord as ForecastRecord
from lab.record.model_clock import Measure as Measure
from lab.record.model_clock import Moved as Moved
from lab.record.model_clock import Offsets as Offsets
from lab.record.model_clock import PointRecord as PointRecord
from lab.record.model_clock import ResyncRecord as ResyncRecord
from lab.record.model_events import ApartRecord as ApartRecord
from lab.record.model_events import DomainRecord as DomainRecord
from lab.record.model_events import EventRecord as EventRecord
from lab.record.model_events import MemberRecord as MemberRecord
from lab.record.model_events import Moment as Moment
from lab.record.model_events import OneAtATime as OneAtATime
from lab.record.model_events import RolloutRecord as RolloutRecord
from lab.record.model_events import WaveRecord as WaveRecord


@dataclass(frozen=True)
class Playbook:
    name: str
    digest: str


@dataclass(frozen=True)
class Witnesses:
    hypervisor: Interval | None = None
    lag: Interval | None = None
    gap: Interval | None = None
    silence: Interval | None = None


@dataclass(frozen=True)
class StepRecord:
    """A part of a pause, or of a patch. at_ns: since the stop call. low_ns, high_ns: where length_ns lies,
    when it was inferred and not stamped."""

    name: str
    at_ns: int
    length_ns: int
    low_ns: int | None = None
    high_ns: int | None = None


@dataclass(frozen=True)
class Predicted:
    """What the freeze method's rules say, beside what was measured. agrees: null where the bounds do not
    tell."""

    claim: str
    predicted: str
    measured: str
    agrees: bool | None


@dataclass(frozen=True)
class Memory:
    """Two digests of the guest's RAM while it stood still. cost_ns: what they added to the pause."""

    page_bytes: int
    pages: int
    held: int
    differ: int
    before: str
    after: str
    cost_ns: int


@dataclass(frozen=True)
class EffectsRecord:
    """What else the pause did. looks, backward: of clocks handed from vCPU to vCPU, all of them; clocks: the
    same, one by one. rtc_before, rtc_after: RTC minus REALTIME around the pause. boot_minus_mono_ns: how far
    BOOTTIME left MONOTONIC."""

    timers: tuple[Timers, ...] = ()
    looks: int = 0
    backward: int = 0
    backward_worst_ns: int = 0
    rtc_before: Measure | None = None
    rtc_after: Measure | None = None
    boot_minus_mono_ns: int | None = None
    clocks: tuple[Backward, ...] = ()


@dataclass(frozen=True)
class Calibration:
    """The last calibration at the time of the run: what the lab is exact to on this machine. made: when
    (ISO 8601). bias_ns, spread_ns: of the measured pause against the known one, median and 95 % range.
    coverage: share of intervals that held the truth, of cycles. noise_ns: the largest pause seen without
    one. offset_bound_ns: half the width of an offset at rest. stale: why it does not hold for this run, ""
    when it does. rough: why it is less exact than it could be, "" when it is not."""

    made: str
    cycles: int
    bias_ns: int
    spread_ns: int
    coverage: float
    noise_ns: int
    offset_bound_ns: int
    stale: str = ""
    rough: str = ""


@dataclass(frozen=True)
class CycleRecord:
    """closure: where hypervisor - lag - gap lies. used_ns: of the budget. disagreeing: witnesses that
    contradict the pause. noise_ns: the largest hole that the sampler saw elsewhere. at_rest: from the
    guest's last instruction before the pause to the first one after it.

    pause: without what proving the memory cost; felt: with it, null when they are the same.
    stamps: QEMU's own RESUME - STOP. steps: where the pause went, from the stop call to the first packet;
    they add up. predictions: of the freeze method. cell: of the matrix, "" without one. control: a cycle
    without the freeze that the run is about. called_off: why the freeze was taken back, "" if it was not.
    cut: connections were cut by the guest's networking. outage_ns: of a reboot, until it was heard again.
    audits: the guest's own claims. effects: null when nobody watched for them.

    event: the id of what announced it, "" when nothing did; cancelled: that was called off, so it is without
    the freeze. wave: of the rollout, from 1.

    kernel_stalls: lines of the guest's kernel log that tell of trouble, or that may. kernel_notes: those that
    Linux itself takes for harmless. rtc_moved: how far the guest's RTC moved against the host's clock over
    the cycle, null unless that was certainly more than 2 s.
    disturbed: why the cycle did not go its way, "" when it did; it is not failed by what was not done then.
    resumed_by: who resumed the guest, when that was not the controller: "dead-man", "somebody else".
    """

    index: int
    frozen: bool
    method: str
    patch: str
    regime: str | None
    budget_ns: int
    used_ns: int | None
    pause: Measure | None
    witnesses: Witnesses
    agreeing: tuple[str, ...]
    closure_ns: int | None
    closure: Interval | None
    closes: bool
    offset: Offsets
    resync: ResyncRecord | None
    drift: Drifts
    boot_id_unchanged: bool | None
    kernel_stalls: tuple[str, ...]
    clocksource: Clocksource | None
    cpu_ns: int | None
    readings: int
    problems: tuple[str, ...]
    outcome: Outcome
    disagreeing: tuple[str, ...] = ()
    noise_ns: int | None = None
    at_rest: Interval | None = None
    cell: str = ""
    control: bool = False
    felt: Measure | None = None
    stamps: Interval | None = None
    steps: tuple[StepRecord, ...] = ()
    predictions: tuple[Predicted, ...] = ()
    memory: Memory | None = None
    called_off: str = ""
    cut: bool = False
    patch_impact: str = "freeze"
    patch_ok: bool | None = None
    patch_steps: tuple[StepRecord, ...] = ()
    version_before: str = ""
    version_after: str = ""
    outage_ns: int | None = None
    audits: tuple[AuditRecord, ...] = ()
    effects: EffectsRecord | None = None
    event: str = ""
    cancelled: bool = False
    wave: int | None = None
    kernel_notes: tuple[str, ...] = ()
    rtc_moved: Measure | None = None
    disturbed: str = ""
    resumed_by: str = ""


@dataclass(frozen=True)
class GuestRecord:
    """One entry for each guest and cell. availability_set: "" of none."""

    name: str
    image: str
    vcpus: int
    memory_bytes: int
    fault_domain: int
    update_domain: int
    boot: dict[str, Any]
    cycles: tuple[CycleRecord, ...]
    cell: str = ""
    availability_set: str = ""


@dataclass(frozen=True)
class Limits:
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Statistic:
    """Over all guests' cycles with a freeze (kind "freeze"), without one ("control"), or of a part of the
    pause ("step", metric is its name). Limits: 95 %, from order statistics; null where there are too few
    cycles for a limit."""

    kind: str
    metric: str
    unit: str
    count: int
    median: Limits
    p95: Limits
    max: float


@dataclass(frozen=True)
class CellRecord:
    """One point of the matrix. cycles: how many were run, of wanted. why: it was not run, or not whole;
    refused: it cannot be, here. memory_bytes, vcpus: of its first guest. pause: the median over its freezes;
    its bounds hold the true median at 95 %, or, of too few cycles for that, are the hull of all pauses."""

    id: str
    values: dict[str, str]
    outcome: Outcome
    method: str
    memory_bytes: int
    vcpus: int
    patch: str
    resync: str
    cycles: int
    wanted: int
    statistics: tuple[Statistic, ...]
    why: str = ""
    refused: bool = False
    pause: Measure | None = None


@dataclass(frozen=True)
class Comparison:
    """Cells beside each other. kind "slope": of the pause over RAM, unit "ns/GiB" (Theil-Sen); "ratio": of
    the median pauses of save-restore and in-place. of: the values that the cells have in common.
    low, high: 95 %; null with too few cycles. cycles: that it rests on."""

    kind: str
    of: dict[str, str]
    unit: str
    value: float
    low: float | None
    high: float | None
    cycles: int


@dataclass(frozen=True)
class LeftOutRecord:
    """A combination of the matrix that the plan leaves out: values by axis, and why."""

    values: dict[str, str]
    why: str


@dataclass(frozen=True)
class Run:
    """calibration: null when the lab had none on record. events: announcements, in their order. rollouts: one
    for each time that the fleet was gone through. one_at_a_time: null without a rollout."""

    schema: str
    id: str
    playbook: Playbook
    started: str
    ended: str
    outcome: Outcome
    complete: bool
    interrupted: bool
    host: Host
    guests: tuple[GuestRecord, ...]
    findings: tuple[Finding, ...]
    statistics: tuple[Statistic, ...] = ()
    cells: tuple[CellRecord, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    calibration: Calibration | None = None
    left_out: tuple[LeftOutRecord, ...] = ()
    events: tuple[EventRecord, ...] = ()
    rollouts: tuple[RolloutRecord, ...] = ()
    one_at_a_time: OneAtATime | None = None
