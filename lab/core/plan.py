"""What a run will do, as plain values: the playbook's meaning once every default is filled in.

Times in nanoseconds, sizes in bytes. Nothing here knows YAML, libvirt or a guest.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lab.core.expected_failure import MustFail
from lab.core.mechanism import ResyncMechanism as ResyncMechanism
from lab.core.method import FreezeMethod as FreezeMethod
from lab.core.method import Regime as Regime
from lab.core.patch import CommandPatch as CommandPatch
from lab.core.patch import HoldPatch as HoldPatch
from lab.core.patch import Patch as Patch
from lab.core.scheduled.instance import Given as Given
from lab.core.scheduled.model import EventSource as EventSource
from lab.core.scheduled.model import EventType as EventType
from lab.core.scheduled.model import Fault as Fault
from lab.core.scheduled.model import OnPurpose as OnPurpose
from lab.core.units import NS_PER_MS, NS_PER_S, format_duration


class RtcTrack(StrEnum):
    """What the guest's emulated RTC follows (libvirt, formatdomain: timer track)."""

    WALL = "wall"  # the host's clock: it goes on through a pause
    GUEST = "guest"  # the guest's own: it stops with the guest


@dataclass(frozen=True)
class GuestSpec:
    """One guest to start.

    fill: share of its memory that is filled with incompressible pages before the first cycle, 0 to 0.9.
    bridge: an existing bridge of the host that it is attached to by a tap; "": QEMU's user-mode network.
    address: on that bridge, with prefix length ("" on the user-mode network).
    huge_pages: its RAM in huge pages of the host.
    rtc: what its RTC follows.
    kernel_options: words added to its kernel's command line.
    availability_set: the set that it is a member of; "": of none. It is a scale set's if `scale_set` says so.
    fault_domain, update_domain: within its set.
    compute_name: what events and /metadata/instance call it; "": its name.
    instance: what /metadata/instance says instead of the lab's values.
    """

    name: str
    image: str = "debian"
    vcpus: int = 1
    memory_bytes: int = 512 << 20
    fault_domain: int = 0
    update_domain: int = 0
    fill: float = 0.0
    bridge: str = ""
    address: str = ""
    huge_pages: bool = False
    rtc: RtcTrack = RtcTrack.WALL
    kernel_options: tuple[str, ...] = ()
    availability_set: str = ""
    scale_set: bool = False
    compute_name: str = ""
    instance: Given = ()

    @property
    def event_name(self) -> str:
        """What events and /metadata/instance call it."""
        return self.compute_name or self.name


@dataclass(frozen=True)
class ServiceFaults:
    """What is wrong with the metadata service, on purpose.

    first_answer_ns: the first answer is late by this, time of the service's. answers: what each guest's
    requests are answered with, in turn, from the announcement on; then the truth. restarts: the incarnation
    starts at 1 again right after the announcement. rate_limit: past 5 requests a second of one guest, 429.
    """

    first_answer_ns: int = 0
    answers: tuple[OnPurpose, ...] = ()
    restarts: bool = False
    rate_limit: bool = False


@dataclass(frozen=True)
class OtherEvent:
    """An event of the same guests that is announced with another one, and that nothing follows from. It goes
    when that one is over. Its members are as Announcement's."""

    type: EventType
    notice_ns: int | None = None
    source: EventSource = EventSource.PLATFORM
    description: str = ""


@dataclass(frozen=True)
class Announcement:
    """What guests are told before the freeze, through Scheduled Events. "Time of the service's" passes
    time_factor times as fast as real time; 1 is real time.

    type: None is the patch's: Freeze, or Reboot. notice_ns: until NotBefore, time of the service's; None is
    the type's documented minimum; 0 is straight to Started. duration_s: DurationInSeconds as announced, in
    real seconds, as the pause is; None is derived from the patch. description: "" has the lab write one.
    started_ns: for how long at least the event is shown as Started before the freeze, real time.
    cancel_after_ns: called off so long after it was published, time of the service's; None: not called off.
    handler: a program that is run in every guest, and its arguments; (): none. The program is a file on the
    host. instance: what /metadata/instance says instead of the lab's values, of every guest; a guest's own
    go first. others: events that are shown beside it.
    """

    type: EventType | None = None
    notice_ns: int | None = None
    duration_s: int | None = None
    source: EventSource = EventSource.PLATFORM
    description: str = ""
    time_factor: float = 60.0
    started_ns: int = 2 * NS_PER_S
    cancel_after_ns: int | None = None
    handler: tuple[str, ...] = ()
    service: ServiceFaults = ServiceFaults()
    instance: Given = ()
    others: tuple[OtherEvent, ...] = ()

    def real_ns(self, service_ns: int) -> int:
        """Time of the service's in real time."""
        return round(service_ns / self.time_factor)


class TimeFaultKind(StrEnum):
    """What can be wrong with an NTP server's answers beside their time."""

    SILENT = "silent"  # none comes
    LATE = "late"
    UNSYNCHRONISED = "unsynchronised"  # it says that it has no time to give


@dataclass(frozen=True)
class TimeFault:
    """What is wrong with the host's NTP server for a while, on purpose: from just before each freeze until
    lasts_ns after the resume. late_ns: how much later each answer comes."""

    kind: TimeFaultKind
    lasts_ns: int
    late_ns: int = 0

    @property
    def text(self) -> str:
        """ "silent for 10 s after the resume"."""
        by = f" by {format_duration(self.late_ns)}" if self.late_ns else ""
        return f"{self.kind}{by} for {format_duration(self.lasts_ns)} after the resume"


class DomainKind(StrEnum):
    """What of an availability set is taken down together."""

    UPDATE = "update-domain"
    FAULT = "fault-domain"

    @property
    def short(self) -> str:
        """As the field abbreviates it."""
        return "UD" if self is DomainKind.UPDATE else "FD"

    def of(self, guest: GuestSpec) -> int:
        """The guest's domain of this kind, within its set."""
        return guest.update_domain if self is DomainKind.UPDATE else guest.fault_domain


class GateKind(StrEnum):
    """What has to be so before the next domain is frozen."""

    COMMAND = "command"  # a command in every guest of the domain exits with 0
    HTTP = "http"  # a URL, asked for in every guest of the domain, answers 2xx
    CLOCK = "clock"  # the clocks of the domain's guests are in time
    MEMBERS = "members"  # all other guests of the set answer, and pass the gates before this one


@dataclass(frozen=True)
class Gate:
    """One condition. text: the command or the URL, "" for the others. on: names of the guests that it is
    asked in; (): all."""

    kind: GateKind
    text: str = ""
    on: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.kind} {self.text}".rstrip()


@dataclass(frozen=True)
class Rollout:
    """The hosts of a fleet, one domain of each availability set after another.

    shuffled: in an order drawn from `seed` (None: one that the run draws and records). between_ns: from the
    end of one domain to the announcement of the next. gates: all have to hold within gate_within_ns, or the
    rollout stops. together: sets go side by side, one domain of each at a time; else one set after another.
    """

    by: DomainKind = DomainKind.UPDATE
    shuffled: bool = False
    seed: int | None = None
    between_ns: int = 0
    gates: tuple[Gate, ...] = ()
    gate_within_ns: int = 30 * NS_PER_S
    together: bool = True


@dataclass(frozen=True)
class CycleSpec:
    """One settle / measure / freeze / patch / resume / watch cycle.

    settle_ns: quiet time before the first reading.
    before_ns: how long offset and drift are measured before the freeze.
    budget_ns: from the suspend call to the resume, kept whatever the patch does.
    watch_ns: how long the guest is watched from the resume on.
    prove_memory: digests of the guest's RAM, page by page, when it stands still and before it goes on.
    save_to: the folder that save-restore writes to; "": the run's own.
    effects: the guest is watched for what a pause does besides the clock: late timers, clocks that go
        backward between vCPUs, its RTC. It costs the guest some of its time.
    load: share of each vCPU that busy programs in the guest take during the cycle, 0 to 1.
    announce: what the guests are told before; None: nothing, and no metadata service is there.
    wake: a guest that sleeps when the cycle begins is woken.
    """

    method: FreezeMethod
    patch: Patch
    settle_ns: int = 1 * NS_PER_S
    before_ns: int = 4 * NS_PER_S
    budget_ns: int = 30 * NS_PER_S
    watch_ns: int = 8 * NS_PER_S
    prove_memory: bool = False
    save_to: str = ""
    effects: bool = False
    load: float = 0.0
    announce: Announcement | None = None
    wake: bool = False

    @property
    def longest_pause_ns(self) -> int:
        """What the patch and the method take together, at most. The budget bounds what nobody knows before:
        copying memory, proving it, a guest's own sleep."""
        overhead_ns = self.method.traits.overhead_ns
        if overhead_ns is None or self.prove_memory:
            return self.budget_ns
        return min(self.budget_ns, self.patch.longest_ns + overhead_ns)


@dataclass(frozen=True)
class NoticeExpectations:
    """What has to become of the announcement; None asks nothing.

    acknowledged: a guest approves the event before NotBefore (False: none does). seen: every guest that it
    will happen to is shown the event before the freeze (False: none is). started_seen: the same, as Started.
    kept: the pause is no longer than the DurationInSeconds announced (False: it is longer). cancelled: it is
    called off, and no guest is frozen. at_least_ns, at_most_ns: from its publication to its start, real time.
    """

    acknowledged: bool | None = None
    seen: bool | None = None
    started_seen: bool | None = None
    kept: bool | None = None
    cancelled: bool | None = None
    at_least_ns: int | None = None
    at_most_ns: int | None = None


class RolloutEnd(StrEnum):
    """How a rollout ends."""

    COMPLETE = "complete"
    STOPPED = "stopped"  # by a gate


@dataclass(frozen=True)
class Expectations:
    """What a run must show to pass; None asks nothing.

    Always expected, whatever is written: cycles close, the budget is kept, the patch succeeds,
    the guest is the same boot.

    in_time_within_ns: from the resume to the first instant from which |offset| stays within
        tolerance_ns for hold_ns.
    final_offset_ns: largest |offset| at the end of the watch.
    drift_ppm: largest |drift| after the resync.
    clean_kernel_log: no trouble in the guest's kernel log (core.kernel_log).
    as_predicted: the clock is repaired, or not, as the mechanism's rules forecast. What was not watched for
        long enough to tell has not passed.
    notice: of the announcement. rollout: how it ends. skew_ns: guests of one domain stop, and resume, within
    this. must_fail: it is a negative control, which passes by failing.
    """

    regime: Regime | None = None
    pause_at_least_ns: int | None = None
    pause_at_most_ns: int | None = None
    in_time_within_ns: int | None = None
    tolerance_ns: int = 100 * NS_PER_MS
    hold_ns: int = 2 * NS_PER_S
    final_offset_ns: int | None = None
    drift_ppm: float | None = None
    clean_kernel_log: bool = True
    as_predicted: bool = False
    notice: NoticeExpectations = NoticeExpectations()
    rollout: RolloutEnd = RolloutEnd.COMPLETE
    skew_ns: int | None = None
    must_fail: MustFail | None = None


@dataclass(frozen=True)
class Cell:
    """One point of a matrix: what is run there.

    id: derived from the values, unique in the plan, "" for a plan without a matrix.
    values: (axis, value as written), in the order of the matrix's axes.
    """

    id: str
    values: tuple[tuple[str, str], ...]
    guests: tuple[GuestSpec, ...]
    resync: ResyncMechanism
    cycle: CycleSpec
    expectations: Expectations
    repeat: int = 1
    control: int = 0


@dataclass(frozen=True)
class LeftOut:
    """A combination of a matrix that is not run: (axis, value as written), and why not."""

    values: tuple[tuple[str, str], ...]
    why: str


@dataclass(frozen=True)
class Plan:
    """A whole run.

    digest: sha256 of the playbook's bytes, hexadecimal.
    repeat: cycles with a freeze. control: cycles without one, run before them.
    cells: the matrix's cells, in order; () without a matrix. Then the other members are the only cell;
        with a matrix they are the first one's.
    left_out: the matrix's combinations that are not run.
    side_by_side: how many cells that differ in nothing but their resync are run at the same time, each with
        guests of its own.
    ntp_offset_ns: how far off the time is that the host's NTP server serves, on purpose. ntp_fault: what else
    is wrong with it.
    rollout: how the guests' hosts are gone through; None: all guests are frozen in every cycle. A plan with a
        matrix has none.
    golden: guests are started from one that was booted before, if there is one or once there is.
    """

    name: str
    about: str
    digest: str
    guests: tuple[GuestSpec, ...]
    resync: ResyncMechanism
    cycle: CycleSpec
    expectations: Expectations
    repeat: int = 1
    control: int = 0
    cells: tuple[Cell, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    side_by_side: int = 1
    ntp_offset_ns: int = 0
    ntp_fault: TimeFault | None = None
    rollout: Rollout | None = None
    golden: bool = False

    @property
    def parts(self) -> tuple[Cell, ...]:
        """What is run, one after another: the cells, or the plan itself as the only one."""
        return self.cells or (
            Cell(
                "",
                (),
                self.guests,
                self.resync,
                self.cycle,
                self.expectations,
                self.repeat,
                self.control,
            ),
        )
