"""The metadata service of a fleet over hosts: one state machine, here, and a listener on every host.

A guest asks 169.254.169.254 as on one host, and its connection comes to the child on its host. From there it
goes through a port of the host's loopback, which the controller's SSH connection forwards to here. Guests on
QEMU's user-mode network reach that port as well, so a connection begins with a secret that stands for the
guest and that only the child has.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import paramiko

from lab.controller import EventLifecycle
from lab.core.announcement import ENABLED_WITHIN_NS, answers_of, rules_of
from lab.core.clock import Stamp
from lab.core.history import HistoryEvent, ServiceFailed
from lab.core.plan import Announcement, Plan
from lab.core.scheduled.instance import InstanceInfo
from lab.events.service import MetadataService
from lab.guest.channel_relay import ChannelRelay
from lab.ports import Clock, View
from lab.threads import Worker

SECRET_BYTES = 32
"""Of the beginning of each connection: 128 bits as hexadecimal digits."""

PREFACE_S = 10.0
LOOK_NS = 20_000_000


class Journalled:
    """A ports.Journal: what happens here, for the merged history. entries: with the time of each."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.entries: list[tuple[HistoryEvent, Stamp]] = []

    def append(self, event: HistoryEvent) -> None:
        self.entries.append((event, self._clock.now()))


class FleetEvents:
    """A context manager: the service, for guests on all hosts. journal: of its announcements."""

    def __init__(
        self, plan: Plan, instances: Sequence[InstanceInfo], clock: Clock, view: View, folder: Path
    ) -> None:
        self._plan, self._clock, self._view = plan, clock, view
        self.spec = plan.cycle.announce or Announcement()
        self.journal = Journalled(clock)
        self._stack = ExitStack()
        self._service = MetadataService(instances, rules_of(self.spec), clock, folder, answers_of(self.spec))
        self._lifecycle: EventLifecycle | None = None

    def __enter__(self) -> FleetEvents:
        self._stack.enter_context(self._service)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        if self._service.trouble:
            self._view.note(f"metadata service: {self._service.trouble}")

    def listener(self, guests: Sequence[str]) -> FleetListener:
        """What takes the connections of one host's guests."""
        listener = FleetListener({name: partial(self.connect, name) for name in guests})
        self._stack.callback(listener.close)
        return listener

    def connect(self, guest: str) -> socket.socket:
        """A new connection to a guest's listener. KeyError: no such guest."""
        return self._service.connect(guest)

    def silent(self, guests: Sequence[str], ended: Callable[[str], bool]) -> str:
        """The first of these guests whose handler has not asked for events in time; "" when all have, or
        there are no handlers. ended: whether a guest has gone."""
        until = self._clock.now().raw_ns + ENABLED_WITHIN_NS
        while self.spec.handler:
            silent = [name for name in guests if not self._service.has_asked(name) and not ended(name)]
            if not silent or self._clock.now().raw_ns > until:
                return silent[0] if silent else ""
            self._clock.sleep_until(self._clock.now().raw_ns + LOOK_NS)
        return ""

    def announce(self, index: int, guests: Sequence[str], ended: Callable[[str], bool]) -> bool:
        """Publish the events of a cycle of these guests, and wait until they may be frozen. False when the
        events were cancelled. See EventLifecycle."""
        self.over()
        expect = self._plan.expectations
        self._lifecycle = EventLifecycle(
            self._service.announcer,
            self._clock,
            self.journal,
            self._view,
            index=index,
            guests=guests,
            tolerance_ns=expect.tolerance_ns,
            hold_ns=expect.hold_ns,
            ended=ended,
        )
        return self._lifecycle.announce(self.spec, self._plan.cycle)

    def over(self, cut_off: Sequence[str] = ()) -> None:
        """End the events of the cycle: its guests are back and in time. Later, note what they still ask.
        cut_off: hosts whose guests cannot reach the service any more."""
        if self._lifecycle is not None:
            self._lifecycle.over()
        for host in cut_off:
            trouble = f"cannot be reached from the guests on {host}: its link was cut"
            self.journal.append(ServiceFailed(trouble, host))

    def ended(self) -> list[tuple[HistoryEvent, Stamp]]:
        """All that has happened, at the end of the run."""
        self.over()
        return self.journal.entries


class FleetListener:
    """Takes connections that are forwarded from a host. connects: for each guest a new socket to its listener
    of the service. secrets: the beginning of each guest's connections."""

    def __init__(self, connects: Mapping[str, Callable[[], socket.socket]]) -> None:
        self.secrets = {name: secrets.token_hex(SECRET_BYTES // 2) for name in connects}
        self._connects = {self.secrets[name].encode(): connect for name, connect in connects.items()}
        self._relay = ChannelRelay(_refused, "fleet-events")

    def take(self, channel: paramiko.Channel, *_: Any) -> None:
        """Take a connection. Called in paramiko's thread, which must not wait."""
        Worker(target=self._admit, args=(channel,), name="fleet-connection", daemon=True).start()

    def _admit(self, channel: paramiko.Channel) -> None:
        begin = b""
        with suppress(OSError, EOFError):
            channel.settimeout(PREFACE_S)
            while len(begin) < SECRET_BYTES and (data := channel.recv(SECRET_BYTES - len(begin))):
                begin += data
        connect = self._connects.get(begin)  # of 128 bits none is guessed by the time that this takes
        if connect is None:
            channel.close()
        else:
            self._relay.add(channel, connect)

    def close(self) -> None:
        self._relay.close()


def _refused() -> socket.socket:
    raise ConnectionRefusedError
