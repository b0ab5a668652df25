"""The probe's host end: one persistent channel to the program in one guest.

A lost channel is re-established and counted. The program waits for that (see inside/clock_probe.py), so its
sampler's record is kept. Only when the program is gone, with its guest or by itself, a new one is started.

When the guest also has a serial channel, every other reading is taken there: it costs the guest a tenth of
one over SSH, and has as small a bound as one with kernel packet stamps. While SSH is silent, or a thread is
re-establishing it, all requests go over the serial channel.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import paramiko

from lab.core.clock import Stamp
from lab.core.depth import Depth, ProbeLimits
from lab.core.timeline import Heartbeat, ProbeFacts, Reading, SamplerReport
from lab.core.units import NS_PER_S
from lab.errors import GuestError, GuestGone
from lab.guest import probe_protocol
from lab.guest.address import RefusedError
from lab.guest.probe_channel import SILENT_S, ProbeChannel, SilentError
from lab.guest.probe_command import start_command
from lab.guest.probe_protocol import Exchange
from lab.guest.serial import SerialClockLine, SerialLine
from lab.guest.shell_samples import ShellSamples
from lab.guest.ssh import SSH
from lab.ports import Clock
from lab.process.clock import HostClock
from lab.process.pace import paced
from lab.threads import Worker

ANSWER_S = 15.0
START_S, ATTACH_S, SERIAL_S = 60.0, 10.0, 60.0
REGAIN_S = 20.0
"""Time limit for re-establishing a lost channel, or the time of the first connection, with the boot, if that
was longer. QEMU's forwarded port is back within a second."""

_PACE_S, _SLOWEST_S, _TRIES = 0.02, 0.5, 3
T = TypeVar("T")


@dataclass(frozen=True)
class Waiting:
    """A program that was started before and waits in the guest for a host. path: its socket in the guest.
    resolution_ns: the resolution of the guest's clocks."""

    path: str
    resolution_ns: int


class GuestProbe:
    """ports.Probe over SSH.

    connect: returns the first SSH connection to the guest, or raises GuestError. serial: the serial channel,
    if any. waiting: the program to take over; when it is None or gone, a new one is started. It answers over
    the serial channel before there is an SSH connection. wanted: SHELL, PYTHON, or AUTO for the better one
    that there is. depth, limits: see SessionProbe; once it has begun.
    reconnects: how often the channel was lost and re-established. restarts: how often the program then had to
    be restarted, and its record was lost.
    """

    def __init__(
        self,
        guest: str,
        connect: Callable[[], SSH],
        serial: SerialLine | None = None,
        waiting: Waiting | None = None,
        wanted: Depth = Depth.PYTHON,
    ) -> None:
        self.guest, self.depth, self._wanted = guest, Depth.PYTHON, wanted
        self._shell = ShellSamples()
        self.reconnects = self.restarts = 0
        self._connect, self._serial = connect, serial
        self._ssh: SSH | None = None
        self._channel: ProbeChannel | None = None
        self._beats: list[Heartbeat] = []
        self._resting = self._waking = False
        self._name = secrets.token_hex(3).encode()  # tells this probe's answers from another's
        self._sequence = 0
        self.limits = ProbeLimits(waiting.resolution_ns if waiting is not None else 1)
        self._again: Callable[[float], SSH] | None = None
        self._way_back = waiting.path if waiting is not None else ""
        self._golden = waiting is not None
        self._serially = False
        self._last_line_s = self._slow_s = 0.0
        self._mending: threading.Thread | None = None
        self._unmended: GuestError | None = None
        self._closed = False

    def __enter__(self) -> GuestProbe:
        try:
            if self._way_back and self._serial is not None:
                self._begin_serially(self._serial)
            else:
                self._begin()
        except BaseException:
            self.close()
            raise
        return self

    def _begin(self) -> None:
        begun = time.monotonic()
        self._ssh = ssh = self._connect()
        self._again, self._slow_s = ssh.again, time.monotonic() - begun
        if self._closed:
            self._again = None
            self._drop()
        elif not self._attach(paced(ATTACH_S)):
            self._start(paced(START_S))

    def _begin_serially(self, serial: SerialLine) -> None:
        """Wait until the program that waits in the guest answers over the serial channel, and have it rest.
        The SSH connection is made meanwhile and afterwards. GuestError when it does not answer."""
        self._in_thread(self._begin)
        probe_protocol.rest(partial(serial.exchange, within_s=paced(SERIAL_S)))
        self._resting = True

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the program, if possible, and the connection. Does not wait for a guest that is gone."""
        self._again, self._closed = None, True
        if self._channel is not None and self._ssh is not None and self._ssh.alive:
            self._channel.quit()
        self._drop()
        if self._serial is not None:
            self._serial.close()

    def _drop(self) -> None:
        """Drop the connection. The program, if there is one, goes on."""
        ssh, self._ssh, self._channel = self._ssh, None, None
        if ssh is not None:
            ssh.close()

    def restart(self, deadline_raw_ns: int) -> None:
        """Connect to a guest that was rebooted, and start a new program. GuestError when the guest does not
        answer by CLOCK_MONOTONIC_RAW `deadline_raw_ns`."""
        with suppress(GuestError):
            self._mended()
        self._way_back = ""
        self._regain((deadline_raw_ns - HostClock().now().raw_ns) / NS_PER_S)

    @property
    def resting(self) -> bool:
        """Whether the probe rests; see rest()."""
        return self._resting and not self._waking

    @property
    def current(self) -> SSH | None:
        """The present connection, for other threads. A lost one is not re-established."""
        return self._ssh

    @property
    def ssh(self) -> SSH:
        """The connection, for other commands between measurements. A lost one is re-established. When it was
        cut, GuestGone is raised once."""
        self._check()
        self._mended()
        if self._ssh is None or not self._ssh.alive:
            self._repair()
        return self._connected()

    def connected(self) -> None:
        """Wait for the first SSH connection, which a probe that began serially makes in a thread. GuestError
        when it cannot be made."""
        self._mended()

    def clock_line(self, clock: Clock) -> SerialClockLine | None:
        """The serial channel to the program, when that also sets the clock: in a guest that began with a
        golden state, until it reboots. Not to be used beside a measurement."""
        if not self._golden or self._serial is None or not self._serial.here():
            return None
        return SerialClockLine(self.guest, clock, self._serial)

    def _check(self) -> None:
        """GuestGone when the connection was cut; the next call makes a new one."""
        if self._ssh is not None and (gone := self._ssh.gone) is not None:
            self._drop()
            raise gone

    def _repair(self) -> None:
        """Re-establish a lost channel."""
        self.restarts += not self._regain(max(paced(REGAIN_S), self._slow_s))
        self.reconnects += 1

    def _regain(self, within_s: float) -> bool:
        """Reconnect, and attach to the program or start a new one. Returns whether the program was still
        there. GuestError when neither succeeds within `within_s` seconds."""
        self._drop()
        deadline, pace = time.monotonic() + within_s, _PACE_S
        while True:
            again = self._again
            if again is None:
                self._drop()
                raise GuestError("the probe is closed", where=f"guest {self.guest}")
            try:
                self._ssh = again(max(0.0, deadline - time.monotonic()))
                if self._again is None:  # closed meanwhile, by another thread
                    continue
                if self._attach(max(1.0, deadline - time.monotonic())):
                    return True
                self._start(max(1.0, deadline - time.monotonic()))
            except GuestError as error:
                self._drop()
                hopeless = isinstance(error, RefusedError | GuestGone)
                if hopeless or time.monotonic() + pace > deadline:
                    raise
            else:
                return False
            time.sleep(pace)
            pace = min(2 * pace, _SLOWEST_S)

    def _start(self, timeout_s: float) -> None:
        """Start a program over the connection."""
        self._golden = False
        channel = self._listen(self._connected().channel(start_command(self._wanted)))
        # With its brace: a login shell's own files may print lines before it.
        hello = probe_protocol.hello(b"{" + channel.answer(b"H {", timeout_s)[1])
        self.depth, self.limits = hello.depth, hello.limits
        if self.depth is Depth.SHELL:
            self._shell = ShellSamples(self.limits)
            self._serial = None  # nobody answers there
            if not self._resting:  # lost within a cycle
                channel.send(b"c\n")
        self._way_back = hello.path

    def _attach(self, timeout_s: float) -> bool:
        """Attach to the program. Returns whether it has accepted this connection. GuestError when the
        connection is lost as well."""
        if not self._way_back:
            return False
        ssh = self._connected()
        opened = ssh.socket(self._way_back, timeout_s)
        if opened is None:
            return False
        channel = self._listen(opened)
        try:
            channel.answer(b"A", timeout_s)
        except GuestError:
            channel.close()  # otherwise a slow program would run on beside the next one
            if not ssh.alive:
                raise
            return False
        return True

    def _connected(self) -> SSH:
        if self._ssh is None:
            raise GuestError("the probe is not connected", where=f"guest {self.guest}")
        return self._ssh

    def _talking(self) -> ProbeChannel:
        if self._channel is None:
            raise GuestError("the probe is not connected", where=f"guest {self.guest}")
        return self._channel

    def _listen(self, channel: paramiko.Channel) -> ProbeChannel:
        """Use `channel` from now on."""
        made = ProbeChannel(self.guest, self._connected(), channel, self._data_came, self._beat_came)
        self._channel = made
        return made

    def _data_came(self) -> None:
        self._last_line_s = time.monotonic()

    def _beat_came(self, beat: Heartbeat, sample: Sequence[bytes]) -> None:
        self._beats.append(beat)
        self._shell.add(sample)

    def _silent(self) -> bool:
        """Whether SSH brings nothing, not even a heartbeat, and there is a serial channel to use instead."""
        quiet = time.monotonic() > self._last_line_s + SILENT_S
        return quiet and self._serial is not None and self._serial.here()

    def _lost(self) -> bool:
        """Whether the connection, or the program at its other end, is known to be gone."""
        return self._ssh is None or not self._ssh.alive or self._channel is None or not self._channel.open

    def _mend(self) -> None:
        """Re-establish the lost connection, in a thread when the serial channel can be used meanwhile."""
        if self._serial is None or not self._serial.here():
            self._repair()
            return

        self._in_thread(self._repair)

    def _in_thread(self, connect: Callable[[], None]) -> None:
        """Call `connect` in a thread; the serial channel is used meanwhile."""

        def act() -> None:
            try:
                connect()
            except GuestError as error:
                self._unmended = error

        self._mending = Worker(target=act, name=f"mend-{self.guest}", daemon=True)
        self._mending.start()

    def _mended(self) -> None:
        """Wait until the connection is re-established. GuestError when that fails."""
        if self._mending is not None:
            self._mending.join()
            self._mending = None
        if self._unmended is not None:
            error, self._unmended = self._unmended, None
            raise error

    def _retried(self, ask: Callable[[Exchange], T]) -> T:
        """Call ask() over SSH, and again over a new connection when it was lost. Meanwhile, and while SSH is
        silent, call it over the serial channel."""
        if self._resting:
            self._last_line_s = time.monotonic()  # no heartbeat could be missed
        for tries_left in reversed(range(_TRIES)):
            self._check()
            if self._serial is not None and self._mending is None and self._lost():
                self._mend()
            mending = self._mending is not None and self._mending.is_alive()
            if self._serial is not None and (mending or self._silent()):
                with suppress(GuestError):
                    return ask(self._serial.exchange)
                self._check()
            self._mended()
            try:
                return ask(self._exchange)
            except SilentError:
                continue
            except GuestError as error:
                if not tries_left or isinstance(error, GuestGone):
                    raise
                self._mend()
        self._check()
        raise GuestError(
            "the guest is silent, over SSH and over its serial channel", where=f"guest {self.guest}"
        )

    def _exchange(self, line: bytes, letter: bytes, echo: bytes) -> tuple[Stamp, Stamp, bytes]:
        """One exchange over SSH; see probe_protocol.Exchange."""
        wire, channel = self._connected().wire, self._talking()
        t1 = wire.mark_sending()
        channel.send(line)
        t1 = wire.first_sent or t1
        return t1, *channel.answer(letter, paced(ANSWER_S), echo, self._silent)

    def read(self) -> Reading:
        self._serially = not self._serially
        if self._serially and self._serial is not None and self._serial.here():
            with suppress(GuestError):
                return self._read(self._serial.exchange)
        return self._retried(self._read)

    def _read(self, exchange: Exchange) -> Reading:
        self._sequence += 1
        number = b"%s-%d" % (self._name, self._sequence)
        channel = "ssh" if exchange == self._exchange else "serial"
        return probe_protocol.reading(
            exchange,
            number,
            self.limits.resolution_ns,
            channel,
            lambda: self._talking().answer(b"K", paced(ANSWER_S), b" %s " % number)[1],
        )

    def start_cycle(self) -> None:
        self._waking = True
        try:
            self._retried(probe_protocol.new_cycle)
        finally:
            self._waking = False
        self._resting, self._last_line_s = False, time.monotonic()
        self._beats = []
        self._shell.start()

    def rest(self) -> None:
        """See ports.Probe."""
        self._retried(probe_protocol.rest)
        self._resting = True

    def heartbeats(self) -> Sequence[Heartbeat]:
        return tuple(self._beats)

    def samples(self) -> SamplerReport | None:
        if self.depth is Depth.SHELL:
            return self._shell.report()
        return self._retried(probe_protocol.samples)

    def facts(self) -> ProbeFacts:
        members = self._retried(probe_protocol.facts)
        return ProbeFacts(**members, reconnects=self.reconnects, restarts=self.restarts)
