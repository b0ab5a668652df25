"""The plan of a run as plain values: the playbook with every default filled in.

Times in nanoseconds, sizes in bytes. This module does not depend on YAML, libvirt or a guest.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lab.core.depth import Depth as Depth
from lab.core.expectations import Expectations as Expectations
from lab.core.expectations import NoticeExpectations as NoticeExpectations
from lab.core.expectations import RolloutEnd as RolloutEnd
from lab.core.mechanism import ResyncMechanism as ResyncMechanism
from lab.core.method import FreezeMethod as FreezeMethod
from lab.core.method import Regime as Regime
from lab.core.migration import QEMU_DEFAULTS
from lab.core.migration import MigrationSpec as MigrationSpec
from lab.core.network import NetworkPlace, NetworkSpec
from lab.core.own_domain import MigrationTarget as MigrationTarget
from lab.core.own_domain import SshTarget as SshTarget
from lab.core.patch import SYSTEM as SYSTEM
from lab.core.patch import CommandPatch as CommandPatch
from lab.core.patch import HoldPatch as HoldPatch
from lab.core.patch import Patch as Patch
from lab.core.scheduled.cloud import Cloud as Cloud
from lab.core.scheduled.instance import Given as Given
from lab.core.scheduled.model import EventSource as EventSource
from lab.core.scheduled.model import EventType as EventType
from lab.core.scheduled.model import Fault as Fault
from lab.core.scheduled.model import OnPurpose as OnPurpose
from lab.core.setup import NO_SETUP, SetupSpec
from lab.core.time_fault import TimeFault as TimeFault
from lab.core.time_fault import TimeFaultKind as TimeFaultKind
from lab.core.units import NS_PER_S
from lab.core.watchdog import WatchdogAction as WatchdogAction
from lab.core.work import DirtySpec as DirtySpec
from lab.core.workload.spec import WorkloadSpec as WorkloadSpec
from lab.core.workload.tolerance import ToleranceSpec as ToleranceSpec


class RtcTrack(StrEnum):
    """The clock of the guest's emulated RTC (libvirt, formatdomain: timer track)."""

    WALL = "wall"  # the host's clock: it goes on through a pause
    GUEST = "guest"  # the guest's own: it stops with the guest


@dataclass(frozen=True)
class GuestSpec:
    """One guest to start, or a domain of the user's own that runs already.

    probe: how deep it is looked into. is_peer: it is there for the others, and is neither frozen nor
    measured. domain, ssh: libvirt's name of a domain of the user's own, and how its
    guest is reached; "" and None for a guest that the lab starts. migrate_to: where such a domain can be
    migrated to; None: nowhere. For a domain of the user's own, image and
    what follows up to kernel_options have no meaning: its XML decides.
    image: the name of an image, or with a "/" the path of a recipe's folder. emulator: the QEMU that it is
    started with: a path, the name of a fetched one, or SYSTEM. fill: share of its memory that
    is filled with incompressible pages before the first cycle, 0 to 0.9. bridge: an existing bridge of the
    host that it is attached to by a tap; "": QEMU's user-mode network. address: on that bridge, with prefix
    length ("" on the user-mode network). huge_pages: its RAM in huge pages of the host. rtc: what its RTC
    follows. kernel_options: words added to its kernel's command line. watchdog: what its hardware watchdog,
    an i6300esb, does; None: it has none. availability_set: the set that it is a
    member of; "": of none. It is a scale set's if `scale_set` says so. fault_domain, update_domain: within
    its set. compute_name: its name in events and /metadata/instance; "": its name. instance: values of
    /metadata/instance in place of the lab's. setup: what is put into it. lab: its place in the lab's own
    network; None: it has none.
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
    watchdog: WatchdogAction | None = None
    availability_set: str = ""
    scale_set: bool = False
    compute_name: str = ""
    instance: Given = ()
    setup: SetupSpec = NO_SETUP
    domain: str = ""
    ssh: SshTarget | None = None
    migrate_to: MigrationTarget | None = None
    probe: Depth = Depth.AUTO
    lab: NetworkPlace | None = None
    is_peer: bool = False
    emulator: str = SYSTEM

    @property
    def image_key(self) -> str:
        """Its image and the packages that are added to it: "debian with redis-server"."""
        return " with ".join(filter(None, (self.image, ", ".join(sorted(self.setup.packages)))))

    @property
    def event_name(self) -> str:
        """Its name in events and /metadata/instance."""
        return self.compute_name or self.name

    @property
    def is_own(self) -> bool:
        """Whether it is a domain of the user's own."""
        return bool(self.domain)


@dataclass(frozen=True)
class ServiceFaults:
    """Deliberate faults of the metadata service.

    first_answer_ns: the delay of the first answer, in the service's time. answers: the answers to each
    guest's requests, one after another, from the announcement on; after that, correct answers. restarts: the
    incarnation restarts at 1 right after the announcement. rate_limit: more than 5 requests a second from one
    guest are answered with 429.
    """

    first_answer_ns: int = 0
    answers: tuple[OnPurpose, ...] = ()
    restarts: bool = False
    rate_limit: bool = False


@dataclass(frozen=True)
class OtherEvent:
    """A further event of the same guests, announced with the main one and gone with it. No action follows it.
    Its members are those of Announcement."""

    type: EventType
    notice_ns: int | None = None
    source: EventSource = EventSource.PLATFORM
    description: str = ""


@dataclass(frozen=True)
class Announcement:
    """The Scheduled Event before the freeze. The service's time passes time_factor times as fast as real
    time; 1 is real time.

    type: None is the patch's: Freeze, or Reboot. notice_ns: until NotBefore, in the service's time; None is
    the type's documented minimum; 0 is Started at once. duration_s: the announced DurationInSeconds, in real
    seconds like the pause; None is derived from the patch. description: "" is the lab's own. started_ns: the
    shortest time for which the event is shown as Started before the freeze, real time. cancel_after_ns: time
    from the publication until the event is called off, in the service's time; None: never. handler: a program
    that runs in every guest, a file on the host, and its arguments; (): none. instance: values of
    /metadata/instance for every guest, in place of the lab's; a guest's own take precedence. others: further
    events. cloud: in whose words guests are told. imdsv1: EC2 answers requests without a token.
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
    cloud: Cloud = Cloud.AZURE
    imdsv1: bool = True

    def real_ns(self, service_ns: int) -> int:
        """The real time in which this much of the service's time passes."""
        return round(service_ns / self.time_factor)


class DomainKind(StrEnum):
    """The unit of an availability set that is frozen together."""

    UPDATE = "update-domain"
    FAULT = "fault-domain"

    @property
    def short(self) -> str:
        """The usual abbreviation."""
        return "UD" if self is DomainKind.UPDATE else "FD"

    def of(self, guest: GuestSpec) -> int:
        """The guest's domain of this kind, within its set."""
        return guest.update_domain if self is DomainKind.UPDATE else guest.fault_domain


class GateKind(StrEnum):
    """The kinds of conditions before the next domain is frozen."""

    COMMAND = "command"  # a command in every guest of the domain exits with 0
    HTTP = "http"  # a URL, asked for in every guest of the domain, answers 2xx
    CLOCK = "clock"  # the clocks of the domain's guests are in time
    MEMBERS = "members"  # all other guests of the set answer, and pass the gates before this one


@dataclass(frozen=True)
class Gate:
    """One condition. text: the command or the URL, "" for other kinds. on: names of the guests that are
    checked; (): all."""

    kind: GateKind
    text: str = ""
    on: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.kind} {self.text}".rstrip()


@dataclass(frozen=True)
class Rollout:
    """A rollout over a fleet, one domain of each availability set after another.

    shuffled: in an order determined by `seed` (None: the run chooses and records one). between_ns: from the
    end of one domain to the announcement of the next. gates: all have to hold within gate_within_ns, or the
    rollout stops. together: one domain of each set at the same time; else one set after another.
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

    settle_ns: quiet time before the first reading. before_ns: how long offset and drift are measured before
    the freeze. budget_ns: from the suspend call to the resume, enforced whatever the patch does. watch_ns:
    how long the guest is watched after the resume. prove_memory: take digests of the guest's RAM, page by
    page, after the stop and before the resume. save_to: the folder that save-restore writes to; "": the run's
    own. effects: record the other effects of a pause: late timers, clocks that go backward between vCPUs, the
    RTC. This uses some of the guest's CPU time. load: share of each vCPU that busy programs in the guest take
    during the cycle, 0 to 1. announce: the event before the freeze; None: none, and there is no metadata
    service. wake: wake guests that sleep when the cycle begins. migration: the settings of a live migration.
    dirty: what a program in the guest dirties during the cycle, which also counts; None: there is none.
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
    migration: MigrationSpec = QEMU_DEFAULTS
    dirty: DirtySpec | None = None

    @property
    def longest_pause_ns(self) -> int:
        """The longest pause of patch and method together. The budget is the bound for what is not known
        before: copying memory, proving it, a guest's own sleep."""
        overhead_ns = self.method.traits.overhead_ns
        if overhead_ns is None or self.prove_memory:
            return self.budget_ns
        return min(self.budget_ns, self.patch.longest_ns + overhead_ns)


@dataclass(frozen=True)
class Cell:
    """One point of a matrix.

    id: derived from the values, unique in the plan, "" for a plan without a matrix.
    values: (axis, value as written), in the order of the matrix's axes. tolerance: the search in place of
        cycles; None: none. may_be_refused: the host or the guests need not support it.
    """

    id: str
    values: tuple[tuple[str, str], ...]
    guests: tuple[GuestSpec, ...]
    resync: ResyncMechanism
    cycle: CycleSpec
    expectations: Expectations
    repeat: int = 1
    control: int = 0
    workloads: tuple[WorkloadSpec, ...] = ()
    tolerance: ToleranceSpec | None = None
    may_be_refused: bool = False

    @property
    def frozen_guests(self) -> tuple[GuestSpec, ...]:
        """Those that are frozen and measured."""
        return tuple(spec for spec in self.guests if not spec.is_peer)


@dataclass(frozen=True)
class LeftOut:
    """A combination of a matrix that is left out: (axis, value as written), and the reason."""

    values: tuple[tuple[str, str], ...]
    why: str


@dataclass(frozen=True)
class Plan:
    """A whole run.

    digest: sha256 of the playbook's bytes, hexadecimal.
    repeat: cycles with a freeze. control: cycles without one, run before them.
    cells: the matrix's, in order; () without a matrix. The other members are the first or only cell's.
    left_out: combinations of the matrix. side_by_side: how many cells that differ only in their resync run at
        the same time, each on its own guests.
    ntp_offset_ns: how far the time of the host's NTP server is deliberately off. ntp_fault: its other fault.
    rollout: None: every cycle freezes all guests. A plan with a matrix has none.
    golden: guests are started from one that was booted before, if there is one or once there is. network: the
    lab's own network; None: there is none.
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
    network: NetworkSpec | None = None
    workloads: tuple[WorkloadSpec, ...] = ()
    tolerance: ToleranceSpec | None = None

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
                self.workloads,
                self.tolerance,
            ),
        )
