"""A night: playbooks run one after another without anybody there, each in a process of its own with a time
limit, and what came of them.

The process is `freezelab run`. At its limit it gets SIGTERM, which it takes as Ctrl-C: it resumes and removes
its guests. One that does not get that done is killed, and `freezelab recover` does it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from lab.core.night import NightVerdict, PlaybookNight, time_limit_ns, worst_verdict
from lab.core.plan import Plan
from lab.core.quantities import format_length
from lab.core.units import NS_PER_S
from lab.errors import FreezelabError, Interrupted, MachineError, UsageError
from lab.process import runner
from lab.process.clock import HostClock
from lab.record import EVENTS
from lab.record.nights import (
    JUNIT,
    Night,
    begin_night,
    last_took_ns,
    night_folder,
    nights_folder,
    now_text,
    prune_nights,
    write_night,
)
from lab.session.night_baseline import compared
from lab.session.paths import made
from lab.session.run_folders import new_run_id

Note = Callable[[str], None]

TOOK = 5
"""So many last nights say how long a playbook takes."""

GRACE_S = 120.0
"""How long a run that is ended may take to resume and remove its guests."""

RECOVER_S = 300.0
COMMAND_S = 300.0
"""Time limits for `freezelab recover` and for the command of --on-failure."""

_LOOKS, _LOOK_S = 5, 0.1

TAG = "nightly"
"""Of the runs of nights: freezelab history --tag nightly."""

FREEZELAB = (sys.executable, "-P", "-m", "lab.cli.main")


@dataclass(frozen=True)
class NightPlaybook:
    """A playbook of a night. asked: as it was asked for. plan: None when it cannot be used, because of
    `mistake`. estimate_ns: the plan's own estimate for its cycles, at most."""

    asked: str
    plan: Plan | None = None
    mistake: str = ""
    estimate_ns: int = 0

    @property
    def name(self) -> str:
        return self.plan.name if self.plan is not None else self.asked


@dataclass(frozen=True)
class NightOptions:
    """uri: of libvirt; None: the embedded driver. limit_ns: for each playbook; None: from the last nights or
    the plan. last: so many passed runs are the baseline of a playbook that has none of its own."""

    uri: str | None = None
    limit_ns: int | None = None
    last: int = 5


@contextlib.contextmanager
def only_night(home: Path) -> Iterator[None]:
    """While it is open, no other night of this state folder begins. MachineError when one is under way."""
    path = made(nights_folder(home)) / "lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise MachineError(f"cannot be written: {error.strerror}", where=str(path)) from error
    try:
        try:
            _lock(handle)
        except BlockingIOError:
            who = os.pread(handle, 200, 0).decode("utf-8", "replace").strip()
            hint = "freezelab nightly status shows it"
            raise MachineError(f"another night is under way ({who})", where=str(home), hint=hint) from None
        except OSError as error:
            raise MachineError(f"cannot be locked: {error.strerror}", where=str(path)) from error
        with contextlib.suppress(OSError):  # it is only for others to read
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()}, since {datetime.now():%H:%M}".encode(), 0)  # noqa: DTZ005
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> None:
    """BlockingIOError when another process has it; one that only looks has it for a moment."""
    for left in reversed(range(_LOOKS)):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not left:
                raise
            time.sleep(_LOOK_S)
        else:
            return


def is_under_way(home: Path) -> bool:
    """Whether a night of this state folder is being run."""
    with contextlib.suppress(OSError):
        handle = os.open(nights_folder(home) / "lock", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
    return False


def check_playbooks(playbooks: Sequence[NightPlaybook]) -> None:
    """UsageError when two of them have one name: their runs could not be told apart."""
    names = [playbook.name for playbook in playbooks]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise UsageError(f"two playbooks have the name {twice[0]}", hint="a night compares runs by this name")


def run_night(home: Path, playbooks: Sequence[NightPlaybook], options: NightOptions, note: Note) -> Night:
    """Run them all, and record the night. A signal ends the night, not only its run. MachineError when there
    is no room for a record; what was run then has its own. To be called while only_night is open."""
    night = begin_night(home)
    folder = night_folder(home, night.id)
    each = [
        _PlaybookRun(home, playbook, options, folder / f"{number}.log", note)
        for number, playbook in enumerate(playbooks, 1)
    ]
    parts: list[PlaybookNight] = []
    try:
        for one in each:
            part = one.perform()
            parts.append(part)
            note(f"{part.playbook}: {part.verdict}{_because(part)}")
            write_night(home, replace(night, playbooks=tuple(parts)))
    except Interrupted as error:
        parts += [one.interrupted(str(error)) for one in each[len(parts) :]]
    verdict = worst_verdict(part.verdict for part in parts)
    night = replace(night, ended=now_text(), verdict=verdict, playbooks=tuple(parts))
    write_night(home, night)
    prune_nights(home)
    return night


def _because(part: PlaybookNight) -> str:
    reasons = part.reasons
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return f": {reasons[0]}{more}" if reasons else ""


class _PlaybookRun:
    """One playbook of a night. log: the file for what its run prints."""

    def __init__(
        self, home: Path, playbook: NightPlaybook, options: NightOptions, log: Path, note: Note
    ) -> None:
        self._home, self._playbook, self._options = home, playbook, options
        self._log, self._note = log, note
        self._clock, self._run = HostClock(), ""

    def interrupted(self, why: str) -> PlaybookNight:
        """Its part of a night that was ended before it was."""
        return PlaybookNight(self._playbook.name, NightVerdict.INTERRUPTED, self._begun(), why=why)

    def perform(self) -> PlaybookNight:
        plan = self._playbook.plan
        if plan is None:
            return PlaybookNight(self._playbook.name, NightVerdict.INVALID, why=self._playbook.mistake)
        limit = self._options.limit_ns
        if limit is None:
            guests = sum(len(cell.guests) for cell in plan.parts)
            took = last_took_ns(self._home, plan.name, TOOK)
            limit = time_limit_ns(took, self._playbook.estimate_ns, guests)
        self._note(f"{plan.name}: begins (at most {format_length(limit)})")
        self._run = new_run_id(plan.name)
        part = PlaybookNight(plan.name, NightVerdict.ERROR, limit_ns=limit)
        began = self._clock.now().raw_ns
        try:
            status, overran = self._execute(limit)
        except MachineError as error:
            return replace(part, why=_line(error))
        part = replace(part, took_ns=self._clock.now().raw_ns - began)
        part = replace(part, run=self._begun())
        if overran:
            begun = "" if part.run else f" before its run began ({self._last_words()})"
            why = f"ended at its time limit of {format_length(limit)}{begun}{self._recovered()}"
            return replace(part, why=why)
        if status < 0:
            why = f"its process was ended by {runner.signal_name(-status)}{self._recovered()}"
            return replace(part, why=why)
        try:
            return self._judged(part, plan, status)
        except Interrupted:
            raise
        except FreezelabError as error:
            return replace(part, why=_line(error))

    def _begun(self) -> str:
        """The id of its run; "" before that has begun."""
        there = self._run and (self._home / "runs" / self._run / EVENTS).exists()
        return self._run if there else ""

    def _execute(self, limit_ns: int) -> tuple[int, bool]:
        """(exit status, whether it was ended at its limit)."""
        connect = ("--connect", self._options.uri) if self._options.uri else ()
        argv = [*FREEZELAB, "run", "-v", "--wait", "--run-id", self._run, "--tag", TAG, *connect]
        with self._output() as output:
            process = runner.start(
                [*argv, "--", self._playbook.asked],
                stdout=output,
                stderr=output,
                parent_death=signal.SIGTERM,  # a night that is killed takes its run along
            )
            overran = False
            try:
                overran = not process.wait(limit_ns / NS_PER_S)
            finally:  # an interrupt, too
                process.stop(GRACE_S)
        status = process.status
        return (-signal.SIGKILL if status is None else status), overran

    @contextlib.contextmanager
    def _output(self) -> Iterator[int]:
        try:
            handle = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise MachineError(f"cannot be written: {error.strerror}", where=str(self._log)) from error
        try:
            yield handle
        finally:
            os.close(handle)

    def _recovered(self) -> str:
        """What `freezelab recover` did about what the run has left, to be put behind a sentence."""
        argv = [*FREEZELAB, "recover", *(("--connect", self._options.uri) if self._options.uri else ())]
        try:
            done = runner.run(argv, RECOVER_S, check=False)
        except MachineError as error:
            return f"; recover: {_line(error)}"
        if not done.ok:
            return f"; recover failed: {done.last_line or done.why}"
        lines = done.stdout.splitlines()
        return "" if lines[-1:] == ["nothing to recover"] else f"; recover: {'; '.join(lines)}"

    def _judged(self, part: PlaybookNight, plan: Plan, status: int) -> PlaybookNight:
        """The part of a run that ended by itself."""
        if status == Interrupted.exit_code:
            return replace(part, why="its run was interrupted")
        if not part.run:  # it was refused before it began
            verdict = NightVerdict.INVALID if status == UsageError.exit_code else NightVerdict.ERROR
            return replace(part, verdict=verdict, why=self._last_words())
        part = compared(self._home, part, plan, self._options.last)
        if status == MachineError.exit_code:  # its clean-up failed, or a guest did before the end
            worst = worst_verdict([part.verdict, NightVerdict.ERROR])
            return replace(part, verdict=worst, why=self._last_words())
        return part

    def _last_words(self) -> str:
        """What the run told last on its way out."""
        with contextlib.suppress(OSError):
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
            starts = [number for number, line in enumerate(lines) if line.startswith("freezelab: ")]
            words = " ".join(lines[starts[-1] if starts else -1 :]).strip().removeprefix("freezelab: ")
            if words:
                return words[:500]
        return "it printed nothing"


def _line(error: FreezelabError) -> str:
    return str(error).replace("\n", "; ")


def command_words(text: str) -> tuple[str, ...]:
    """The words of --on-failure, of which the first is a program that is there. UsageError when not."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"cannot be read: {error}", where="--on-failure") from None
    if not words:
        raise UsageError("no command", where="--on-failure")
    try:
        program = runner.find(words[0])
    except MachineError as error:
        raise UsageError(error.what, where=f"--on-failure: {words[0]}", hint=error.hint) from None
    return (str(Path(program).absolute()), *words[1:])


def on_failure(words: Sequence[str], facts: Mapping[str, str]) -> str:
    """Run the command of --on-failure, without a shell. facts: added to its environment, as FREEZELAB_NAME.
    Returns why it failed, "" when it did not."""
    named = {f"FREEZELAB_{name}": value.replace("\0", "") for name, value in facts.items()}
    try:
        done = runner.run(words, COMMAND_S, check=False, env=runner.environment(**named))
    except MachineError as error:
        return _line(error)
    return "" if done.ok else f"{done.why}{f': {done.last_line}' if done.last_line else ''}"


def facts_of(home: Path, night: Night, part: PlaybookNight) -> dict[str, str]:
    """What the command of --on-failure is given about a playbook that did not pass."""
    folder = night_folder(home, night.id)
    return {
        "PLAYBOOK": part.playbook,
        "VERDICT": part.verdict.value,
        "WHY": "; ".join(part.reasons),
        "RUN_FOLDER": str(home / "runs" / part.run) if part.run else "",
        "NIGHT_FOLDER": str(folder),
        "JUNIT": str(folder / JUNIT),
    }
