"""The program in a guest that reads and sets its clock for the host, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lab.core.depth import Depth
from lab.guest.timesync import push, shell_setting
from lab.guest.timesync.access import GuestAccess
from lab.guest.timesync.line_client import Line
from lab.guest.timesync.push import PushChannel


@contextmanager
def setter(access: GuestAccess) -> Iterator[PushChannel]:
    """A context with a running program: the one that waits in a guest of a golden state, or one that is
    started over the caller's connection, in Python or, where there is none, in shell."""
    if (waiting := access.clock_line()) is not None:
        yield waiting
        return
    line = Line(access.ssh(), shell_setting.command() if access.depth is Depth.SHELL else push.command())
    try:
        yield line.open()
    finally:
        line.close(leave_connection=True)
