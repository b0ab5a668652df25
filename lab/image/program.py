"""Host programs that work on images: when one fails, that is an ImageError which says what the disk or the
network has to do with it."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lab.core.units import NS_PER_S
from lab.errors import ImageError
from lab.process import runner

TAIL_LINES = 8
_SEARCHED_LINES = 200
_GRACE_NS = 20 * NS_PER_S
_LONG = 400
_FULL = re.compile(r"no space left on device|not enough free space|don't have enough free space", re.I)
_OFFLINE = re.compile(
    r"temporary failure resolving|could not resolve|could not connect|unable to connect|"
    r"connection timed out|connection refused|network is unreachable|failed to fetch",
    re.I,
)
_UNKNOWN = re.compile(r"unable to locate package (\S+)", re.I)
_EXPIRED = re.compile(r"release file for \S+ is expired \((.*?)\)", re.I)


class ProgramFailed(ImageError):
    """A program ended with a status other than 0, or was stopped at its deadline. lines: its last ones."""

    def __init__(self, finished: runner.Finished) -> None:
        self.lines = _tail(finished.stdout)
        last = "".join(f"\n  {line}" for line in self.lines)
        super().__init__(
            f"{Path(finished.argv[0]).name}: {finished.why}{last}",
            hint=f"to repeat it: {runner.quote(finished.argv, _LONG)}",
        )

    @property
    def disk_full(self) -> bool:
        return any(_FULL.search(line) for line in self.lines)

    @property
    def no_package(self) -> str:
        """The package that apt does not know; ""."""
        return next((found[1] for line in self.lines if (found := _UNKNOWN.search(line))), "")

    @property
    def too_old(self) -> str:
        """How long ago a mirror's list of packages has expired; ""."""
        return next((found[1] for line in self.lines if (found := _EXPIRED.search(line))), "")

    @property
    def offline(self) -> bool:
        return any(_OFFLINE.search(line) for line in self.lines)


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    on_line: Callable[[str], None] | None = None,
    env: Mapping[str, str] | None = None,
    open_descriptors: Sequence[int] = (),
    first: signal.Signals = signal.SIGTERM,
) -> None:
    """Run a program to its end, its messages in English. ProgramFailed; MachineError when it is missing.

    on_line: gets each line of output. env: added to ours. keep_open: descriptors that the program inherits.
    first: the signal that stops it when it is late, when an exception passes, and when this process dies.
    """
    finished = runner.run(
        argv,
        timeout_s,
        check=False,
        env=runner.environment(**{"LC_ALL": "C", **(env or {})}),
        on_line=on_line or _ignore,
        pass_fds=open_descriptors,
        stop=runner.Stop(first, _GRACE_NS, interrupted_too=True, parent_death=first),
    )
    if not finished.ok:
        raise ProgramFailed(finished)


def _ignore(_line: str) -> None:
    return None


def _tail(output: str) -> tuple[str, ...]:
    """The last lines, and before them any that show a full disk or a missing network."""
    lines = [line for raw in output.splitlines() if (line := raw.strip())][-_SEARCHED_LINES:]
    reasons = [line for line in lines[:-TAIL_LINES] if _FULL.search(line) or _OFFLINE.search(line)]
    return (*reasons[-2:], *lines[-TAIL_LINES:])
