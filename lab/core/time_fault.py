"""A deliberate fault of the host's NTP server."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lab.core.units import format_duration


class TimeFaultKind(StrEnum):
    """The kinds of faults of an NTP server, beside a wrong time."""

    SILENT = "silent"  # none comes
    LATE = "late"
    UNSYNCHRONISED = "unsynchronised"  # it says that it has no time to give


@dataclass(frozen=True)
class TimeFault:
    """A temporary, deliberate fault of the host's NTP server, from just before each freeze until lasts_ns
    after the resume. late_ns: the delay of each answer."""

    kind: TimeFaultKind
    lasts_ns: int
    late_ns: int = 0

    @property
    def text(self) -> str:
        """ "silent for 10 s after the resume"."""
        by = f" by {format_duration(self.late_ns)}" if self.late_ns else ""
        return f"{self.kind}{by} for {format_duration(self.lasts_ns)} after the resume"
