"""The one door from here to host programs: list argv, no shell, a deadline, failures one can paste.

The program runs in a process group of its own and dies with this process, so that a killed
build leaves no builder behind. lab.host has a door of its own: siblings do not import each other.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lab.errors import ImageError, MachineError

TAIL_LINES = 8
_TERM_GRACE_S = 20.0
_FULL = re.compile(r"no space left on device|not enough free space|don't have enough free space", re.I)
_OFFLINE = re.compile(
    r"temporary failure resolving|could not resolve|could not connect|unable to connect|"
    r"connection timed out|connection refused|network is unreachable|failed to fetch",
    re.I,
)


class ProgramFailed(ImageError):
    """A program ended with a status other than 0, or was stopped at its deadline."""

    def __init__(self, argv: Sequence[str], why: str, lines: Sequence[str]) -> None:
        self.argv, self.lines = tuple(argv), tuple(lines)
        last = "".join(f"\n  {line}" for line in lines)
        super().__init__(f"{Path(argv[0]).name} {why}{last}", hint=f"to see it again: {printable(argv)}")

    @property
    def disk_full(self) -> bool:
        return any(_FULL.search(line) for line in self.lines)

    @property
    def offline(self) -> bool:
        return any(_OFFLINE.search(line) for line in self.lines)


def _path() -> str:
    """PATH with sbin, which an ordinary user's lacks; mke2fs lives there."""
    return os.pathsep.join([*filter(None, [os.environ.get("PATH")]), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def printable(argv: Sequence[str]) -> str:
    """The command as one can paste it into a shell; whole scripts among the arguments are shortened."""
    return shlex.join(arg if len(arg) < 400 else arg[:200] + " …" for arg in argv)


def find_program(name: str, package: str) -> str:
    """Where `name` is. MachineError naming the package when it is not installed."""
    path = shutil.which(name, path=_path())
    if path is None:
        raise MachineError(f"{name} is not installed", hint=f"sudo apt-get install {package}")
    return path


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    on_line: Callable[[str], None] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    keep_open: Sequence[int] = (),
    stop: signal.Signals = signal.SIGTERM,
) -> None:
    """Run to the end.

    on_line: gets each line of output. keep_open: descriptors the program inherits.
    stop: what ends it when it is late, when an exception passes here, and when this process dies.
    """
    lines: deque[str] = deque(maxlen=200)
    full_env = {**os.environ, "LC_ALL": "C", "PATH": _path(), **(env or {})}
    # setpriv execs the program with a death signal set, for kill -9 on this process.
    death = ["--pdeathsig", stop.name.removeprefix("SIG")]
    prefix = [setpriv, *death] if (setpriv := shutil.which("setpriv", path=_path())) else []
    try:
        process = subprocess.Popen(
            [*prefix, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=full_env,
            cwd=cwd,
            pass_fds=tuple(keep_open),
            start_new_session=True,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise MachineError(
            f"cannot start {argv[0]}: {os.strerror(error.errno or errno.EIO)}", hint=printable(argv)
        ) from error
    late = threading.Event()

    def overdue() -> None:
        late.set()
        _end(process, stop)

    timer = threading.Timer(timeout_s, overdue)
    timer.daemon = True
    timer.start()
    try:
        for raw in process.stdout or ():
            if line := raw.strip():
                lines.append(line)
                if on_line:
                    on_line(line)
        status = process.wait()
    except BaseException:
        _end(process, stop)
        raise
    finally:
        timer.cancel()
        if process.stdout:
            process.stdout.close()
    if late.is_set():
        raise ProgramFailed(argv, f"did not end within {timeout_s:.0f} s", _tail(lines))
    if status:
        why = f"was ended by signal {-status}" if status < 0 else f"failed with status {status}"
        raise ProgramFailed(argv, why, _tail(lines))


def _tail(lines: deque[str]) -> list[str]:
    """The last lines, and before them any that tells of a full disk or a missing network."""
    last = list(lines)[-TAIL_LINES:]
    telling = [line for line in list(lines)[:-TAIL_LINES] if _FULL.search(line) or _OFFLINE.search(line)]
    return telling[-2:] + last


def _signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.killpg(process.pid, number)  # its own session: pid and group are the same


def _end(process: subprocess.Popen[str], stop: signal.Signals) -> None:
    _signal_group(process, stop)
    try:
        process.wait(_TERM_GRACE_S)
    except subprocess.TimeoutExpired:
        _signal_group(process, signal.SIGKILL)
        process.wait()
