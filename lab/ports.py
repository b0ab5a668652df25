"""The outside world as the controller sees it. Each Protocol has one real adapter.

Stamps are the host's (`core.clock.Stamp`); names are the guests' names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from lab.core.claims import Claim
from lab.core.clock import Stamp
from lab.core.effects import Effects
from lab.core.file_stall import FileWrites
from lab.core.history import HistoryEvent, WorkloadSampled
from lab.core.method import FreezeMethod
from lab.core.migration import QEMU_DEFAULTS, MigrationReport, MigrationSpec
from lab.core.patch import Impact
from lab.core.plan import Announcement, CycleSpec, Gate
from lab.core.scheduled.model import Event, Happening, State
from lab.core.timeline import Call as Call
from lab.core.timeline import CpuWait, Heartbeat, MemoryProof, ProbeFacts, Reading, SamplerReport, Step
from lab.core.timesync_setup import Setup


class Clock(Protocol):
    """The host's clocks and waiting."""

    def now(self) -> Stamp: ...

    def sleep_until(self, raw_ns: int) -> None:
        """Return at CLOCK_MONOTONIC_RAW `raw_ns` (at once when that is past). Interruptible."""


class Guard(Protocol):
    """Resumes frozen guests by itself when the controller does not do so in time."""

    def __enter__(self) -> Guard: ...

    def __exit__(self, *_: object) -> None: ...

    def resumed(self, guest: str) -> Resumed | None:
        """How the guard resumed the guest; None when it has not. From this call on it leaves the guest
        alone."""

    def bring_forward(self, by_ns: int) -> None:
        """Make the guard's thread act `by_ns` earlier, because the resume itself takes that long."""

    @property
    def why(self) -> str:
        """Why the guard resumed guests early; "" when it did not."""


@dataclass(frozen=True)
class Frozen:
    """The result of a freeze. call: the call that stopped the guest. steps: the steps after it.

    back: when the freeze was called off, the call that resumed the guest where it was; why: the reason, one
    line. resume_ns: how much of the budget the resume needs, where that is more than milliseconds; else 0.
    resumed: the resume of a guest that was resumed at once, because nothing is to be done in the pause.
    migration: returns what was seen of a live migration, when finish() has ended it.
    """

    call: Call
    steps: tuple[Step, ...] = ()
    back: Call | None = None
    why: str = ""
    resume_ns: int = 0
    resumed: Resumed | None = None
    migration: Callable[[], MigrationReport | None] | None = None


@dataclass(frozen=True)
class Resumed:
    """The result of a resume. call: the call that resumed the guest. steps: the steps before it.
    why: when the hand-over was rolled back and the guest runs where it was before, the reason; else "".
    cut: the freeze cut the guest's network connections. proof: None when no memory proof was taken.
    """

    call: Call
    steps: tuple[Step, ...] = ()
    why: str = ""
    cut: bool = False
    proof: MemoryProof | None = None


@dataclass(frozen=True)
class Successor:
    """The emulator that guests run under after the resume. "" keeps the guest's own.

    emulator: path. machine: machine type. cpu: CPU model.
    cold: the emulator is started only after the patch, because none may run during it.
    """

    emulator: str = ""
    machine: str = ""
    cpu: str = ""
    cold: bool = False


@dataclass(frozen=True)
class Freezing:
    """How guests are to be frozen. save_to: folder for save-restore's files.

    prove_memory: see core.timeline.MemoryProof. at_once: nothing is done to the host between freeze and
    resume, so a method may leave the end of its freeze to its resume, or resume the guest in its freeze.
    """

    method: FreezeMethod
    successor: Successor = Successor()
    prove_memory: bool = False
    save_to: str = ""
    at_once: bool = False
    migration: MigrationSpec = QEMU_DEFAULTS


class Hypervisor(Protocol):
    """Freezing and resuming of running guests."""

    def prepare(self, guest: str, freezing: Freezing) -> None:
        """Do what can be done before the freeze, while the guest runs. HypervisorError or MachineError when
        the guest cannot be frozen this way; the attempt then leaves nothing behind."""

    def begin_freeze(self, guests: Sequence[str], freezing: Freezing) -> None:
        """Order the stop of several guests at once, as far as the method can; freeze() of each follows. A
        guest that cannot be stopped is left to freeze(), which raises."""

    def begin_resume(self, guests: Sequence[str]) -> None:
        """Order the resume of several guests at once, as far as the method can; resume() of each follows."""

    def freeze(self, guest: str, freezing: Freezing, deadline_raw_ns: int) -> Frozen:
        """Stop the guest. The method's work after that is done, or called off, by CLOCK_MONOTONIC_RAW
        `deadline_raw_ns`. HypervisorError when the guest is not running, or cannot be stopped and runs on."""

    def resume(self, guest: str, freezing: Freezing) -> Resumed:
        """Resume a frozen guest by its method. Does nothing to a guest that already runs."""

    def finish(self, guest: str) -> None:
        """End what prepare and freeze have left running, and wait for that. Safe to call at any time."""

    def guard(
        self, guests: Sequence[str], freezing: Freezing, at_raw_ns: int, until_raw_ns: int, cycle: int
    ) -> Guard:
        """A context that resumes the guests when the caller has not: from another thread at `at_raw_ns`, and
        from another process at `until_raw_ns` (both CLOCK_MONOTONIC_RAW). Entering it raises HypervisorError
        when the guests cannot be guarded; they must not be frozen then."""

    def shutdown(self, guest: str, deadline_raw_ns: int) -> Call:
        """Make the guest power itself off. HypervisorError when it has not by CLOCK_MONOTONIC_RAW
        `deadline_raw_ns`."""

    def start(self, guest: str, successor: Successor) -> Call:
        """Start a guest that was shut down, from the same disk."""

    def state(self, guest: str) -> str:
        """The domain's state in libvirt's words: running, paused, shut off, crashed, …"""

    def look(self, guest: str) -> None:
        """GuestGone when libvirt already knows that the guest cannot answer. Never waits."""

    def wake(self, guest: str) -> None:
        """Wake the guest if it is asleep. GuestGone when it has ended, GuestError when waking it fails."""

    def cpu_time_ns(self, guest: str) -> int:
        """CPU time that the guest's vCPU threads have used on the host so far."""

    def cpu_wait(self, guest: str) -> CpuWait | None:
        """How long the guest's QEMU has waited for a host CPU so far. None when the guest has no process, or
        none on this host."""


class Probe(Protocol):
    """The probe in one guest."""

    def read(self) -> Reading:
        """One exchange. GuestError when the channel is lost and cannot be re-established."""

    def start_cycle(self) -> None:
        """Discard earlier heartbeats and samples."""

    def rest(self) -> None:
        """Stop heartbeats and samples until the next start_cycle, so that the probe costs the guest
        next to nothing."""

    def heartbeats(self) -> Sequence[Heartbeat]:
        """All heartbeats since start_cycle, in order of arrival."""

    def samples(self) -> SamplerReport | None:
        """The in-guest sampler's record since start_cycle; None when nothing samples the guest."""

    def facts(self) -> ProbeFacts:
        """The guest's boot_id and clocksource, and its kernel's log lines since start_cycle."""

    def restart(self, deadline_raw_ns: int) -> None:
        """Restart the probe in a guest that was rebooted. GuestError when the guest does not answer by
        CLOCK_MONOTONIC_RAW `deadline_raw_ns`."""


class Resync(Protocol):
    """The mechanism that corrects one guest's clock. The guest's clock was set to the host's at
    installation."""

    def setup(self) -> Setup:
        """What is installed, and its present state. GuestError when the guest does not answer."""

    def resumed(self) -> None:
        """Act after a resume, without blocking the caller. Called right after the guest was resumed."""

    def outcome(self) -> str:
        """What the mechanism reports about its last action; "" when it reports nothing. Waits for the
        action."""

    def finished_raw_ns(self) -> int | None:
        """Host MONOTONIC_RAW at which the mechanism had finished its work after the last resume; known after
        outcome(). None when it did not finish, or works for as long as it is installed."""

    def remove(self) -> None:
        """Remove the mechanism from the guest, with its programs and files. Safe to call at any time;
        GuestError when the guest is gone."""


class Watcher(Protocol):
    """A program in one guest that records what the guest's own programs claim about its clock and, on
    request, other side effects of a pause."""

    def start_cycle(self) -> None:
        """Discard what was recorded. GuestError when the channel is lost and cannot be re-established."""

    def claims(self) -> Sequence[Claim]:
        """All claims since start_cycle, in order of time."""

    def effects(self) -> Effects | None:
        """Side effects since start_cycle; None when the watcher does not record them."""


class Writer(Protocol):
    """A program in one guest that writes, and has each write synced."""

    def start_cycle(self) -> None:
        """Discard what was recorded. GuestError when the channel is lost and cannot be re-established."""

    def writes(self) -> FileWrites | None:
        """What was recorded since start_cycle, and end the recording. None when it cannot write."""


class WorkloadClient(Protocol):
    """The client of a workload, which runs from before a cell's first cycle to after its last."""

    def start_cycle(self) -> None:
        """Prepare the workload's guests for the next cycle, to which everything that is reported from now on
        belongs. GuestError when that fails, MachineError when the client has ended."""

    def collect(self, cycle: int) -> WorkloadSampled:
        """What was reported since start_cycle. Never fails: a client that has ended is a problem in it."""


@dataclass(frozen=True)
class PatchResult:
    """The result of a host patch.

    ok: the patch was completed in time. why: the reason when not ok, one line.
    facts: the patch's own report (exit status, end of the output, …). steps: its timed steps.
    """

    ok: bool
    why: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()


class HostPatch(Protocol):
    """A change to the host under the guests.

    label: its name in reports. impact: what it requires of the guests. successor: the emulator that guests
    run under afterwards. acts: False: apply() has nothing to do, because the freeze itself is the patch.
    """

    label: str
    acts: bool

    @property
    def impact(self) -> Impact: ...

    @property
    def successor(self) -> Successor: ...

    def check(self) -> None:
        """MachineError, with the reason, when this host cannot be patched this way. Changes nothing."""

    def version(self, guest: str) -> str:
        """The version in force, for this guest, of what the patch changes; "" when it is unknown."""

    def apply(self, deadline_raw_ns: int) -> PatchResult:
        """Apply the patch. Returns by CLOCK_MONOTONIC_RAW `deadline_raw_ns`, done or not: programs that run
        longer are killed. Interrupted passes through."""

    def verify(self, before: str, after: str) -> str:
        """Why the versions before and after show that the patch did not take effect; "" when it did."""

    def undo(self) -> str:
        """Undo the patch after the guests are back. Returns what was undone, "" when there was nothing to
        undo. MachineError when the patch cannot be undone."""


class Announcer(Protocol):
    """The metadata service from the side of whoever plans the maintenance. Safe from any thread."""

    def announce(self, guests: Sequence[str], spec: Announcement, cycle: CycleSpec) -> tuple[str, ...]:
        """Publish one event for each delivery group among the guests. Returns their ids, in the groups'
        order. Injected faults of the service (spec.service.answers, restarts) begin with this call."""

    def published(self, events: Sequence[str]) -> Sequence[Event]:
        """The events with these ids, each in its present or last state."""

    def state(self, events: Sequence[str]) -> State:
        """The common state of the events: SCHEDULED while one waits, CANCELLED when one is cancelled,
        NOT_ENABLED when no guest receives any of them, OVER when all are over, else STARTED."""

    def cancel(self, events: Sequence[str]) -> None:
        """Cancel the events."""

    def all_clear(self, events: Sequence[str]) -> None:
        """End the events: the service no longer shows them. Safe to call at any time."""

    def happened(self) -> Sequence[Happening]:
        """All happenings since the last call, in order of time."""


@dataclass(frozen=True)
class Health:
    """The answer to a gate. why: the reason when not ok, one line."""

    ok: bool
    why: str = ""


class Doctor(Protocol):
    """Checks gates inside guests."""

    def ask(self, guest: str, gate: Gate, deadline_raw_ns: int) -> Health:
        """Whether a gate of the kind COMMAND or HTTP holds in one guest now. Not ok as well when the guest
        does not answer by CLOCK_MONOTONIC_RAW `deadline_raw_ns`. Raises only Interrupted."""


class Journal(Protocol):
    """The append-only history of a run."""

    def append(self, event: HistoryEvent) -> None: ...


class View(Protocol):
    """Shows a run's progress. NullView's methods say what each call means."""

    def phase(self, name: str, *, guest: str = "", length_ns: int | None = None) -> None: ...

    def note(self, text: str) -> None: ...

    def cycle(self, number: int, of: int) -> None: ...

    def frozen(self, since_raw_ns: int, budget_ns: int) -> None: ...

    def resumed(self) -> None: ...

    def domain(self, label: str, state: str, *, number: int, of: int) -> None:
        """A domain of a rollout has reached `state`: waiting, announced, started, frozen, resyncing, gate,
        done, stopped. number: its wave, from 1. of: the number of waves."""


class NullView:
    """A View that shows nothing. A context manager, as every view of `lab.report.live` is."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the display."""

    def phase(self, name: str, *, guest: str = "", length_ns: int | None = None) -> None:
        """A new phase begins, for `guest` ("": for all guests). length_ns: how long it will take, if
        known."""

    def note(self, text: str) -> None:
        """Print one or more lines that stay on the screen."""

    def frozen(self, since_raw_ns: int, budget_ns: int) -> None:
        """The guests have been frozen since host MONOTONIC_RAW `since_raw_ns`."""

    def resumed(self) -> None:
        """All guests run again."""

    def domain(self, label: str, state: str, *, number: int, of: int) -> None:
        """See View.domain."""

    def cycle(self, number: int, of: int) -> None:
        """Cycle `number` (from 1) of `of` begins."""

    def progress(self, stage: str, fraction: float | None) -> None:
        """The progress of an image's build (ImageStore.build). fraction: 0 to 1; None when it is unknown."""
