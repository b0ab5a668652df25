"""The outside world as the controller sees it. Each Protocol has one real adapter.

Stamps are the host's (`core.clock.Stamp`); names are the guests' names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lab.core.clock import Stamp
from lab.core.plan import FreezeMethod
from lab.core.timeline import Call as Call
from lab.core.timeline import Heartbeat, ProbeFacts, Reading, SamplerReport


class Clock(Protocol):
    """The host's clocks and waiting."""

    def now(self) -> Stamp: ...

    def sleep_until(self, raw_ns: int) -> None:
        """Return at CLOCK_MONOTONIC_RAW `raw_ns` (at once when that is past). Interruptible."""


class Guard(Protocol):
    """The second pair of hands on the budget."""

    def __enter__(self) -> Guard: ...

    def __exit__(self, *_: object) -> None: ...

    def resumed(self, guest: str) -> Call | None:
        """The call by which the guard resumed the guest, None when it did not (and now will not)."""


class Hypervisor(Protocol):
    """Freezing and resuming of running guests."""

    def freeze(self, guest: str, method: FreezeMethod) -> Call:
        """Stop the guest. HypervisorError when it does not run or cannot be stopped."""

    def resume(self, guest: str, method: FreezeMethod) -> Call:
        """Make a frozen guest run again. Safe to call when it runs already."""

    def guard(self, guests: Sequence[str], method: FreezeMethod, at_raw_ns: int) -> Guard:
        """A context outside the caller's thread that resumes the guests at `at_raw_ns` unless the
        caller did so before."""

    def state(self, guest: str) -> str:
        """libvirt's word: running, paused, shut off, crashed, …"""

    def cpu_time_ns(self, guest: str) -> int:
        """CPU time that the guest's vCPU threads have used on the host."""


class Probe(Protocol):
    """The payload that runs inside one guest."""

    def read(self) -> Reading:
        """One exchange. GuestError when the channel is lost and cannot be had again."""

    def start_cycle(self) -> None:
        """Forget earlier heartbeats and samples."""

    def heartbeats(self) -> Sequence[Heartbeat]:
        """All that arrived since start_cycle, in order of arrival."""

    def samples(self) -> SamplerReport:
        """The in-guest sampler's record since start_cycle."""

    def facts(self) -> ProbeFacts:
        """boot_id, clocksource, kernel log lines since start_cycle."""


class Resync(Protocol):
    """One guest's way back to time."""

    def resumed(self) -> None:
        """The guest was just resumed: act now, without blocking the caller."""

    def outcome(self) -> str:
        """What the mechanism says of its own last action ("" when it says nothing). Waits for it."""


@dataclass(frozen=True)
class PatchResult:
    """What a host patch did.

    ok: it did all it should, in time. why: one line when not ok.
    facts: what it says of itself (exit status, output tail …).
    """

    ok: bool
    why: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


class HostPatch(Protocol):
    """What is done to the host while the guests are frozen."""

    label: str

    def apply(self, deadline_raw_ns: int) -> PatchResult:
        """Do it; return not later than CLOCK_MONOTONIC_RAW `deadline_raw_ns`, done or not.
        What runs longer is killed. Interrupted passes through."""


class Journal(Protocol):
    """The append-only history of a run."""

    def append(self, kind: str, guest: str = "", cycle: int = -1, **data: Any) -> None: ...


class View(Protocol):
    """Who watches: a live display, or nobody."""

    def phase(self, name: str, *, guest: str = "", length_ns: int | None = None) -> None: ...

    def note(self, text: str) -> None: ...

    def cycle(self, number: int, of: int) -> None: ...

    def frozen(self, since_raw_ns: int, budget_ns: int) -> None: ...

    def resumed(self) -> None: ...
