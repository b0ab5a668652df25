"""The guest's QEMU processes as the kernel shows them: which there are, and when their vCPUs ran.

Nothing of the lab's but the host's pace is used here, and nobody is asked: a vCPU thread's CPU time (proc(5),
schedstat) grows while the guest runs, and stands still when it does not, however it was stopped.
"""

from __future__ import annotations

import itertools
import os
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from lab.process.pace import PACE, paced

_PROC = Path("/proc")
PERIOD_S = 0.01
_LOOKS = 4
"""New processes are looked for once in so many looks."""


def text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def words(pid: int) -> list[str]:
    """A process's command line; [] when it is gone, or a zombie."""
    line = text(_PROC / str(pid) / "cmdline")
    return line.rstrip("\0").split("\0") if line else []


def pids() -> list[int]:
    return sorted(int(entry) for entry in os.listdir(_PROC) if entry.isdigit())  # noqa: PTH208 - faster


def find(*needles: str) -> list[int]:
    """Processes whose command line has all of these in it."""
    found = []
    for pid in pids():
        line = " ".join(words(pid))
        if line and all(needle in line for needle in needles):
            found.append(pid)
    return found


def state(pid: int) -> str:
    """proc(5): R, S, D, T, Z …; "" when it is gone."""
    fields = text(_PROC / str(pid) / "stat").rpartition(")")[2].split()
    return fields[0] if fields else ""


def open_files() -> list[str]:
    """Every open file of every process, "PID FD PATH"."""
    found = []
    for pid in pids():
        for link in (_PROC / str(pid) / "fd").glob("*"):
            try:
                found.append(f"{pid} {link.name} {link.readlink()}")
            except OSError:
                continue
    return found


def is_guest(line: list[str]) -> bool:
    """A lab guest's QEMU; those that libvirt starts to learn of its features are not."""
    return bool(line) and "qemu-system" in line[0] and "guest=freezelab-" in " ".join(line)


def generation(line: list[str]) -> int:
    """Which of a guest's processes it is: a successor's domain is called …-web-0.1."""
    match = re.search(r"guest=freezelab-[^,]*?\.(\d+),", " ".join(line) + ",")
    return int(match[1]) if match else 0


@dataclass
class Life:
    """One QEMU process, as it was watched. moved: the moments (MONOTONIC, s) up to which its vCPU has been
    seen to run, each with how much of the CPU it took since the look before, in ns."""

    pid: int
    line: list[str]
    begun: float
    seen: float
    threads: list[Path] = field(default_factory=list)
    used_ns: int = -1
    moved: list[tuple[float, int]] = field(default_factory=list)
    ended: bool = False

    @property
    def generation(self) -> int:
        return generation(self.line)

    @property
    def ssh(self) -> tuple[str, int] | None:
        """Where its SSH is: the host's end of its user-mode network."""
        match = re.search(r"hostfwd=tcp:127\.0\.0\.1:(\d+)-:22", " ".join(self.line))
        return ("127.0.0.1", int(match[1])) if match else None


class Watch:
    """Looks at all guests' processes every few milliseconds, in a thread. A context manager."""

    def __init__(self) -> None:
        self.lives: dict[int, Life] = {}
        self._others: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.widest_s = 0.0  # between two looks: nothing shorter can be told

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def alive(self) -> list[Life]:
        return [life for life in list(self.lives.values()) if not life.ended]

    def _run(self) -> None:
        before = time.monotonic()
        looks = 0
        while not self._stop.wait(PERIOD_S):
            if looks % _LOOKS == 0:
                self._find()
            looks += 1
            for life in self.alive:
                self._see(life)
            now = time.monotonic()
            self.widest_s, before = max(self.widest_s, now - before), now

    def _find(self) -> None:
        there = set(pids())
        for pid in there - self.lives.keys() - self._others:
            line = words(pid)
            now = time.monotonic()
            if is_guest(line):
                self.lives[pid] = Life(pid, line, now, now)
            elif line and "qemu" not in line[0] and "python" not in line[0]:
                self._others.add(pid)  # not one that is about to become a QEMU

    def _see(self, life: Life) -> None:
        if state(life.pid) in ("", "Z", "X"):
            life.ended = True
            return
        if not life.threads:
            for task in (_PROC / str(life.pid) / "task").glob("*"):
                if text(task / "comm").startswith("CPU "):
                    life.threads.append(task / "schedstat")
        used = 0
        for thread in life.threads:
            used += int((text(thread).split() or ["0"])[0])
        now = time.monotonic()
        if life.used_ns >= 0 and used > life.used_ns:
            life.moved.append((now, used - life.used_ns))
        life.used_ns, life.seen = max(used, life.used_ns), now


LEAST_NS = 50_000
"""A vCPU thread that is woken although its guest is stopped uses less in one look."""

_AT_WORK = 4
_WHILE_S = 0.1


def running(life: Life) -> list[float]:
    """The moments up to which the guest has been seen to run in this process. A process that still waits for
    a state has a vCPU thread as well, which works for a look or two at a time: it runs from the first moment
    on at which it keeps on working."""
    moments = [moment for moment, used in life.moved if used > LEAST_NS]
    at_work, while_s = round(_AT_WORK * PACE.factor), paced(_WHILE_S)
    for first, last in zip(moments, moments[at_work - 1 :], strict=False):
        if last - first <= while_s:
            return [moment for moment in moments if moment >= first]
    return []


@dataclass(frozen=True)
class Standstill:
    """From the last sign of the guest's running to the next. ended: it did not come; its process ended."""

    since: float
    until: float
    ended: bool = False

    @property
    def length(self) -> float:
        return self.until - self.since


def silences(lives: list[Life], used_ns: int, least_s: float = 0.15) -> list[float]:
    """How long at a time no vCPU of the guest used `used_ns` in one look, in whatever process. Where one ends
    before it has been seen to keep on working, or to work at all, this still tells a pause."""
    moments = [moment for life in lives for moment, used in life.moved if used >= used_ns]
    moments = sorted([*moments, *(life.seen for life in lives if life.ended)])
    return [other - one for one, other in itertools.pairwise(moments) if other - one > least_s]


def standstills(lives: list[Life], until: float, least_s: float = 0.15) -> list[Standstill]:
    """When none of a guest's processes ran for longer than `least_s`, up to the moment `until`, or to the end
    of the last of them that has run. What lies before the first sign of life is its start."""
    ran = [life for life in lives if running(life)]
    moments = sorted(itertools.chain.from_iterable(map(running, ran)))
    if not moments:
        return []
    there = [life for life in ran if not life.ended]
    found = [Standstill(one, other) for one, other in itertools.pairwise(moments) if other - one > least_s]
    end = until if there else max(life.seen for life in ran)
    if end - moments[-1] > least_s:
        found.append(Standstill(moments[-1], end, ended=not there))
    return found
