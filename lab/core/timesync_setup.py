"""The time-sync set-up found in a guest."""

from __future__ import annotations

from dataclasses import dataclass, field

from lab.core.mechanism import ResyncMechanism

SILENT = "silent"
"""Status key of a mechanism that did not answer. Its value: the error."""

PUSH_CHANNEL, PUSH_SERIAL, PUSH_SSH = "push_channel", "virtio-serial", "SSH"
"""Status key of a push, and its two values: the channel to the program in the guest."""


WINDOWS = "mswindows"
"""guest-get-osinfo's id of Windows (QEMU, qga/qapi-schema.json)."""

WINDOWS_NAME = "windows"
"""Status key of the agent's mechanisms in a Windows guest. Its value: what the agent calls it."""


@dataclass(frozen=True)
class Setup:
    """The time-sync set-up found in a guest before the freeze.

    program: its name and version, from the program itself. config: the text of its configuration in the
    guest. server_fault: the deliberate fault of its time server after the resume; "" without one. status: its
    state, by the keys that its rules use (documented in each mechanism's module in core.timesync). rtc_stops:
    the guest's RTC stands still with it (RTC track=guest).
    """

    mechanism: ResyncMechanism
    program: str = ""
    config: str = ""
    status: dict[str, str] = field(default_factory=dict)
    rtc_stops: bool = False
    server_fault: str = ""
