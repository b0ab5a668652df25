"""The metadata service as a host of a fleet has it: the controller's, for the guests that are here.

It is used in place of MetadataService and its announcer.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Self

from lab.controller.meeting import Meeting
from lab.core.plan import Announcement, CycleSpec
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.model import Event, Happening, State
from lab.ports import Announcer

CONNECT_S = 10.0


class FleetService:
    """A context manager. Entering raises MachineError when the controller has no service for these guests.
    trouble: see MetadataService; the controller has its own."""

    trouble = ""

    def __init__(self, meeting: Meeting, instances: Sequence[InstanceInfo]) -> None:
        self._meeting, self._instances = meeting, instances
        self._port = 0
        self._secrets: Mapping[str, str] = {}
        self.announcer = FleetAnnouncer(meeting)

    def __enter__(self) -> Self:
        self._port, self._secrets = self._meeting.serve(self._instances)
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def connect(self, guest: str) -> socket.socket:
        """A new connection to the guest's listener. OSError when there is none: the link was cut."""
        made = socket.create_connection(("127.0.0.1", self._port), CONNECT_S)
        try:
            made.sendall(self._secrets[guest].encode())
            made.settimeout(None)
        except OSError:
            made.close()
            raise
        return made

    def has_asked(self, _guest: str) -> bool:
        """True: the controller, which knows, waits for all guests."""
        return True


class FleetAnnouncer(Announcer):
    """The controller publishes the events, with those of guests on other hosts, and has them in its own
    history."""

    def __init__(self, meeting: Meeting) -> None:
        self._meeting, self._state = meeting, State.SCHEDULED

    def announce(
        self,
        guests: Sequence[str],  # noqa: ARG002 - ports.Announcer's
        spec: Announcement,  # noqa: ARG002 - ports.Announcer's
        cycle: CycleSpec,  # noqa: ARG002 - ports.Announcer's
    ) -> tuple[str, ...]:
        """Returns when the guests may be frozen, or the events were cancelled. MachineError when the
        controller says neither."""
        self._state = State.STARTED if self._meeting.announced() else State.CANCELLED
        return ()

    def published(self, events: Sequence[str]) -> Sequence[Event]:  # noqa: ARG002 - ports.Announcer's
        return ()

    def state(self, events: Sequence[str]) -> State:  # noqa: ARG002 - ports.Announcer's
        return self._state

    def cancel(self, events: Sequence[str]) -> None:
        """Only the controller cancels."""

    def all_clear(self, events: Sequence[str]) -> None:  # noqa: ARG002 - ports.Announcer's
        self._meeting.back()

    def happened(self) -> Sequence[Happening]:
        return ()
