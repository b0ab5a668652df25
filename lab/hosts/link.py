"""An SSH connection to a host: freezelab is run there, and the host's clock is read.

A host's key has to be known already, and a link that is cut is noticed after LOST_S, whatever waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import inf
from statistics import median_low
from typing import Self, TypeVar

from paramiko import Channel

from lab.core.drift_study import DriftPoint, point
from lab.core.timeline import Reading
from lab.errors import FreezelabError, GuestError, MachineError
from lab.guest.probe import GuestProbe
from lab.guest.ssh import SSH, Result
from lab.guest.ssh_route import SshRoute
from lab.hosts.hosts_file import HostEntry
from lab.process.clock import HostClock
from lab.record.hosts_check import HostOffset
from lab.session.parallel import together

AT_ONCE = 16
CONNECT_S = 10.0
LOST_S = 15
"""Seconds until a connection on which nothing is acknowledged is given up."""

READINGS = 30
"""Of a clock. At a round trip of 1 ms they take 30 ms, in which two clocks drift apart by a microsecond."""

NO_PROGRAM = "install it there, or write its path as freezelab: in the hosts file"
_NOT_FOUND = (126, 127)  # sh(1)

Answer = TypeVar("Answer")


class SshLink:
    """A context manager. FreezelabError, with the host, when it is not reached."""

    def __init__(self, entry: HostEntry, clock: HostClock, timeout_s: float = CONNECT_S) -> None:
        self.entry, self._clock, self._timeout_s = entry, clock, timeout_s
        self._ssh: SSH | None = None

    def __enter__(self) -> Self:
        with as_host(self.entry.name):
            route = SshRoute(self.entry.name, self.entry.ssh, LOST_S)
            try:
                self._ssh = SSH.connect(route, self._clock, self._timeout_s)
            except GuestError as error:
                error.hint = error.hint or f"is it up, and does ssh {self.entry.ssh.host} reach it from here?"
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._ssh is not None and self._ssh.alive

    def close(self) -> None:
        """Cut it. Who waits on it gets an error. Safe from any thread."""
        if self._ssh is not None:
            self._ssh.close()

    def freezelab(self, arguments: Sequence[str], timeout_s: float) -> Result:
        """Run freezelab there to its end. MachineError when there is none, or the link is lost; the command
        may go on there."""
        with as_host(self.entry.name):
            try:
                done = self.connection().run(self.entry.command(arguments), timeout_s)
            except GuestError as error:
                # The command is long, and whoever reads this has not written it.
                what = f"freezelab {arguments[0]}: {error.what.rpartition(': ')[2]}"
                hint = "when the link is back, freezelab hosts recover frees what was left there"
                raise MachineError(what, hint=error.hint or hint) from error
        if done.status in _NOT_FOUND:
            last = (done.err.strip().splitlines() or [f"exit status {done.status}"])[-1]
            raise MachineError(
                f"there is no freezelab: {last}",
                where=f"host {self.entry.name}",
                hint=NO_PROGRAM,
            )
        return done

    def offset(self) -> HostOffset:
        """The host's REALTIME minus this machine's, read as a guest's is, with four stamps a reading. It ends
        the connection. GuestError when the clock cannot be read."""
        with self.probe() as probe:
            readings = clock_readings(probe)
        trips = [reading.round_trip_ns for reading in readings]
        bounds = offset_point(readings, self.entry.name).real.offset
        return HostOffset(bounds.low_ns, bounds.high_ns, min(trips), median_low(trips), len(readings))

    @contextmanager
    def probe(self) -> Iterator[GuestProbe]:
        """What reads the host's clocks, over this connection, which it ends."""
        with as_host(self.entry.name), ExitStack() as stack:
            try:
                probe = stack.enter_context(GuestProbe(self.entry.name, self.connection))
                probe.rest()
            except GuestError as error:
                if self.is_open:
                    raise
                raise GuestError("the connection was lost", where=f"host {self.entry.name}") from error
            yield probe

    def shell(self, command: str, timeout_s: float, stdin: bytes = b"") -> str:
        """What a shell command prints there. GuestError when it fails."""
        with as_host(self.entry.name):
            return self.connection().check(command, timeout_s, stdin)

    def channel(self, command: str) -> Channel:
        """The input and output of a shell command there, which goes on."""
        with as_host(self.entry.name):
            return self.connection().channel(command)

    def connection(self) -> SSH:
        """The connection. MachineError when there is none."""
        if self._ssh is None:
            raise MachineError("not connected", where=f"host {self.entry.name}")
        return self._ssh


def ask_all(links: Sequence[SshLink], ask: Callable[[SshLink], Answer]) -> list[Answer]:
    """The answers, side by side. Interrupted cuts the links."""
    return together(links, ask, lambda: close_all(links), AT_ONCE)


def close_all(links: Sequence[SshLink]) -> None:
    for link in links:
        link.close()


def clock_readings(probe: GuestProbe, most_s: float = inf) -> list[Reading]:
    """Some readings in immediate succession; fewer when they take longer than `most_s` seconds."""
    until, found = time.monotonic() + most_s, [probe.read()]
    while len(found) < READINGS and time.monotonic() < until:
        found.append(probe.read())
    return found


def offset_point(readings: Sequence[Reading], name: str) -> DriftPoint:
    """The offsets of a host's clocks by these readings."""
    found = point(readings)
    if found is None:
        raise MachineError("its clock gave no reading", where=f"host {name}")
    return found


@contextmanager
def as_host(name: str) -> Iterator[None]:
    """Errors of what is otherwise used for guests name the host."""
    try:
        yield
    except FreezelabError as error:
        error.where = error.where.replace(f"guest {name}", f"host {name}", 1) or f"host {name}"
        raise
