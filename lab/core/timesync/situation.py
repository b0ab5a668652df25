"""The offset that a pause leaves, as input of every mechanism's rules."""

from __future__ import annotations

from dataclasses import dataclass

from lab.core.clock import Interval
from lab.core.quantities import format_about
from lab.core.units import NS_PER_MS

SOURCE_NS = 30 * NS_PER_MS
"""How close to the host's time a program in the guest gets by NTP over the lab's networks: half of the
longest round trips observed under TCG on busy cores (50 ms), and the error of its own filter. An estimate,
not a guarantee of any program."""


@dataclass(frozen=True)
class Situation:
    """A pause and its consequences. lost: by how much the pause has put the guest's REALTIME behind,
    nanoseconds, not negative. pause: its length. watch_ns: the length of the watch after the resume; None
    when it is not given. before: the offset (guest minus host) before the pause; None, not known, counts as
    in time. cut: the pause cut the guest's network connections. migrated: the guest goes on in a process that
    has loaded its state."""

    lost: Interval
    pause: Interval
    watch_ns: int | None = None
    before: Interval | None = None
    cut: bool = False
    migrated: bool = False

    @property
    def stopped(self) -> bool:
        """True when the guest's clocks may have stood still."""
        return self.lost.high_ns > 0

    @property
    def at_resume(self) -> Interval:
        """The offset at the resume."""
        return -self.lost if self.before is None else self.before - self.lost

    @property
    def off(self) -> Interval:
        """The magnitude of the offset at the resume."""
        return Interval(self.at_resume.smallest_ns, self.at_resume.largest_ns)

    @property
    def right(self) -> bool:
        """True when there is nothing to correct: the clock ran on, and was right before."""
        return not self.stopped and self.off.low_ns <= SOURCE_NS

    @property
    def side(self) -> str:
        """The offset at the resume in words: "behind by 5 s"."""
        middle = self.at_resume.mid_ns
        return f"{'ahead' if middle > 0 else 'behind'} by {format_about(abs(middle))}"

    def until(self, within: Interval) -> str:
        """ ", within 16 s", or a note that the watch ends before."""
        text = f", within {format_about(within.high_ns)}"
        if self.watch_ns is not None and within.high_ns > self.watch_ns:
            return f"{text} (watched for {format_about(self.watch_ns)})"
        return text
