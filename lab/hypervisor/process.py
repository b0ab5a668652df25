"""A guest's QEMU process on this host: finds it, holds it by a pidfd, stops and continues it, reads its CPU
time.

All signals go through a pidfd that was opened before the process was identified a second time, so that a
signal never reaches another process that has reused the pid.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from lab.errors import HypervisorError
from lab.hypervisor.freezer import Freezer
from lab.ports import Clock

_PROC = Path("/proc")
_POLL_NS = 200_000
_VCPU_THREADS = ("CPU ", "ALL CPUs")
"""How names of QEMU's vCPU threads begin with `-name …,debug-threads=on`, which libvirt always sets."""

_MONITOR_THREADS = ("IO mon_iothread",)
"""The thread that reads and writes for QEMU's monitors; the main thread obeys (QEMU, monitor/monitor.c)."""


def set_oom_score(score: int) -> None:
    """Set how readily the kernel kills this process, and those that it starts from now on, when memory runs
    out; -1000: never (proc_pid_oom_score_adj(5)). Does nothing when that is not permitted."""
    with contextlib.suppress(OSError):
        (_PROC / "self/oom_score_adj").write_text(str(score), encoding="ascii")


@contextlib.contextmanager
def first_of_all() -> Iterator[None]:
    """The calling thread runs before all ordinary threads of the host meanwhile (sched(7), SCHED_RR), and
    before those that come first. What it starts does not. It must not compute for long. Does nothing when
    that is not permitted (CAP_SYS_NICE or RLIMIT_RTPRIO)."""
    before = _come_first(0, 3)
    try:
        yield
    finally:
        if before is not None:
            _set_schedule(0, before)


_Schedule = tuple[int, os.sched_param]
"""A thread's policy and priority (sched(7))."""


def _come_first(thread: int, priority: int) -> _Schedule | None:
    """Give a thread this real-time priority. A thread id of 0: the calling thread's. Returns how it was
    scheduled before; None when nothing was changed, because it is not permitted, or it has such a priority.
    """
    with contextlib.suppress(OSError):
        policy, param = os.sched_getscheduler(thread), os.sched_getparam(thread)
        if policy & ~os.SCHED_RESET_ON_FORK not in (os.SCHED_RR, os.SCHED_FIFO):
            rr = os.SCHED_RR | os.SCHED_RESET_ON_FORK
            os.sched_setscheduler(thread, rr, os.sched_param(priority))
            return policy, param
    return None


def _set_schedule(thread: int, schedule: _Schedule) -> None:
    """Schedule a thread so again."""
    for flag in (0, os.SCHED_RESET_ON_FORK):  # without CAP_SYS_NICE the flag stays, which has no effect
        with contextlib.suppress(OSError):
            os.sched_setscheduler(thread, schedule[0] | flag, schedule[1])
            return


def _ids(tasks: list[Path]) -> list[int]:
    return [int(task.name) for task in tasks]


class QemuProcess:
    """One QEMU process, held by a pidfd. Close it, or use it in a `with` block."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self._pidfd = pidfd
        self._found: dict[tuple[str, ...], list[Path]] = {}
        self._before: dict[int, _Schedule] = {}  # of threads that come first

    @classmethod
    def find(cls, uuid: str, where: str, but: int = 0) -> QemuProcess:
        """The process that runs the domain with this uuid, other than process `but`. HypervisorError when
        there is not exactly one."""
        found = [pid for pid in _pids() if pid != but and _carries(_arguments(pid), uuid)]
        if len(found) == 1:
            process = cls._open(found[0])
            if process is not None and _carries(_arguments(found[0]), uuid):
                return process
        raise HypervisorError(
            "its QEMU process is not on this host"
            if not found
            else f"several QEMU processes claim to run it: {', '.join(map(str, found))}",
            where=where,
        )

    @classmethod
    def open(cls, pid: int, argument: str) -> QemuProcess | None:
        """Process `pid` if it is a QEMU with `argument` somewhere on its command line, else None."""
        process = cls._open(pid)
        if process is None:
            return None
        arguments = _arguments(pid)
        if arguments and "qemu" in arguments[0] and any(argument in each for each in arguments):
            return process
        process.close()
        return None

    @classmethod
    def _open(cls, pid: int) -> QemuProcess | None:
        try:
            return cls(pid, os.pidfd_open(pid))
        except ProcessLookupError:
            return None

    @property
    def pidfd(self) -> int:
        """The pidfd. Only this object closes it."""
        return self._pidfd

    def close(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def __enter__(self) -> QemuProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """False from the moment the process has ended, reaped or not."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return not poll.poll(0)

    def kill(self, wait_s: float) -> None:
        """Send SIGKILL and wait until the process is gone. HypervisorError when it is not gone within
        `wait_s` seconds, because it hangs in the kernel."""
        freezer = self._freezer()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        if freezer is not None:
            freezer.thaw()  # version 1 keeps the signal until then
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(round(wait_s * 1000)):
            raise HypervisorError(f"QEMU process {self.pid} was killed and does not end")
        if freezer is not None:
            freezer.leave()

    def may_signal(self) -> bool:
        """Whether this user may send it signals; True when it has ended."""
        try:
            signal.pidfd_send_signal(self._pidfd, 0)
        except PermissionError:
            return False
        except ProcessLookupError:
            pass
        return True

    def owner(self) -> str:
        """The name of the user that it runs as."""
        try:
            number = (_PROC / str(self.pid)).stat().st_uid
        except OSError:
            return "another user"
        try:
            return pwd.getpwuid(number).pw_name
        except KeyError:
            return f"user {number}"

    def send_stop(self) -> None:
        """Send SIGSTOP, which stops thread by thread; see wait_stopped. ProcessLookupError when it is
        gone."""
        signal.pidfd_send_signal(self._pidfd, signal.SIGSTOP)

    def send_continue(self) -> None:
        """Send SIGCONT, and thaw a cgroup of the lab's that it is in. ProcessLookupError when the process is
        gone."""
        if (freezer := self._freezer()) is not None:
            freezer.thaw()
        signal.pidfd_send_signal(self._pidfd, signal.SIGCONT)

    def leave_freezer(self) -> None:
        """Take it out of a cgroup of the lab's that it is in, running, and remove that."""
        if (freezer := self._freezer()) is not None:
            freezer.leave()

    def _freezer(self) -> Freezer | None:
        with contextlib.suppress(HypervisorError):
            return Freezer.of(self.pid) if self._pidfd >= 0 and self.alive else None
        return None

    def is_stopped(self) -> bool:
        """Whether every thread is in state T (stopped by a signal), or it is in a cgroup of the lab's that is
        frozen, or is about to be."""
        if (freezer := self._freezer()) is not None and freezer.is_ordered:
            return True
        states = [_state(task) for task in self._tasks()]
        return bool(states) and all(state in ("T", "t", "") for state in states)

    def wait_stopped(self, clock: Clock, deadline_raw_ns: int) -> bool:
        """Wait until every thread is stopped, at most until CLOCK_MONOTONIC_RAW `deadline_raw_ns`. Returns
        whether it is."""
        while not self.is_stopped():
            now = clock.now().raw_ns
            if now >= deadline_raw_ns or not self.alive:
                return self.is_stopped()
            clock.sleep_until(now + _POLL_NS)
        return True

    def come_first(self, monitor: bool, vcpus: bool = False) -> None:
        """Have the threads that obey the monitor, and the vCPUs, run before all ordinary threads of the host,
        or no longer; see first_of_all. vCPUs that are not about to stop would take a whole CPU each."""
        wanted = {self.pid: 2, **dict.fromkeys(_ids(self._threads(_MONITOR_THREADS)), 2)} if monitor else {}
        wanted |= dict.fromkeys(_ids(self.vcpu_threads()), 1) if vcpus else {}
        for thread in self._before.keys() - wanted.keys():
            _set_schedule(thread, self._before.pop(thread))
        for thread in wanted.keys() - self._before.keys():
            if (before := _come_first(thread, wanted[thread])) is not None:
                self._before[thread] = before

    @property
    def arguments(self) -> list[str]:
        """Its command line."""
        return _arguments(self.pid)

    @property
    def file_table(self) -> int:
        """The size of the process's table of open files (proc(5), status, FDSize); 0: unknown."""
        for line in _text(_PROC / str(self.pid) / "status").splitlines():
            if line.startswith("FDSize:"):
                return int(line.split()[1])
        return 0

    def cpu_time_ns(self) -> int:
        """CPU time of the vCPU threads in nanoseconds (of all threads where none is named as a vCPU):
        /proc/PID/task/TID/schedstat, else utime + stime in clock ticks."""
        return sum(_cpu_time_ns(task) for task in self.vcpu_threads() or self._tasks())

    def cpu_wait_ns(self) -> int:
        """How long all of its threads together have waited for a CPU while ready to run, in ns; see
        core.timeline.CpuWait. 0 when it has ended, or the kernel lacks CONFIG_SCHED_INFO."""
        return sum(_schedstat(task)[1] for task in self._tasks())

    def vcpu_threads(self) -> list[Path]:
        """The vCPU threads' folders in /proc."""
        return self._threads(_VCPU_THREADS)

    def _threads(self, names: tuple[str, ...]) -> list[Path]:
        """The folders of the threads whose names begin so. They are looked for until there are some."""
        self._found[names] = self._found.get(names) or [
            task for task in self._tasks() if _text(task / "comm").startswith(names)
        ]
        return self._found[names]

    def _tasks(self) -> list[Path]:
        with contextlib.suppress(OSError):
            return sorted((_PROC / str(self.pid) / "task").iterdir())
        return []


def kill_helpers(path: str) -> None:
    """Send SIGKILL to the libvirt_iohelper processes that write to `path`; libvirt starts one for each
    save."""
    for pid in _pids():
        arguments = _arguments(pid)
        if arguments[0].endswith("/libvirt_iohelper") and path in arguments:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


class Running:
    """A lower bound of how long a guest has run since this object was made, or again() was called: the most
    CPU time that one of its vCPU threads has used. The kernel's value may be a tick behind, never ahead
    (proc(5), schedstat)."""

    def __init__(self, process: QemuProcess) -> None:
        self._threads = process.vcpu_threads()
        self.again()

    def again(self) -> None:
        """Count from now on."""
        self._used = {task: _schedstat(task)[0] for task in self._threads}

    def so_far_ns(self) -> int:
        return max((_schedstat(task)[0] - used for task, used in self._used.items()), default=0)


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _arguments(pid: int) -> list[str]:
    return _text(_PROC / str(pid) / "cmdline").split("\0")


def _carries(arguments: list[str], uuid: str) -> bool:
    return any(a == "-uuid" and b == uuid for a, b in itertools.pairwise(arguments))


def _stat(task: Path) -> list[str]:
    """The fields of /proc/…/stat after the command's name, which may contain spaces (proc(5))."""
    return _text(task / "stat").rpartition(")")[2].split()


def _state(task: Path) -> str:
    fields = _stat(task)
    return fields[0] if fields else ""


def _schedstat(task: Path) -> tuple[int, int]:
    """A thread's nanoseconds on a CPU, and of waiting for one; zeros when the thread has ended."""
    # Read on the way to a resume, by one call: each may have to wait for other threads of this process.
    try:
        file = os.open(task / "schedstat", os.O_RDONLY)
    except OSError:
        return 0, 0
    try:
        fields = os.read(file, 128).split()
    except OSError:
        return 0, 0
    finally:
        os.close(file)
    return (int(fields[0]), int(fields[1])) if len(fields) > 1 else (0, 0)


def _cpu_time_ns(task: Path) -> int:
    if used := _schedstat(task)[0]:
        return used
    fields = _stat(task)
    if len(fields) < 13:
        return 0
    return (int(fields[11]) + int(fields[12])) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))
