"""A time-sync set-up as it is found in a guest."""

from __future__ import annotations

from dataclasses import dataclass, field

from lab.core.mechanism import ResyncMechanism

SILENT = "silent"
"""Status key of a mechanism that did not answer when it was asked: with what words it was given up."""


@dataclass(frozen=True)
class Setup:
    """A time-sync set-up as it was found in a guest, before the freeze.

    program: its name and version, as it says itself. config: the text of its configuration, as it lies in the
    guest. server_fault: what is wrong with its time server after the resume, on purpose; "" when nothing is.
    status: what it said of its state then, by the names that its rules use (each mechanism's module in
    core.timesync says which). rtc_stops: the guest's RTC stands still with it (RTC track=guest).
    """

    mechanism: ResyncMechanism
    program: str = ""
    config: str = ""
    status: dict[str, str] = field(default_factory=dict)
    rtc_stops: bool = False
    server_fault: str = ""
