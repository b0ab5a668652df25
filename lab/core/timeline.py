"""Observations: readings, heartbeats, and the in-guest sampler's record. Values only.

Guest times are the guest's own clocks in nanoseconds; host times are Stamps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lab.core.claims import Claim
from lab.core.clock import GuestClock, Interval, Stamp
from lab.core.effects import Effects
from lab.core.file_stall import FileWrites
from lab.core.method import FreezeMethod, Prediction
from lab.core.migration import MigrationReport
from lab.core.step import Step as Step
from lab.core.timesync_setup import Setup
from lab.core.work import WorkCounts


@dataclass(frozen=True, slots=True)
class PacketStamps:
    """The guest's kernel's stamps of the request's arrival and the answer's departure, in its REALTIME:
    between t1 and t2, and between t3 and t4, whatever the network's delays. None: not certain.

    least_apart_ns: the guest's REALTIME minus its MONOTONIC_RAW at the request's arrival, lower bound.
    most_apart_ns: the same at the answer's departure, upper bound. Both come from readings before and after
    it.
    """

    arrived_real_ns: int | None
    least_apart_ns: int
    left_real_ns: int | None
    most_apart_ns: int


@dataclass(frozen=True, slots=True)
class CrossTimestamp:
    """The host's REALTIME as ptp_kvm reads it in the guest, and the guest's MONOTONIC_RAW at that instant,
    between its bounds. They are equal where both come from one reading of the TSC."""

    host_real_ns: int
    least_raw_ns: int
    most_raw_ns: int


CHANNEL = "ssh"
"""The channel of readings that name none."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One exchange with a guest: host stamp t1, guest clocks on receipt (t2) and before the
    answer (t3), host stamp t4 (docs/measuring.md, "A reading").

    A clock that was not read is missing in both. The guest reads RAW first on receipt and last before the
    answer, so that the other clocks of an exchange lie between the two (core.offsets.apart relies on it).

    resolution_ns: coarseness of the guest's clock readings. passing: the stamps of the guest's kernel, where
    it has them. channel: "ssh" or "serial". cross: taken between t2 and t3, in a guest that has ptp_kvm.
    """

    t1: Stamp
    t2: dict[GuestClock, int]
    t3: dict[GuestClock, int]
    t4: Stamp
    resolution_ns: int = 1
    packet_stamps: PacketStamps | None = None
    channel: str = CHANNEL
    cross: CrossTimestamp | None = None

    def offset(self, clock: GuestClock) -> Interval:
        """guest `clock` minus the host's REALTIME (for REAL) or MONOTONIC_RAW (all others): [t3 - t4, t2 -
        t1]. This holds for any delays. For RAW, the kernel's stamps replace t2 and t3 where there are any."""
        if clock is GuestClock.REAL:
            sent, received = self.t1.real_ns, self.t4.real_ns
        else:
            sent, received = self.t1.raw_ns, self.t4.raw_ns
        first, last = self.t2[clock], self.t3[clock]
        if clock is GuestClock.RAW and self.packet_stamps is not None:
            if self.packet_stamps.arrived_real_ns is not None:
                first = min(first, self.packet_stamps.arrived_real_ns - self.packet_stamps.least_apart_ns)
            if self.packet_stamps.left_real_ns is not None:
                last = max(last, self.packet_stamps.left_real_ns - self.packet_stamps.most_apart_ns)
        low, high = last - received, first - sent
        return Interval(min(low, high), max(low, high)).widened(self.resolution_ns - 1)

    @property
    def round_trip_ns(self) -> int:
        return self.t4.raw_ns - self.t1.raw_ns


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A line that the guest sends by itself. sent_raw_ns: the guest's MONOTONIC_RAW."""

    sequence: int
    sent_raw_ns: int
    arrived: Stamp


@dataclass(frozen=True, slots=True)
class Hole:
    """Two successive samples that are further apart than usual, in the guest's MONOTONIC_RAW."""

    from_raw_ns: int
    to_raw_ns: int

    @property
    def length_ns(self) -> int:
        return self.to_raw_ns - self.from_raw_ns


@dataclass(frozen=True, slots=True)
class ClockStep:
    """A step: REALTIME moved against MONOTONIC_RAW between two samples.

    at_raw_ns: the guest's MONOTONIC_RAW at the later one. by_ns: positive is forward.
    """

    at_raw_ns: int
    by_ns: int


STEP_FLOOR_NS, STEP_SHARE, MOST_RECORDS = 500_000, 8, 5_000
"""The constants of samplers that did not report theirs. They do not change with the sampler."""


@dataclass(frozen=True)
class SamplerReport:
    """The record of the in-guest sampler (lab/guest/inside/clock_probe.py), and its constants.

    holes: all distances of successive samples above `floor_ns`, in order. steps: all moves of REALTIME that
        are not slews. The sampler keeps at most `most_kept` of each.
    usual_ns: the median distance.
    step_floor_ns, step_share: a move between two samples is a step if it exceeds the floor plus the time
        between them divided by the share.

    Samplers report their constants since 2026-11-28.
    """

    period_ns: int
    count: int
    first_raw_ns: int
    last_raw_ns: int
    usual_ns: int
    floor_ns: int
    holes: tuple[Hole, ...] = ()
    steps: tuple[ClockStep, ...] = ()
    step_floor_ns: int = STEP_FLOOR_NS
    step_share: int = STEP_SHARE
    most_kept: int = MOST_RECORDS

    def unseen_step_ns(self, over_ns: int) -> int:
        """The largest step of REALTIME between two samples `over_ns` apart that it takes for a slew."""
        return self.step_floor_ns + over_ns // self.step_share

    @property
    def holes_complete(self) -> bool:
        return len(self.holes) < self.most_kept

    @property
    def steps_complete(self) -> bool:
        return len(self.steps) < self.most_kept


@dataclass(frozen=True, slots=True)
class CpuWait:
    """The total time for which the threads of a guest's QEMU process were ready to run and waited for a CPU
    of the host, since the process began, at the time of the reading: /proc/PID/task/TID/schedstat, second
    field (Linux, Documentation/scheduler/sched-stats.rst). at_raw_ns: host MONOTONIC_RAW."""

    at_raw_ns: int
    pid: int
    waited_ns: int


@dataclass(frozen=True)
class Call:
    """A call that stops or resumes a guest, with the stamps that enclose it.

    event_real_ns: QEMU's own stamp of its STOP or RESUME event (host REALTIME, whole microseconds), None when
    the method has none. ran_ns: for a resume call, the largest CPU time that any of the guest's vCPU threads
    used between `called` and `returned`; so the guest had been resumed for at least that long.
    """

    called: Stamp
    returned: Stamp
    event_real_ns: int | None = None
    ran_ns: int = 0


@dataclass(frozen=True)
class Rescue:
    """An action of the dead-man, the process beside the controller that resumes guests when the controller is
    gone or silent.

    act: "resumed", "failed", or another word. why: the reason for the action, one line. call: its resume
    call; None without one. text: the error.
    """

    act: str
    why: str
    call: Call | None = None
    text: str = ""


@dataclass(frozen=True)
class MemoryProof:
    """Two digests of a guest's RAM, both taken while it stood still.

    page_bytes: size of a page. pages: the number of pages of RAM. held: those that the host has allocated
    (the others were never written and are zeros). before, after: digest over all pages' digests. differing:
    indices of the first few pages that differ; differ: the number of such pages. cost_ns: the time that the
    proof added to the pause. rewritten: a page that differs as it must, and is not counted as differing.
    """

    page_bytes: int
    pages: int
    held: int
    before: str
    after: str
    differ: int
    differing: tuple[int, ...]
    cost_ns: int
    rewritten: int | None = None

    def allowing(self, page: int | None) -> MemoryProof:
        """The proof in which this page may differ: KVM writes its wall clock there (guest/wall_clock.py)."""
        if page is None or page not in self.differing:
            return self
        others = tuple(index for index in self.differing if index != page)
        after = self.after if others else self.before
        return replace(self, after=after, differ=self.differ - 1, differing=others, rewritten=page)


@dataclass(frozen=True)
class ProbeFacts:
    """The state that a guest reports of itself.

    kernel_lines: new lines of its kernel log that may matter (core.kernel_log classifies them); None when the
    log cannot be read. reconnects: how often the probe's channel was lost and restored since it was opened;
    restarts: how often the probe had to be restarted for it, which loses its sampler's record.
    rtc_minus_real_ns: its RTC's whole seconds minus its REALTIME: the RTC itself is up to a second ahead of
    that; None when it was not read.
    depth: a value of core.depth.Depth. steady: the clock that stands in the place of MONOTONIC_RAW in
    readings, heartbeats and samples, a value of GuestClock: a shell cannot read MONOTONIC_RAW; "": there is
    none.
    steal_ns: since its boot, for how long its vCPUs were ready and did not run, all together (proc_stat(5),
    steal: only KVM says so); None when it was not read.
    """

    boot_id: str
    clocksource: str
    kernel: str = ""
    python: str = ""
    kernel_lines: tuple[str, ...] | None = ()
    reconnects: int = 0
    restarts: int = 0
    rtc_minus_real_ns: int | None = None
    depth: str = "python"
    steady: str = GuestClock.RAW
    steal_ns: int | None = None


@dataclass(frozen=True)
class Observation:
    """All observations of one guest in one cycle.

    frozen: False for a control cycle, whose stop and resume only mark the time of the patch.
    cpu_ns: CPU time that the guest's vCPU threads used on the host between stop and resume.
    cpu_waits: readings of how long its QEMU had waited for a CPU of the host, from before the stop on, in
        order of time.
    host_step_ns: how far the host's REALTIME moved against its MONOTONIC_RAW over the cycle.
    problems: errors of the observation, one line each.
    cell: the id of the matrix's cell, "" without a matrix. steps: the method's steps of the freeze and the
        resume. called_off: why a freeze was rolled back (the guest continued where it was); "" if it was not.
    cut: the guest's connections were cut by its networking, not by the freeze.
    patch_impact: a value of core.patch.Impact. patch_steps: the patch's steps. version_before, version_after:
        the version of what the patch changes, "" when it has none.
    resync_said: the mechanism's report of its own action. resync_finished_raw_ns: host MONOTONIC_RAW when its
        action after a resume was complete; None when it was not, or when it continues by itself.
    setup: the time-sync set-up before the freeze; None when it was not read.
    claims: the statements of the guest's programs about its clock. effects: other effects of the pause; None
        when they were not recorded.
    unfinished: the cycle has no end in the history: it was interrupted or cut off.
    rescues: the dead-man's actions. stop_inferred: the stop call is not in the history; `stop` is from the
        last record with the guest running to the first with the guest stopped.
    writes: the record of a writer in the guest; None: there was none.
    migration: what was seen of a live migration; None without one. work: what a program counted in the guest
    that dirtied memory; None: there was none. accelerator: "kvm" or "tcg"; "" when it is not known.
    """

    guest: str
    cycle: int
    frozen: bool
    method: FreezeMethod
    patch: str
    budget_ns: int
    readings: Sequence[Reading] = ()
    beats: Sequence[Heartbeat] = ()
    sampler: SamplerReport | None = None
    stop: Call | None = None
    resume: Call | None = None
    facts_before: ProbeFacts | None = None
    facts_after: ProbeFacts | None = None
    patch_ok: bool | None = None
    patch_why: str = ""
    cpu_ns: int | None = None
    host_step_ns: int = 0
    resync_report: str = ""
    resync_finished_raw_ns: int | None = None
    problems: tuple[str, ...] = ()
    cell: str = ""
    steps: tuple[Step, ...] = ()
    called_off: str = ""
    cut: bool = False
    proof: MemoryProof | None = None
    patch_impact: str = "freeze"
    patch_steps: tuple[Step, ...] = ()
    version_before: str = ""
    version_after: str = ""
    setup: Setup | None = None
    claims: tuple[Claim, ...] = ()
    effects: Effects | None = None
    unfinished: bool = False
    rescues: tuple[Rescue, ...] = ()
    stop_inferred: bool = False
    cpu_waits: tuple[CpuWait, ...] = ()
    writes: FileWrites | None = None
    migration: MigrationReport | None = None
    work: WorkCounts | None = None
    accelerator: str = ""

    @property
    def predicts(self) -> Prediction:
        """What the method's rules say of this guest's clocks."""
        source = self.facts_before.clocksource if self.facts_before is not None else ""
        return self.method.predicts_on(self.accelerator, source)
