"""Sets a guest's clock where there is no Python: by date(1), which a waiting shell starts.

Every date(1) sets whole seconds, and not all set less, so the host sends its line when its own clock begins a
second. What the line and the start of date(1) take is left as an error. It is measured and taken off the next
try: then what is left is how much that time varies, some milliseconds.
"""

from __future__ import annotations

import time

from lab.core.clock import Interval, intersect
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.guest import program
from lab.guest.timesync import push
from lab.guest.timesync.line_client import START_S
from lab.guest.timesync.push import PushChannel

GOOD_NS = 3 * NS_PER_MS
MOST = 4
READINGS = 4
AHEAD_NS = 50 * NS_PER_MS
"""The least time until the second that is waited for: the line has to be ready before it."""


def command() -> str:
    """The shell command that starts the program in the guest."""
    return program.shell_command("shell_setter")


def set_clock(channel: PushChannel) -> Interval:
    """Set the guest's clock to the host's, to some milliseconds. Returns the bounds of the remaining offset,
    guest minus host. GuestError when that fails."""
    push.forget(channel)
    early_ns = 0
    for _ in range(MOST):
        _set(channel, early_ns)
        left = offset(channel)
        # A guest whose clock is read in whole seconds shows nothing better.
        if abs(left.mid_ns) <= max(GOOD_NS, left.half_width_ns):
            break
        early_ns -= left.mid_ns
    return left


def offset(channel: PushChannel) -> Interval:
    """The guest's REALTIME minus the host's, by some readings."""
    readings = [push.read(channel) for _ in range(READINGS)]
    return intersect(readings) or readings[-1]


def _set(channel: PushChannel, early_ns: int) -> None:
    """Have the guest set its clock to a whole second, `early_ns` before that begins."""
    now_ns = channel.now().real_ns
    second = (now_ns + early_ns + AHEAD_NS) // NS_PER_S + 1
    time.sleep(max(0, second * NS_PER_S - early_ns - now_ns) / NS_PER_S)
    push.answer(channel, push.request(channel, "w", str(second)), START_S)
