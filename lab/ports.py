"""The outside world as the controller sees it. Each Protocol has one real adapter.

Stamps are the host's (`core.clock.Stamp`); names are the guests' names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from lab.core.claims import Claim
from lab.core.clock import Stamp
from lab.core.effects import Effects
from lab.core.history import HistoryEvent
from lab.core.method import FreezeMethod
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
    """The second pair of hands on the budget."""

    def __enter__(self) -> Guard: ...

    def __exit__(self, *_: object) -> None: ...

    def resumed(self, guest: str) -> Resumed | None:
        """How the guard resumed the guest, None when it did not (and now will not)."""

    def bring_forward(self, by_ns: int) -> None:
        """Have the thread act so much earlier: the resume will take so long."""

    @property
    def why(self) -> str:
        """Why it resumed guests before their time, "" when it did not."""


@dataclass(frozen=True)
class Frozen:
    """What became of a freeze.

    call: stopped the guest. steps: what was done since.
    back: the call by which the guest was put back to running where it was, when the freeze was called off;
        why: the reason, one line.
    resume_ns: what has to be kept of the budget for the resume, where that takes more than milliseconds.
    """

    call: Call
    steps: tuple[Step, ...] = ()
    back: Call | None = None
    why: str = ""
    resume_ns: int = 0


@dataclass(frozen=True)
class Resumed:
    """What became of a resume.

    call: let the guest run again. steps: what was done before it.
    why: it was put back to running where it was, instead of where it should go on: the reason.
    cut: the guest's network connections do not outlive this way of freezing.
    """

    call: Call
    steps: tuple[Step, ...] = ()
    why: str = ""
    cut: bool = False
    proof: MemoryProof | None = None


@dataclass(frozen=True)
class Successor:
    """The emulator that guests go on under. "" keeps the guest's own.

    emulator: path. machine: machine type. cpu: CPU model.
    cold: it is started only after the patch: no emulator may be there meanwhile.
    """

    emulator: str = ""
    machine: str = ""
    cpu: str = ""
    cold: bool = False


@dataclass(frozen=True)
class Freezing:
    """How guests are to be frozen.

    save_to: folder for save-restore's files. prove_memory: see core.timeline.MemoryProof.
    """

    method: FreezeMethod
    successor: Successor = Successor()
    prove_memory: bool = False
    save_to: str = ""


class Hypervisor(Protocol):
    """Freezing and resuming of running guests."""

    def prepare(self, guest: str, freezing: Freezing) -> None:
        """Do whatever can be done before the freeze; the guest runs on. HypervisorError or MachineError
        when the guest cannot be frozen this way: nothing is left of the attempt."""

    def freeze(self, guest: str, freezing: Freezing, deadline_raw_ns: int) -> Frozen:
        """Stop the guest. What the method has to do then is done, or called off, by CLOCK_MONOTONIC_RAW
        `deadline_raw_ns`. HypervisorError when it does not run or cannot be stopped; it runs then."""

    def resume(self, guest: str, freezing: Freezing) -> Resumed:
        """Make a frozen guest run again, the way its method does. Safe to call when it runs already."""

    def finish(self, guest: str) -> None:
        """End what prepare and freeze have left behind. Waits for it; safe to call always."""

    def guard(
        self, guests: Sequence[str], freezing: Freezing, at_raw_ns: int, until_raw_ns: int, cycle: int
    ) -> Guard:
        """A context that resumes the guests unless the caller did so before: by another thread at
        `at_raw_ns`, and from outside this process at `until_raw_ns`. Entering it raises HypervisorError when
        that cannot be promised: the guests must not be frozen then."""

    def shutdown(self, guest: str, deadline_raw_ns: int) -> Call:
        """Have the guest power itself off. HypervisorError when it does not by `deadline_raw_ns`."""

    def start(self, guest: str, successor: Successor) -> Call:
        """Start a guest that was shut down, from the same disk."""

    def state(self, guest: str) -> str:
        """libvirt's word: running, paused, shut off, crashed, …"""

    def look(self, guest: str) -> None:
        """GuestGone when it is known, at once, that the guest cannot answer."""

    def wake(self, guest: str) -> None:
        """Wake the guest, if it is asleep. GuestGone when it has ended, GuestError when that fails."""

    def cpu_time_ns(self, guest: str) -> int:
        """CPU time that the guest's vCPU threads have used on the host."""

    def cpu_wait(self, guest: str) -> CpuWait | None:
        """How long its QEMU has waited for a CPU of the host so far. None when there is no telling: it has no
        process now, or none on this host."""


class Probe(Protocol):
    """The probe in one guest."""

    def read(self) -> Reading:
        """One exchange. GuestError when the channel is lost and cannot be had again."""

    def start_cycle(self) -> None:
        """Forget earlier heartbeats and samples."""

    def rest(self) -> None:
        """Neither heartbeats nor samples until the next start_cycle: the guest is left alone."""

    def heartbeats(self) -> Sequence[Heartbeat]:
        """All that arrived since start_cycle, in order of arrival."""

    def samples(self) -> SamplerReport:
        """The in-guest sampler's record since start_cycle."""

    def facts(self) -> ProbeFacts:
        """boot_id, clocksource, kernel log lines since start_cycle."""

    def restart(self, deadline_raw_ns: int) -> None:
        """Start anew in a guest that was rebooted. GuestError when it does not answer by then."""


class Resync(Protocol):
    """One guest's way back to time. It is installed in the guest, whose clock was set to the host's then."""

    def setup(self) -> Setup:
        """What is installed, and its state now. GuestError when the guest does not tell."""

    def resumed(self) -> None:
        """The guest was just resumed: act now, without blocking the caller."""

    def outcome(self) -> str:
        """What the mechanism says of its own last action ("" when it says nothing). Waits for it."""

    def finished_raw_ns(self) -> int | None:
        """The host's MONOTONIC_RAW when the mechanism had done all that it does after the last resume, known
        after outcome(). None when it did not come to an end, or goes on for as long as it is installed."""

    def remove(self) -> None:
        """Take it out of the guest again: no program of its own runs, no file of its own is left. Safe to
        call always; GuestError when the guest is gone."""


class Watcher(Protocol):
    """A program that watches in one guest what its own programs say of its clock, and, if asked to, what else
    a pause does to it."""

    def start_cycle(self) -> None:
        """Forget what was seen. GuestError when the channel is lost and cannot be had again."""

    def claims(self) -> Sequence[Claim]:
        """All since start_cycle, in order."""

    def effects(self) -> Effects | None:
        """Since start_cycle; None when it was not asked to watch for them."""


@dataclass(frozen=True)
class PatchResult:
    """What a host patch did.

    ok: it did all it should, in time. why: one line when not ok.
    facts: what it says of itself (exit status, output tail …). steps: its parts, timed.
    """

    ok: bool
    why: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()


class HostPatch(Protocol):
    """What is done to the host.

    label: for people. impact: what it asks of the guests. successor: what guests go on under.
    """

    label: str

    @property
    def impact(self) -> Impact: ...

    @property
    def successor(self) -> Successor: ...

    def check(self) -> None:
        """MachineError when this host cannot be patched so, and why. Nothing is changed."""

    def version(self, guest: str) -> str:
        """What is in force now of the thing it changes, as this guest has it; "" when there is no telling."""

    def apply(self, deadline_raw_ns: int) -> PatchResult:
        """Do it; return not later than CLOCK_MONOTONIC_RAW `deadline_raw_ns`, done or not.
        What runs longer is killed. Interrupted passes through."""

    def verify(self, before: str, after: str) -> str:
        """Why it did not do what it claims, from the versions before and after; "" when it did."""

    def undo(self) -> str:
        """Take back what was applied, after the guests are back; what was done, "" when there is nothing.
        MachineError when it cannot be taken back."""


class Announcer(Protocol):
    """The metadata service, as the one sees it who plans the maintenance. Safe from any thread."""

    def announce(self, guests: Sequence[str], spec: Announcement, cycle: CycleSpec) -> tuple[str, ...]:
        """Publish one event for each delivery group among the guests; their ids, in the groups' order. What
        is wrong with the service on purpose (spec.service.answers, restarts) begins now."""

    def published(self, events: Sequence[str]) -> Sequence[Event]:
        """What was announced under these ids, as it is now or last was."""

    def state(self, events: Sequence[str]) -> State:
        """Of all together: SCHEDULED while one waits, CANCELLED when one is, NOT_ENABLED when nobody was told
        of any of them, OVER when all are, else STARTED."""

    def cancel(self, events: Sequence[str]) -> None:
        """Call them off."""

    def all_clear(self, events: Sequence[str]) -> None:
        """They are over: no longer shown. Safe to call always."""

    def happened(self) -> Sequence[Happening]:
        """All since it was asked last, in order."""


@dataclass(frozen=True)
class Health:
    """What came of asking a guest. why: one line when not ok."""

    ok: bool
    why: str = ""


class Doctor(Protocol):
    """Asks guests how they are."""

    def ask(self, guest: str, gate: Gate, deadline_raw_ns: int) -> Health:
        """Whether a gate of the kind COMMAND or HTTP holds in one guest now; not ok also when the guest does
        not answer by CLOCK_MONOTONIC_RAW `deadline_raw_ns`. Raises nothing but Interrupted."""


class Journal(Protocol):
    """The append-only history of a run."""

    def append(self, event: HistoryEvent) -> None: ...


class View(Protocol):
    """Who watches: a live display, or nobody."""

    def phase(self, name: str, *, guest: str = "", length_ns: int | None = None) -> None: ...

    def note(self, text: str) -> None: ...

    def cycle(self, number: int, of: int) -> None: ...

    def frozen(self, since_raw_ns: int, budget_ns: int) -> None: ...

    def resumed(self) -> None: ...

    def domain(self, label: str, state: str, *, number: int, of: int) -> None:
        """A domain of a rollout has come to `state`: waiting, announced, started, frozen, resyncing, gate,
        done, stopped. number: of the wave that it is in, from 1."""


class NullView:
    """Nobody watches. A context manager, as every view of `lab.report.live` is, and a `View`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Take leave."""

    def phase(self, name: str, *, guest: str = "", length_ns: int | None = None) -> None:
        """Something else is being done from now on, to `guest` or to all of them, for `length_ns`."""

    def note(self, text: str) -> None:
        """A line, or several, that stays."""

    def frozen(self, since_raw_ns: int, budget_ns: int) -> None:
        """The guests stand still since host MONOTONIC_RAW `since_raw_ns`."""

    def resumed(self) -> None:
        """All guests run again."""

    def domain(self, label: str, state: str, *, number: int, of: int) -> None:
        """As View's. of: so many waves."""

    def cycle(self, number: int, of: int) -> None:
        """What follows belongs to cycle `number` (from 1) of `of`."""

    def progress(self, stage: str, fraction: float | None) -> None:
        """How far an image is; made for ImageStore.build. fraction: 0 to 1, None when nobody knows."""
