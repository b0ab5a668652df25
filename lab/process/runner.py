"""Starts programs on the host: from argv lists, each in its own session, with a deadline and limited output.

`run` and `execute` run a program to its end. When they return or raise, the program's whole process group has
been killed: at the deadline, on an interrupt, and also after a success, so that nothing of a patch runs on
unnoticed. A daemon leaves the group by setsid(2) and survives; with `tree` it is killed as well when the
program overran or was interrupted (scope.py says how reliably). `start` is for processes that stay, until
they are stopped or for good.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.core.units import NS_PER_MS, NS_PER_S, format_duration
from lab.errors import Interrupted, MachineError
from lab.ports import Clock
from lab.process.child import Child, OnLine, Started
from lab.process.clock import HostClock
from lab.process.packages import how_to_get, with_program
from lab.process.scope import Scope
from lab.process.signals import shield, whole

GRACE_NS = 250 * NS_PER_MS
"""Time from SIGTERM until the program is gone. All but the last part of it is left for the program to
exit."""

OUTPUT_MAX = 1 << 20
"""How many bytes of each output are kept; the oldest are dropped."""

_REAP_NS = 120 * NS_PER_MS
"""The part of the grace period for SIGKILL and reaping; a busy program took over 25 ms on a busy host."""

_LAST_NS = 15 * NS_PER_MS
"""The part of _REAP_NS that is left for returning to the caller."""

started: set[int] = set()
"""The process ids of all programs that were started here: whoever has started one waits for it. Complete
while `starting` is held."""

starting = threading.Lock()

_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Folders that an ordinary user's PATH lacks; mke2fs, modprobe and chronyd are there."""


@dataclass(frozen=True)
class Stop:
    """How a program is stopped.

    first: the signal that its process group gets first; SIGKILL follows before `grace_ns` is over.
    interrupted_too: whether the program gets the first signal and the grace period on an exception as well,
        to clean up. Otherwise it is killed at once, because guests may be frozen.
    parent_death: the signal that the kernel sends to the program alone when the thread that started it ends,
        even by kill -9 (PR_SET_PDEATHSIG, prctl(2)); None: none.
    """

    first: signal.Signals = signal.SIGTERM
    grace_ns: int = GRACE_NS
    interrupted_too: bool = False
    parent_death: signal.Signals | None = None


@dataclass(frozen=True)
class Finished:
    """The result of a program's run.

    status: the exit status; -N when signal N ended the program; None when it was killed and not gone in time.
    stdout: with on_line, both outputs in the order of arrival. took_ns: from start to end,
    CLOCK_MONOTONIC_RAW. overran: the program was killed at its deadline. truncated: a part of the output was
    dropped. enough: the program was killed because on_line returned True.
    """

    argv: tuple[str, ...]
    status: int | None
    stdout: str
    stderr: str
    took_ns: int
    overran: bool = False
    truncated: bool = False
    enough: bool = False

    @property
    def ok(self) -> bool:
        return self.enough or (self.status == 0 and not self.overran)

    @property
    def why(self) -> str:
        """How the program failed, in one line; "" when it did not."""
        if self.ok:
            return ""
        took = format_duration(round(self.took_ns, -8))
        if self.overran:
            return (
                f"still running after {took}, killed{'' if self.status is not None else ', and not gone yet'}"
            )
        if self.status is not None and self.status < 0:
            return f"ended by {signal_name(-self.status)}"
        return f"exit status {self.status}" if self.status else ""

    @property
    def last_line(self) -> str:
        """The last line of stderr, or of stdout when stderr is empty; at most 200 characters."""
        for text in (self.stderr, self.stdout):
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            if lines:
                return lines[-1][:200]
        return ""


def run(
    argv: Sequence[str],
    timeout_s: float,
    *,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    clock: Clock | None = None,
    on_line: OnLine | None = None,
    pass_fds: Sequence[int] = (),
    stop: Stop | None = None,
) -> Finished:
    """Run a program to its end, for at most `timeout_s` seconds. MachineError when the program is missing
    and, with `check`, when it overruns or fails; the message contains a command line to paste. Interrupted
    passes through. The other arguments are those of execute()."""
    clock = clock or HostClock()
    finished = execute(
        argv,
        clock,
        stop_at_raw_ns=clock.now().raw_ns + round(timeout_s * NS_PER_S),
        stop=stop or Stop(),
        env=env,
        cwd=cwd,
        on_line=on_line,
        pass_fds=pass_fds,
    )
    if check and not finished.ok:
        last_line = f": {finished.last_line}" if finished.last_line else ""
        raise MachineError(f"{finished.why}{last_line}", where=quote(argv))
    return finished


def execute(
    argv: Sequence[str],
    clock: Clock,
    *,
    stop_at_raw_ns: int,
    stop: Stop | None = None,
    output_max: int = OUTPUT_MAX,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_line: OnLine | None = None,
    pass_fds: Sequence[int] = (),
    tree: bool = False,
) -> Finished:
    """Run a program. At CLOCK_MONOTONIC_RAW `stop_at_raw_ns` its process group gets a signal and, before the
    grace period is over, SIGKILL. Always returns by stop_at_raw_ns + stop.grace_ns. MachineError when the
    program cannot be started. Exceptions from signal handlers and from on_line pass through after the group
    was killed.

    stop: how the program is stopped. env: None: this process's environment, its PATH with the sbin folders.
    on_line: gets the lines of both outputs in the order of arrival. pass_fds: descriptors that it inherits.
    tree: when the program overran or was interrupted, kill everything that it has started, in any session."""
    stop, began = stop or Stop(), clock.now().raw_ns
    with contextlib.closing(Scope()) if tree else contextlib.nullcontext() as scope:
        process: subprocess.Popen[bytes] | None = None
        child: Child | None = None
        overran, in_time = False, False
        try:
            with shield():
                process = _spawn(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE if on_line is None else subprocess.STDOUT,
                    env=env,
                    cwd=cwd,
                    pass_fds=pass_fds,
                    parent_death=stop.parent_death,
                    scope=scope,
                )
                child = Child(process, clock, output_max, on_line=on_line, scope=scope)
            overran = not child.wait(stop_at_raw_ns)
            ended, enough = clock.now().raw_ns, child.enough
            if overran:
                child.signal(stop.first)
                child.wait(stop_at_raw_ns + stop.grace_ns - min(_REAP_NS, stop.grace_ns // 2))
            in_time = not overran
        except BaseException:
            if child is not None and stop.interrupted_too:
                child.mute()
                child.signal(stop.first)
                child.wait(clock.now().raw_ns + stop.grace_ns)
            raise
        finally:
            last = stop_at_raw_ns + stop.grace_ns - min(_LAST_NS, stop.grace_ns // 4) if overran else None
            status = _finish(process, child, clock, last, in_time)
        return Finished(
            tuple(argv),
            status,
            child.text("stdout"),
            child.text("stderr"),
            ended - began,
            overran,
            child.truncated,
            enough,
        )


@whole
def _finish(
    process: subprocess.Popen[bytes] | None,
    child: Child | None,
    clock: Clock,
    until_raw_ns: int | None,
    in_time: bool,
) -> int | None:
    """Kill what is left of a program and reap it, by CLOCK_MONOTONIC_RAW `until_raw_ns` (None: at once).
    in_time: it ended by itself, and what it has started in other sessions may stay. Returns its exit
    status."""
    if child is not None:
        until = clock.now().raw_ns + _REAP_NS // 4 if until_raw_ns is None else until_raw_ns
        return child.finish(until, everything=not in_time)
    if process is not None:  # there were no descriptors left for the Child
        os.killpg(process.pid, signal.SIGKILL)
    return None


def start(
    argv: Sequence[str],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    parent_death: signal.Signals | None = None,
    for_good: bool = False,
    scope: Scope | None = None,
) -> Started:
    """Start a process that stays, in its own session. MachineError when it cannot be started.

    stdin, stdout, stderr: descriptors, by default /dev/null. env, pass_fds: as in execute().
    parent_death: as in Stop. for_good: the process outlives the lab, which never stops it. scope: of all that
    it starts; whoever made it kills and closes it."""
    stays: Started | None = None
    try:
        with shield():
            process = _spawn(
                argv,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=env,
                cwd=cwd,
                pass_fds=pass_fds,
                parent_death=parent_death,
                scope=scope,
            )
            stays = Started(process)
            if for_good:
                _FOR_GOOD.append(process)
        return stays
    except Interrupted:
        if stays is not None:  # the caller will never know of it
            stays.stop(0, None)
        raise


_FOR_GOOD: list[subprocess.Popen[bytes]] = []
"""Keeps a reference to processes that go on: Popen warns when the object of a running process is deleted."""


def which(program: str, path: str | None = None) -> str | None:
    """The path of a program: on `path` (None: PATH) or in one of the sbin folders. None when it is not
    found."""
    return shutil.which(program, path=_with_sbin(path))


def find(program: str) -> str:
    """The path of a program, found as by run(). MachineError when it is missing or not executable."""
    found = which(program)
    if found:
        return found
    if package := with_program(program):
        raise MachineError(f"{program} is not installed", hint=how_to_get([package]))
    if "/" in program and Path(program).exists():
        raise MachineError("not an executable file", where=program, hint=f"chmod +x {shlex.quote(program)}")
    raise MachineError("no such program", where=program, hint="is it installed, and on PATH?")


def environment(**more: str) -> dict[str, str]:
    """This process's environment, its PATH with the sbin folders, and `more`."""
    return {**os.environ, "PATH": _with_sbin(None), **more}


def quote(argv: Sequence[str], longest: int | None = None) -> str:
    """A command line to paste. longest: shorten arguments with more characters than this, for display
    only."""
    if longest is None:
        return shlex.join(argv)
    return shlex.join(arg if len(arg) < longest else arg[: longest // 2] + " …" for arg in argv)


def _with_sbin(path: str | None) -> str:
    if path is None:
        path = os.environ.get("PATH", os.defpath)
    folders = [folder for folder in path.split(os.pathsep) if folder]
    return os.pathsep.join([*folders, *(folder for folder in _SBIN if folder not in folders)])


def _spawn(
    argv: Sequence[str],
    *,
    stdin: int,
    stdout: int,
    stderr: int,
    env: Mapping[str, str] | None,
    cwd: Path | None,
    pass_fds: Sequence[int],
    parent_death: signal.Signals | None,
    scope: Scope | None = None,
) -> subprocess.Popen[bytes]:
    program, command = find(argv[0]), list(argv)
    if parent_death is not None and (setpriv := which("setpriv")):
        # setpriv sets the signal and executes the program. Python's preexec_fn could set it too, but is not
        # safe in a process with threads.
        command = [setpriv, "--pdeathsig", parent_death.name.removeprefix("SIG"), "--", program, *argv[1:]]
        program = setpriv
    environ = environment() if env is None else dict(env)
    try:
        with starting:
            process = subprocess.Popen(
                command,
                executable=program,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=environ if scope is None else scope.environment(environ),
                preexec_fn=None if scope is None else scope.enter,  # noqa: PLW1509 - it makes one system call
                cwd=cwd,
                pass_fds=tuple(pass_fds),
                start_new_session=True,
            )
            started.add(process.pid)
            return process
    except OSError as error:
        raise MachineError(f"cannot be run: {error.strerror}", where=quote(argv)) from error


def signal_name(number: int) -> str:
    """SIGKILL for 9; "signal 99" for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
