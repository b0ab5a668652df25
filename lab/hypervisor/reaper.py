"""Reaps orphans, above all the QEMU processes that libvirt's embedded driver has started, when they end.

libvirt starts QEMU as an orphan, and reads its end from kill(2), which succeeds on a zombie. The reaper of
orphans is init, which looks only every second or two in many containers, and never in some; so long libvirt
waits for each guest that ends. So this process becomes the reaper of its orphans (prctl(2),
PR_SET_CHILD_SUBREAPER). Guests outlive it all the same: init is their parent from its end on.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from pathlib import Path

from lab.process import runner
from lab.threads import Worker

_SUBREAPER = 36  # linux/prctl.h
_NOBODY_S = 0.05
_ANOTHERS_S = 0.01
"""How long to wait, in seconds, when there is no child, and when a child that has ended is not ours to
reap."""

_STARTED: list[Worker] = []


def start() -> None:
    """Reap ended orphans until this process ends. It may be called repeatedly. Does nothing where the
    kernel refuses."""
    if _STARTED or ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0):
        return
    _STARTED.append(Worker(target=_run, name="reaper", daemon=True))
    _STARTED[0].start()


def _run() -> None:
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        except ChildProcessError:
            time.sleep(_NOBODY_S)
            continue
        if ended is not None and not any(_reap(pid) for pid in {ended.si_pid, *_children()}):
            time.sleep(_ANOTHERS_S)


def _reap(pid: int) -> bool:
    """Reap a process if it is an orphan that has ended. Returns whether it was."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    name, _, rest = stat.partition(b"(")[2].rpartition(b")")
    state, _parent, _group, session = rest.split()[:4]
    # libvirt's own children, for which it waits, are in our session, or are the first half of its double fork
    # and have one of our threads' names still.
    if state != b"Z" or int(session) == os.getsid(0) or name in _own_names():
        return False
    with runner.starting, contextlib.suppress(ChildProcessError):
        return pid not in runner.started and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
    return False


def _own_names() -> set[bytes]:
    found: set[bytes] = set()
    for path in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):
            found.add(path.read_bytes().rstrip(b"\n"))
    return found


def _children() -> set[int]:
    """The children of this process; none on a kernel without CONFIG_PROC_CHILDREN."""
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found.update(int(pid) for pid in path.read_bytes().split())
    return found
