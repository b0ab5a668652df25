"""systemd-timesyncd, told to poll at the resume: the host has the guest's clock touched.

timesyncd has no command for it. But it polls at once when somebody else sets the clock
(core/timesync/timesyncd.py), so a program that waits in the guest sets it to where it is, or some
microseconds behind.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from lab.core.clock import Interval
from lab.core.mechanism import ResyncMechanism
from lab.core.units import NS_PER_MS
from lab.errors import GuestError, GuestGone
from lab.guest.timesync import push
from lab.guest.timesync.access import GuestAccess
from lab.guest.timesync.daemon import DaemonResync, TimeDaemon
from lab.guest.timesync.host_actions import REGAIN_S, Acting
from lab.guest.timesync.line_client import PATIENCE_S, START_S, Line


class ClockTouch(Acting):
    """Sets the guest's clock to where it is after each resume, over a connection of its own."""

    def __init__(self, access: GuestAccess) -> None:
        super().__init__(REGAIN_S + PATIENCE_S)
        self._access = access
        self._line: Line | None = None

    def open(self) -> None:
        """GuestError when the guest does not answer."""
        self._line = Line(self._access.ssh().again(START_S), push.command()).open()

    def resumed(self) -> None:
        self._start(self._touch)

    def _touch(self) -> str:
        line, clock = self._line, self._access.clock
        if line is None:
            return "the clock was not touched: its program is not there"
        begun, deadline = clock.now(), time.monotonic() + REGAIN_S
        try:
            _, done = push.answer(line, push.request(line, "c"))
        except GuestGone:
            raise
        except GuestError:
            line.again(deadline)
            _, done = push.answer(line, push.request(line, "c"))
        return f"the clock was touched {(done.raw_ns - begun.raw_ns) / NS_PER_MS:.0f} ms after the resume"

    def close(self) -> None:
        self.outcome()
        line, self._line = self._line, None
        if line is not None:
            line.close()


class TimesyncdResync(DaemonResync):
    """ports.Resync: timesyncd, and the touch."""

    def __init__(
        self, mechanism: ResyncMechanism, services: Sequence[TimeDaemon], access: GuestAccess
    ) -> None:
        super().__init__(mechanism, services, access)
        self._touch = ClockTouch(access)

    def install(self, config: str, rtc: Interval | None = None) -> TimesyncdResync:
        super().install(config, rtc)
        self._touch.open()
        return self

    def resumed(self) -> None:
        self._touch.resumed()

    def outcome(self) -> str:
        return f"{self._touch.outcome()}; {super().outcome()}"

    def remove(self) -> None:
        self._touch.close()
        super().remove()
