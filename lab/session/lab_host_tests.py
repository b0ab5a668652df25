"""freezelab's own tests in the lab host, file by file, since the lab host may fail before they do.

An emulated CPU that takes one world's state for another's, see docs/labhost.md, makes every guest's start
fail, and later the lab host's kernel. So a file with failures counts only if the lab host still boots a guest
on KVM. If it does not, another one is started in its place, and the file is run once more. If it does, what
failed is: the emulated CPU may fail a single guest.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lab.core.units import format_duration
from lab.errors import FreezelabError, GuestError, Interrupted, MachineError
from lab.process import runner
from lab.process.signals import shield
from lab.session.lab_host_code import WITH_CODE, send_code
from lab.session.lab_host_shell import PID_FILE, PLACE, LabHostShell

TIER = "tests/guest"

_PYTEST = (
    "python3",
    "-m",
    "pytest",
    "-o",
    f"cache_dir={PLACE}/pytest",
    "-p",
    "lab.pytest_plugin",
    "-o",
    "timeout=3600",
)
"""timeout: of each test, in seconds."""

_FAILED_ONLY = "--last-failed", "--last-failed-no-failures=none"

_PID = PID_FILE.format(run="tests")
_ALIVE = ("-o", "ServerAliveInterval=60", "-o", "ServerAliveCountMax=5")
"""A lab host whose kernel does not answer for 5 min is given up."""

_FILE_S, _LOOK_S, _BOOT_S = 6 * 3600.0, 60.0, 120.0
_NONE = 5
"""pytest's exit status when no test was selected. What is above is a shell's, or ssh's, or a signal."""

_BOOTS = f"""{WITH_CODE} python3 -c '
from pathlib import Path
from lab.hypervisor.accelerators import boots
kernel = next(Path("/usr/lib/freezelab/kernels").glob("6.1.*")) / "vmlinuz"
print(boots(Path("/usr/bin/qemu-system-x86_64"), kernel, "kvm", {_BOOT_S}))'"""


class FileOutcome(StrEnum):
    """skipped: no test of the file was selected, or all were skipped. not run: the lab host failed, so that
    nothing is known of the file's tests."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class FileTested:
    """A file of tests. why: pytest's last line, or how the lab host failed."""

    name: str
    outcome: FileOutcome
    took_ns: int
    why: str

    def __str__(self) -> str:
        took = format_duration(round(self.took_ns, -9))
        return f"{self.outcome:8} {self.name}  {took}  {self.why}"


class LabHostTests:
    """Runs files of tests in the lab host. start: removes the lab host if there is one, and starts another.
    shell: of the one that there is. say: gets each line of output. ill: why the lab host has failed; "" when
    it has not."""

    def __init__(
        self,
        shell: LabHostShell,
        start: Callable[[], LabHostShell],
        say: Callable[[str], object],
        ill: Callable[[LabHostShell], str] | None = None,
    ) -> None:
        self._shell, self._start, self._say, self._ill = shell, start, say, ill or illness

    def run(self, files: Iterable[str], options: Sequence[str]) -> Iterator[FileTested]:
        """Run each file, with options of pytest, and yield what became of it. After the first that cannot be
        run because there is no lab host any more, the others cannot either."""
        lost = ""
        for name in files:
            if lost:
                yield FileTested(name, FileOutcome.NOT_RUN, 0, lost)
                continue
            try:
                found = self._tested(name, options)
            except Interrupted:
                raise
            except FreezelabError as error:
                lost = f"no lab host: {str(error).splitlines()[0]}"
                found = FileTested(name, FileOutcome.NOT_RUN, 0, lost)
            yield found

    def _tested(self, name: str, options: Sequence[str]) -> FileTested:
        for last in (False, True):
            begun = time.monotonic_ns()
            status, line = self._pytest(name, options)
            if status == 1 and not self._ill(self._shell):
                status, again = self._pytest(name, [*options, *_FAILED_ONLY])
                status = 1 if status == _NONE else status  # what had failed was not found again
                line = f"{line}; what had failed, once more: {again}"
            took_ns = time.monotonic_ns() - begun
            if status in (0, _NONE):
                passed = re.search(r"\b[1-9]\d* x?passed\b", line)
                outcome = FileOutcome.PASSED if passed else FileOutcome.SKIPPED
                return FileTested(name, outcome, took_ns, line)
            why = self._ill(self._shell)
            if not why:
                return FileTested(name, FileOutcome.FAILED, took_ns, line or f"exit status {status}")
            self._say(f"the lab host has failed ({why}): another one is started in its place")
            self._shell = self._start()
            if last:
                return FileTested(name, FileOutcome.NOT_RUN, took_ns, f"the lab host failed twice: {why}")
        raise AssertionError

    def _pytest(self, name: str, options: Sequence[str]) -> tuple[int | None, str]:
        """pytest's exit status, or ssh's, and its last line."""
        try:
            send_code(self._shell)
        except GuestError as error:
            return None, str(error).splitlines()[0]
        words = runner.quote([*_PYTEST, *options, name])
        command = self._shell.command(f"echo $$ >{_PID}; {WITH_CODE} exec {words}", *_ALIVE)
        try:
            done = runner.run(command, _FILE_S, check=False, on_line=self._line)
        except Interrupted:
            with shield():
                pid, interrupt = f"$(cat {_PID})", signal.SIGINT.name.removeprefix("SIG")
                # Its guests are gone when it has ended.
                end = f"timeout {_LOOK_S:g} tail --pid={pid} -f /dev/null || true"
                self._shell.run(f"kill -{interrupt} {pid} && {end}", 2 * _LOOK_S)
            raise
        return done.status, re.sub(r"^=+ | =+$", "", done.last_line)

    def _line(self, line: str) -> None:
        self._say(line)


def illness(shell: LabHostShell) -> str:
    """Why the lab host has failed; "" when its kernel has not complained, and its KVM boots another one."""
    try:
        found = shell.run(
            "dmesg | grep -m 1 -E 'BUG: unable|Oops|general protection|Kernel panic' || true", _LOOK_S
        )
        if found:
            return f"its kernel: {found.strip()}"
        if (seconds := shell.run(_BOOTS, 2 * _BOOT_S).strip()) == "None":
            return f"no kernel boots on its KVM within {_BOOT_S:g} s"
        float(seconds)
    except (GuestError, MachineError, ValueError) as error:
        return f"it does not answer: {str(error).splitlines()[0]}"
    return ""


def files_of(arguments: Sequence[str], clone: Path) -> tuple[list[str], list[str]]:
    """Arguments of pytest: the files of tests, the smallest of a folder first, and the options. Without a
    file: those of the guest tier."""
    places = [
        word for word in arguments if (clone / word.partition("::")[0]).exists() and not word.startswith("-")
    ]
    files: list[str] = []
    for place in places or [TIER]:
        folder = clone / place
        if folder.is_dir():
            found = sorted(folder.rglob("test_*.py"), key=lambda path: (path.stat().st_size, path))
            files += [str(path.relative_to(clone)) for path in found]
        else:
            files.append(place)
    return list(dict.fromkeys(files)), [word for word in arguments if word not in places]


def exit_code(tested: Sequence[FileTested]) -> int:
    """1 when a test has failed, else 4 when a file was not run or no test has passed, else 0."""
    outcomes = {one.outcome for one in tested}
    if FileOutcome.FAILED in outcomes:
        return 1
    return 4 if FileOutcome.NOT_RUN in outcomes or FileOutcome.PASSED not in outcomes else 0
