"""run.json's members. The schema "freezelab.run/1" stays compatible: members may be added, none is removed or
changes its meaning. All times are integer nanoseconds; offsets are guest minus host; null means that it was
not measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab.core.brown_out import BrownOut
from lab.core.clock import Interval
from lab.core.cross_timestamps import CrossTimestamps
from lab.core.effects import Backward, Timers
from lab.core.history import Host as Host
from lab.core.migration import MigrationReport
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
from lab.record.model_events import EventTotals as EventTotals
from lab.record.model_events import MemberRecord as MemberRecord
from lab.record.model_events import Moment as Moment
from lab.record.model_events import OneAtATime as OneAtATime
from lab.record.model_events import RolloutRecord as RolloutRecord
from lab.record.model_events import WaveRecord as WaveRecord
from lab.record.model_network import NetworkRecord as NetworkRecord
from lab.record.model_network import PlaceRecord as PlaceRecord
from lab.record.model_workload import ToleranceRecord as ToleranceRecord
from lab.record.model_workload import WorkloadRecord as WorkloadRecord


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
    """A part of a pause, or of a patch. at_ns: time since the stop call. low_ns, high_ns: bounds of
    length_ns, when it was inferred and not stamped."""

    name: str
    at_ns: int
    length_ns: int
    low_ns: int | None = None
    high_ns: int | None = None


@dataclass(frozen=True)
class Predicted:
    """A prediction of the freeze method beside the measurement. agrees: null where the bounds do not
    decide."""

    claim: str
    predicted: str
    measured: str
    agrees: bool | None


@dataclass(frozen=True)
class Memory:
    """Two digests of the guest's RAM during the freeze. cost_ns: the time that they added to the pause.
    rewritten: a page that differs as it must, because KVM writes its wall clock there, and is not counted."""

    page_bytes: int
    pages: int
    held: int
    differ: int
    before: str
    after: str
    cost_ns: int
    rewritten: int | None = None


@dataclass(frozen=True)
class EffectsRecord:
    """Other effects of the pause. looks, backward: totals over clocks whose values are passed from vCPU to
    vCPU; clocks: the same, one by one. rtc_before, rtc_after: RTC minus REALTIME around the pause.
    boot_minus_mono_ns: how far BOOTTIME and MONOTONIC parted."""

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
    """The last calibration at the time of the run: the lab's measurement error on this host. made: when (ISO
    8601). bias_ns, spread_ns: of the measured pause against the known one, median and 95 % range. coverage:
    the share of intervals that contained the truth, among `cycles`. noise_ns: the largest pause measured in
    cycles without one. offset_bound_ns: half the width of an offset at rest. stale: why it is not valid for
    this run, "" when it is. rough: why it is less exact than possible, "" when it is not."""

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
class StallRecord:
    """How long a guest's file systems stood still. calls: by the calls of its agent. felt: by a writer in the
    guest that has each write synced, null when it was not measured. writes: how many it made; usual_ns: the
    median time of one. thawed_inside: how many file systems the lab's writer thawed, because the agent had
    not. steps: those of the freeze and the thaw, from the call that froze."""

    calls: Interval
    felt: Measure | None
    writes: int
    usual_ns: int
    thawed_inside: int
    steps: tuple[StepRecord, ...] = ()


@dataclass(frozen=True)
class CycleRecord:
    """closure: bounds of hypervisor - lag - gap. used_ns: the used part of the budget. disagreeing: witnesses
    that contradict the pause. noise_ns: the sampler's largest hole elsewhere. at_rest: from the guest's last
    instruction before the pause to the first one after it.

    pause: without the cost of proving the memory; felt: with it, null when they are the same. stamps: QEMU's
    own RESUME - STOP. steps: the parts of the pause, from the stop call to the first packet; they add up.
    predictions: those of the freeze method. cell: the id of the matrix's cell, "" without a matrix. control:
    a cycle without the planned freeze. called_off: why the freeze was rolled back, "" if it was not. cut:
    connections were cut by the guest's networking. outage_ns: for a reboot, the time until the new boot's
    first sign. audits: the guest's own claims. effects: null when they were not recorded.

    event: the id of the event that announced it, "" without one; cancelled: that event was called off, so
    there was no freeze. wave: the rollout's wave, from 1.

    kernel_stalls: lines of the guest's kernel log that are trouble, or may be. kernel_notes: those that Linux
    itself treats as harmless. rtc_moved: how far the guest's RTC moved against the host's clock over the
    cycle, null unless that was certainly more than 2 s. disturbed: why the cycle did not go as planned, ""
    when it did; it is not failed by what was not done for that reason. resumed_by: "dead-man" or "somebody
    else" when the controller did not resume the guest, else "". cpu_wait_share: the part of the time, from
    before the stop to the end of the watch, for which the guest's QEMU waited for a CPU of the host, all its
    threads together; null when that was not looked at. stall: how long its file systems were frozen; null
    when they were not. migration: what was seen of a live migration; null without one. brown_out: how
    much slower the guest worked meanwhile; null when that was not counted. cross_timestamps: of the host's
    clock by ptp_kvm in the guest; null where there is none. steal_ns: for how long its vCPUs were ready and
    did not run over the cycle, as its own kernel counts it; null when it was not read.
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
    cpu_wait_share: float | None = None
    stall: StallRecord | None = None
    migration: MigrationReport | None = None
    brown_out: BrownOut | None = None
    cross_timestamps: CrossTimestamps | None = None
    steal_ns: int | None = None

    @property
    def silent_after_ns(self) -> int:
        """How much longer the silence was than the pause, at least. It does not contradict it: the guest may
        be late, and so may its packets."""
        if self.witnesses.silence is None or self.pause is None:
            return 0
        return max(0, self.witnesses.silence.low_ns - self.pause.high_ns)


@dataclass(frozen=True)
class GuestRecord:
    """One entry for each guest and cell. availability_set: "" for none. image: "" for a domain of the user's
    own. boot: its start: started, "golden" (from a golden guest), "cold" or "own" (it ran already); because:
    why it was booted, when it was; domain, uuid: libvirt's, of one of the user's own; to_probe_s, to_ssh_s:
    until its probe answered, and SSH did; and other durations by name. peer: it was there for the others, and
    neither frozen nor measured."""

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
    peer: bool = False


@dataclass(frozen=True)
class Limits:
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Statistic:
    """A statistic over all guests' cycles with a freeze (kind "freeze"), over those without one ("control"),
    or over a part of the pause ("step"; metric is its name). Limits: 95 %, from order statistics; null where
    there are too few cycles for a limit."""

    kind: str
    metric: str
    unit: str
    count: int
    median: Limits
    p95: Limits
    max: float


@dataclass(frozen=True)
class CellRecord:
    """One point of the matrix. cycles: the number of cycles that were run, of `wanted`. why: the reason for
    which it was not run, or not completely; refused: it is not supported here. memory_bytes, vcpus: those of
    its first guest. pause: the median over its freezes, with the bounds of the true median at 95 % or, with
    too few cycles, the hull of all pauses. events: null when nothing was announced."""

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
    events: EventTotals | None = None


@dataclass(frozen=True)
class Comparison:
    """A comparison of cells. kind "slope": the slope of the pause over RAM, unit "ns/GiB" (Theil-Sen);
    "ratio": the ratio of the median pauses of save-restore and in-place. of: the common values of the cells.
    low, high: the 95 % interval; null with too few cycles. cycles: the number of cycles used."""

    kind: str
    of: dict[str, str]
    unit: str
    value: float
    low: float | None
    high: float | None
    cycles: int


@dataclass(frozen=True)
class LeftOutRecord:
    """A combination of the matrix that the plan leaves out: its values by axis, and the reason."""

    values: dict[str, str]
    why: str


@dataclass(frozen=True)
class PartRecord:
    """A run that had a part of a merged record's cells. run: its id. host: where its figures were measured.
    cells: those that it reached. complete: its history has an end. calibration: its host's, null when it had
    none."""

    run: str
    started: str
    ended: str
    host: Host
    cells: tuple[str, ...]
    complete: bool
    calibration: Calibration | None = None


@dataclass(frozen=True)
class Run:
    """The whole of run.json. calibration: null when the lab had none. events: announcements, in their order.
    rollouts: one for each pass over the fleet. one_at_a_time: null without a rollout. network: the lab's own,
    null without one. workloads: what ran in the guests, one entry for each cell. tolerances: the shortest
    pauses that they failed at. tags: names that the user gave to the run. of_cells: when the run had only a
    part of its playbook's cells, how many these are; else null. parts: the runs that a merged record is made
    of; its `host` has what their hosts have in common."""

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
    network: NetworkRecord | None = None
    workloads: tuple[WorkloadRecord, ...] = ()
    tolerances: tuple[ToleranceRecord, ...] = ()
    tags: tuple[str, ...] = ()
    of_cells: int | None = None
    parts: tuple[PartRecord, ...] = ()
