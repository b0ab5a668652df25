"""The common parts of host patches: the deadline, timed steps, and one-line errors.

A patch's deadline is a promise to the guests: `apply` always returns by it. Work that cannot be killed (a
write that hangs in the kernel, a library call) runs in a thread, which is abandoned at the deadline.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lab.core.patch import NO_TIME_LEFT, Impact
from lab.core.timeline import Step
from lab.core.units import NS_PER_MS, NS_PER_S, format_duration
from lab.errors import FreezelabError, Interrupted, MachineError
from lab.ports import Clock, PatchResult, Successor
from lab.process import runner

MARGIN_NS = 2 * NS_PER_MS
"""A reserve before each deadline, so that a late wake-up on a busy host is still in time."""

TAIL = 2000
"""How many characters of a program's output are recorded, from its end."""

_POLL_NS = 2 * NS_PER_MS

_HANDOVER_NS = 10 * NS_PER_MS
"""How much earlier a thread's deadline is than its waiter's, so that the thread itself reports the reason."""

T = TypeVar("T")


def _no_guest_emulator(guest: str) -> str:
    raise MachineError(f"the emulator of {guest} is not known")


def _no_emulators(name: str) -> Path:
    raise MachineError("no emulator of this name has been fetched", where=name)


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Tools:
    """What a patch needs from the rest of the lab.

    guest_emulator: guest -> the version of the emulator that runs it now, "QEMU 7.2.22 (Debian …)".
    emulator: a path, or the name of a fetched emulator -> its path. Raises MachineError.
    uri: the libvirt connection's. reconnect: reopens the connection after its daemon was restarted.
    accelerator: "kvm" or "tcg". accelerator_reason: why it was chosen.
    emulator_pids: processes that use KVM now, but are gone when a patch that needs KVM unused is applied.
    """

    guest_emulator: Callable[[str], str] = _no_guest_emulator
    emulator: Callable[[str], Path] = _no_emulators
    uri: str = ""
    reconnect: Callable[[], None] = _nothing
    accelerator: str = ""
    accelerator_reason: str = ""
    emulator_pids: Callable[[], Collection[int]] = tuple


@dataclass(frozen=True)
class Roots:
    """The folders of the kernel's file systems; tests use others."""

    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    dev: Path = Path("/dev")


class Base:
    """The defaults of most patches: nothing to check, no version, no undo."""

    successor = Successor()
    acts = True

    def __init__(self, label: str, impact: Impact) -> None:
        self.label, self.impact = label, impact

    def check(self) -> None:
        """Check nothing."""

    def version(self, guest: str) -> str:  # noqa: ARG002 - ports.HostPatch's
        return ""

    def verify(self, before: str, after: str) -> str:  # noqa: ARG002 - ports.HostPatch's
        return ""

    def undo(self) -> str:
        return ""


@dataclass
class Work:
    """Work with a deadline, CLOCK_MONOTONIC_RAW `end_raw_ns`, and a record of its steps and facts so far."""

    clock: Clock
    end_raw_ns: int
    facts: dict[str, Any] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    @property
    def left_ns(self) -> int:
        return self.end_raw_ns - self.clock.now().raw_ns

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step, even one that fails."""
        began = self.clock.now().raw_ns
        try:
            yield
        finally:
            self.steps.append(Step(name, began, self.clock.now().raw_ns))

    def wait(self, ready: Callable[[], T | None], what: str, until_raw_ns: int | None = None) -> T:
        """Call `ready` until it returns something other than None or False. MachineError `what` at the
        deadline."""
        until = self.end_raw_ns if until_raw_ns is None else min(until_raw_ns, self.end_raw_ns)
        while True:
            if answer := ready():
                return answer
            now = self.clock.now().raw_ns
            if now >= until:
                raise MachineError(what)
            self.clock.sleep_until(min(until, now + _POLL_NS))

    def run(
        self, *argv: str, env: Mapping[str, str] | None = None, check: bool = True, tree: bool = False
    ) -> runner.Finished:
        """Run a program until the deadline at most. MachineError when it cannot be run and, with `check`,
        when it fails or overruns. tree: see runner.execute."""
        left = self.left_ns
        grace = min(runner.GRACE_NS, left // 2)
        if grace <= 0:
            raise MachineError(f"{NO_TIME_LEFT} {Path(argv[0]).name}")
        done = runner.execute(
            argv,
            self.clock,
            stop_at_raw_ns=self.end_raw_ns - grace,
            stop=runner.Stop(grace_ns=grace),
            output_max=TAIL * 4,
            env=env,
            tree=tree,
        )
        if check and not done.ok:
            raise MachineError(f"{Path(argv[0]).name}: {failure(done)}")
        return done

    def aside(self, act: Callable[[], T], what: str, *, whole: bool = False) -> T:
        """Call `act`, which may hang, in a thread. At the deadline the thread is abandoned and MachineError
        `what` is raised. Exceptions of `act` pass through.

        whole: `act` must not be left half done: Interrupted, which only the main thread receives, passes
        through when the thread has ended, or at the deadline."""
        answer: list[T] = []
        raised: list[BaseException] = []
        over = threading.Event()  # not join(): after an interrupt it takes the thread for ended

        def body() -> None:
            try:
                answer.append(act())
            except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
                raised.append(error)
            finally:
                over.set()

        threading.Thread(target=body, name=what, daemon=True).start()
        try:
            over.wait(max(self.left_ns, 0) / NS_PER_S)
        except BaseException:
            if whole:
                over.wait(max(self.left_ns, 0) / NS_PER_S)
            raise
        if raised:
            raise raised[0]
        if not answer:
            raise MachineError(what)
        return answer[0]


class Stepwise(Base):
    """A patch of several steps. `_do` raises MachineError when it fails.

    own_ns: the patch's own time limit, from the start of apply or undo.
    whole: whether an interrupt waits for the patch, because a half-patched host is worse than a late
    interrupt.
    """

    whole = False

    def __init__(self, label: str, impact: Impact, clock: Clock, own_ns: int) -> None:
        super().__init__(label, impact)
        self._clock, self._own_ns = clock, own_ns

    def apply(self, deadline_raw_ns: int) -> PatchResult:
        """Apply the patch within its own time limit and before CLOCK_MONOTONIC_RAW `deadline_raw_ns`."""
        now = self._clock.now().raw_ns
        work = Work(self._clock, min(now + self._own_ns, deadline_raw_ns - MARGIN_NS))
        if work.left_ns <= 0:
            return PatchResult(False, f"{NO_TIME_LEFT} it")
        try:
            if self.whole:
                work.aside(lambda: self._wholly(work), f"{self.label} is still running", whole=True)
            else:
                self._do(work)
        except Interrupted:
            raise
        except FreezelabError as error:
            return PatchResult(False, one_line(error), work.facts, tuple(work.steps))
        except OSError as error:  # from the kernel's files, which appear and vanish with what they describe
            why = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            return PatchResult(False, why, work.facts, tuple(work.steps))
        return PatchResult(True, "", work.facts, tuple(work.steps))

    def _wholly(self, work: Work) -> bool:
        self._do(Work(self._clock, work.end_raw_ns - _HANDOVER_NS, work.facts, work.steps))
        return True

    def _do(self, work: Work) -> None:
        raise NotImplementedError

    def _work(self) -> Work:
        """Work outside a freeze, with the patch's own time limit from now."""
        return Work(self._clock, self._clock.now().raw_ns + self._own_ns)


def failure(done: runner.Finished) -> str:
    """How a program failed, with the last line of its output; "" when it did not."""
    last_line = f": {done.last_line}" if not done.ok and not done.overran and done.last_line else ""
    return f"{done.why}{last_line}"


def one_line(error: FreezelabError) -> str:
    """An error in one line, without its hint."""
    text = f"{error.where}: {error.what}" if error.where else error.what
    return " ".join(text.split())


def read(path: Path) -> str:
    """The stripped text of a small file in /proc or /sys; "" when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def started(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot (proc(5), stat, field 22). Together with the pid
    it identifies the process. None when the process is gone, or a zombie."""
    # The name in brackets may contain anything, so fields are counted after it; the first one is the state.
    fields = read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 and fields[0] not in "ZX" else None


def need_root(to: str) -> None:
    """MachineError when this process does not run as root."""
    if os.geteuid() != 0:
        raise MachineError(f"only root can {to}", hint="run freezelab as root")


def seconds(ns: int) -> str:
    """A duration as text, to 10 ms."""
    return format_duration(round(ns, -7))


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first `most` names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
