"""What was observed: readings, heartbeats, and the in-guest sampler's record. Values only.

Guest times are the guest's own clocks in nanoseconds; host times are Stamps.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.core.claims import Claim
from lab.core.clock import GuestClock, Interval, Stamp
from lab.core.effects import Effects
from lab.core.method import FreezeMethod
from lab.core.timesync_setup import Setup


@dataclass(frozen=True)
class PacketStamps:
    """When the guest's kernel saw the request come and its answer leave, in its REALTIME: after t1 and before
    t2, and after t3 and before t4, whatever the way between. None: not seen for certain.

    least_apart_ns: the guest's REALTIME minus its MONOTONIC_RAW when the request came, at least.
    most_apart_ns: the same when the answer left, at most. Both from looks before and after it.
    """

    arrived_real_ns: int | None
    least_apart_ns: int
    left_real_ns: int | None
    most_apart_ns: int


@dataclass(frozen=True)
class Reading:
    """One exchange with a guest: host stamp t1, guest clocks on receipt (t2) and before the
    answer (t3), host stamp t4 (docs/measuring.md, "A reading").

    The guest reads RAW first on receipt and last before the answer, so that the other clocks of an
    exchange lie between the two (core.offsets.apart relies on it).

    resolution_ns: coarseness of the guest's clock readings.
    passing: what the guest's kernel saw of the exchange, where it tells.
    channel: how the guest was asked: "ssh", or "serial".
    """

    t1: Stamp
    t2: dict[GuestClock, int]
    t3: dict[GuestClock, int]
    t4: Stamp
    resolution_ns: int = 1
    packet_stamps: PacketStamps | None = None
    channel: str = "ssh"

    def offset(self, clock: GuestClock) -> Interval:
        """guest `clock` minus the host's REALTIME (for REAL) or MONOTONIC_RAW (all others):
        [t3 - t4, t2 - t1]. Holds whatever the delays are. For RAW, the kernel's stamps stand for t2 and
        t3 where there are any."""
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


@dataclass(frozen=True)
class Heartbeat:
    """A line that the guest sends by itself. sent_raw_ns: the guest's MONOTONIC_RAW."""

    sequence: int
    sent_raw_ns: int
    arrived: Stamp


@dataclass(frozen=True)
class Hole:
    """Two successive samples further apart than usual, in the guest's MONOTONIC_RAW."""

    from_raw_ns: int
    to_raw_ns: int

    @property
    def length_ns(self) -> int:
        return self.to_raw_ns - self.from_raw_ns


@dataclass(frozen=True)
class ClockStep:
    """REALTIME moved against MONOTONIC_RAW between two samples.

    at_raw_ns: the guest's MONOTONIC_RAW at the later one. by_ns: positive is forward.
    """

    at_raw_ns: int
    by_ns: int


STEP_FLOOR_NS, STEP_SHARE, MOST_RECORDS = 500_000, 8, 5_000
"""Of samplers that did not report theirs. They stay as they are, whatever the sampler's are now."""


@dataclass(frozen=True)
class SamplerReport:
    """The in-guest sampler's record, and what it was made with: lab/guest/inside/clock_probe.py.

    holes: all distances of successive samples above `floor_ns`, in order. steps: all moves of REALTIME that
        are no slew. After `most_kept` of either the sampler kept no more.
    usual_ns: the median distance.
    step_floor_ns, step_share: REALTIME may move by so much, and by this part of the time, between two samples
        before it is a step.

    What it was made with is reported since 2026-11-28.
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
        """How large a step of REALTIME between two samples `over_ns` apart it takes for a slew."""
        return self.step_floor_ns + over_ns // self.step_share

    @property
    def holes_complete(self) -> bool:
        return len(self.holes) < self.most_kept

    @property
    def steps_complete(self) -> bool:
        return len(self.steps) < self.most_kept


@dataclass(frozen=True)
class CpuWait:
    """How long the threads of a guest's QEMU process, all together, had been ready to run and waited for a
    CPU of the host since the process began, when the host looked: /proc/PID/task/TID/schedstat, second field
    (Linux, Documentation/scheduler/sched-stats.rst). at_raw_ns: host MONOTONIC_RAW."""

    at_raw_ns: int
    pid: int
    waited_ns: int


@dataclass(frozen=True)
class Call:
    """A call that stops or resumes a guest, with what brackets the change.

    event_real_ns: QEMU's own stamp of its STOP or RESUME event (host REALTIME, whole microseconds),
    None when the method has none.
    ran_ns: CPU time that one of the guest's vCPU threads had used between `called` and `returned`, the most
    of any of them; so it had been let run for that long at least. For a call that resumes.
    """

    called: Stamp
    returned: Stamp
    event_real_ns: int | None = None
    ran_ns: int = 0


@dataclass(frozen=True)
class Rescue:
    """What the dead-man did about a guest: the process beside the controller that resumes guests when it is
    gone or silent.

    act: "resumed", "failed", or another word. why: it acted, one line. call: by which it resumed the guest;
    None without one. text: what went wrong.
    """

    act: str
    why: str
    call: Call | None = None
    text: str = ""


@dataclass(frozen=True)
class Step:
    """A part of a freeze, or of a patch, with a name of its own. Host MONOTONIC_RAW."""

    name: str
    began_raw_ns: int
    ended_raw_ns: int

    @property
    def length_ns(self) -> int:
        return self.ended_raw_ns - self.began_raw_ns


@dataclass(frozen=True)
class MemoryProof:
    """Two digests of a guest's RAM, both taken while it stood still.

    page_bytes: size of a page. pages: of the whole RAM. held: those that the host holds (the others were
    never written: zeros). before, after: digest over all pages' digests. differing: indices of the pages
    that differ, the first few; differ: their number. cost_ns: what the proof added to the pause.
    """

    page_bytes: int
    pages: int
    held: int
    before: str
    after: str
    differ: int
    differing: tuple[int, ...]
    cost_ns: int


@dataclass(frozen=True)
class ProbeFacts:
    """What a guest says of itself.

    kernel_lines: new lines of its kernel log worth a look (core.kernel_log says what they mean); None when
    the log cannot be read. reconnects: how often the probe's channel was lost since it was opened, and had
    again; restarts: how often of these it had to be started anew, and what its sampler knew was lost.
    rtc_minus_real_ns: its RTC's whole seconds less its REALTIME: the RTC itself is up to a second further;
    None when it was not read.
    """

    boot_id: str
    clocksource: str
    kernel: str = ""
    python: str = ""
    kernel_lines: tuple[str, ...] | None = ()
    reconnects: int = 0
    restarts: int = 0
    rtc_minus_real_ns: int | None = None


@dataclass(frozen=True)
class Observation:
    """All that was seen of one guest in one cycle; what is missing was not seen.

    frozen: False for a control cycle, whose stop and resume only mark the time of the patch.
    cpu_ns: CPU time that the guest's vCPU threads used on the host between stop and resume.
    cpu_waits: how long its QEMU had waited for a CPU of the host, from before the stop on, in order of time.
    host_step_ns: how far the host's REALTIME moved against its MONOTONIC_RAW over the cycle.
    problems: what went wrong with observing, one line each.
    cell: of the matrix, "" without one.
    steps: of the freeze and the resume; what the method names.
    called_off: why a freeze was taken back (the guest was put back to running where it was); "" if not.
    cut: the guest's connections were cut by its networking, not by the freeze.
    patch_impact: core.patch.Impact's word. patch_steps: the patch's own.
    version_before, version_after: of what the patch changes, "" when it has none.
    resync_said: what the mechanism says of its own action. resync_finished_raw_ns: host MONOTONIC_RAW when it
        had done all that it does after a resume; None when it has not, or goes on by itself.
    setup: the time-sync set-up as it was before the freeze; None when it was not looked at.
    claims: what the guest's programs said of its clock.
    effects: what else the pause did; None when nobody watched for it.
    unfinished: the cycle has no end in the history: it was interrupted or cut off.
    rescues: what the dead-man did.
    stop_inferred: the stop call was not written down; `stop` is from the last thing that was, when the guest
        still ran, to the first by which it stood still.
    """

    guest: str
    cycle: int
    frozen: bool
    method: FreezeMethod
    patch: str
    budget_ns: int
    readings: tuple[Reading, ...] = ()
    beats: tuple[Heartbeat, ...] = ()
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
