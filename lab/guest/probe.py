"""The probe's outside: one persistent channel to the payload in one guest.

A thread of its own reads the channel, so that what arrives is stamped when it arrives and not when
somebody asks.

A lost channel is had again, and counted. The payload waits for that (payload.py says how), so what its
sampler knows is kept; only when it is gone, with its guest or by itself, a new one is started.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import paramiko

from lab.core.clock import GuestClock, Stamp
from lab.core.timeline import ClockStep, Heartbeat, Hole, Passing, ProbeFacts, Reading, SamplerReport
from lab.core.units import NS_PER_S
from lab.errors import GuestError
from lab.guest import program
from lab.guest.ssh import SSH, RefusedError
from lab.guest.wire import Wire

ANSWER_S = 15.0
START_S = 60.0
REGAIN_S = 20.0
"""How long a lost channel is tried to be had again: QEMU's forwarded port is back within a second."""

_PACE_S, _SLOWEST_S = 0.02, 0.5
_TRIES = 3
_LEAVE_S = 0.5
T = TypeVar("T")
_RECEIPT = (GuestClock.RAW, GuestClock.REAL, GuestClock.MONO, GuestClock.BOOT)
_ANSWER = _RECEIPT[::-1]


def payload_source() -> bytes:
    """The payload's text."""
    return program.source("payload.py")


def start_command() -> str:
    """The shell command that starts the payload."""
    return program.command(payload_source())


class GuestProbe:
    """ports.Probe over SSH.

    connect: gives the first SSH connection to the guest, or raises GuestError.
    reconnects: how often the channel was lost and had again. restarts: how often of these the payload
    had to be started anew, and what it knew was lost.
    """

    def __init__(self, guest: str, connect: Callable[[], SSH]) -> None:
        self.guest = guest
        self.reconnects = 0
        self.restarts = 0
        self._connect = connect
        self._ssh: SSH | None = None
        self._channel: paramiko.Channel | None = None
        self._answers: queue.SimpleQueue[tuple[Stamp, bytes] | None] = queue.SimpleQueue()
        self._beats: list[Heartbeat] = []
        self._sequence = 0
        self._resolution = 1
        self._again: Callable[[float], SSH] | None = None
        self._receiver = threading.Thread()
        self._way_back = ""

    def __enter__(self) -> GuestProbe:
        try:
            self._ssh = self._connect()
            self._again = self._ssh.again
            self._start(START_S)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the payload, if it can be told, and the connection. Does not wait for a guest that is gone."""
        if self._channel is not None and self._ssh is not None and self._ssh.alive:
            with suppress(OSError, EOFError):
                self._channel.sendall(b"q\n")
                # Until the payload has gone: sshd may else see the end of the connection first.
                self._receiver.join(_LEAVE_S)
        self._drop()
        self._again = None

    def _drop(self) -> None:
        """Leave the connection. The payload, if there is one, goes on."""
        ssh, self._ssh, self._channel = self._ssh, None, None
        if ssh is not None:
            ssh.close()

    def restart(self, deadline_raw_ns: int) -> None:
        """Start anew in a guest that was rebooted: a new connection, a new payload. GuestError when it does
        not answer by CLOCK_MONOTONIC_RAW `deadline_raw_ns`."""
        self._way_back = ""
        self._regain((deadline_raw_ns - time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)) / NS_PER_S)

    @property
    def ssh(self) -> SSH:
        """The connection, for other commands between the measurements; had again when it was lost."""
        if self._ssh is None or not self._ssh.alive:
            self._repair()
        return self._connected()

    def _repair(self) -> None:
        """Have a lost channel again."""
        self.restarts += not self._regain(REGAIN_S)
        self.reconnects += 1

    def _regain(self, within_s: float) -> bool:
        """Connect again, and attach to the payload, or start one when it is gone; whether it was still
        there. GuestError when neither can be had in time."""
        self._drop()
        if self._again is None:
            raise GuestError("the probe was never connected", where=f"guest {self.guest}")
        deadline, pace = time.monotonic() + within_s, _PACE_S
        while True:
            try:
                self._ssh = self._again(max(0.0, deadline - time.monotonic()))
                if self._attach(max(1.0, deadline - time.monotonic())):
                    return True
                self._start(max(1.0, deadline - time.monotonic()))
            except GuestError as error:
                self._drop()
                if isinstance(error, RefusedError) or time.monotonic() + pace > deadline:
                    raise
            else:
                return False
            time.sleep(pace)
            pace = min(2 * pace, _SLOWEST_S)

    def _start(self, timeout_s: float) -> None:
        """Start a payload over the connection."""
        self._listen(self._connected().channel(start_command()))
        hello = json.loads(self._answer(b"H", timeout_s)[1])
        self._resolution = hello["resolution_ns"]
        self._way_back = hello["path"]

    def _attach(self, timeout_s: float) -> bool:
        """Whether the payload has taken this connection for its own. GuestError when it is lost as well."""
        if not self._way_back:
            return False
        ssh = self._connected()
        channel = ssh.socket(self._way_back, timeout_s)
        if channel is None:
            return False
        self._listen(channel)
        try:
            self._answer(b"A", timeout_s)
        except GuestError:
            with suppress(OSError, EOFError):
                channel.close()  # or a payload that is merely slow would go on beside the next one
            if not ssh.alive:
                raise
            return False
        return True

    def _connected(self) -> SSH:
        if self._ssh is None:
            raise GuestError("the probe is not connected", where=f"guest {self.guest}")
        return self._ssh

    def _listen(self, channel: paramiko.Channel) -> None:
        """Talk over `channel` from now on."""
        self._channel = channel
        self._answers = queue.SimpleQueue()
        self._receiver = threading.Thread(
            target=self._receive,
            args=(channel, self._connected().wire, self._answers),
            name=f"probe-{self.guest}",
            daemon=True,
        )
        self._receiver.start()

    def _receive(
        self, channel: paramiko.Channel, wire: Wire, answers: queue.SimpleQueue[tuple[Stamp, bytes] | None]
    ) -> None:
        waiting = b""
        while True:
            try:
                data = channel.recv(65536)
            except OSError:
                data = b""
            now = wire.last_received
            if not data:
                answers.put(None)
                return
            *lines, waiting = (waiting + data).split(b"\n")
            for line in lines:
                if line.startswith(b"B "):
                    _, sequence, sent = line.split()
                    self._beats.append(Heartbeat(int(sequence), int(sent), now))
                else:
                    answers.put((now, line))

    def _answer(self, letter: bytes, timeout_s: float, echo: bytes = b"") -> tuple[Stamp, bytes]:
        """The next answer that starts with `letter` (and `echo`), without them."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                got = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise GuestError(
                    f"the probe did not answer within {timeout_s:.0f} s", where=f"guest {self.guest}"
                ) from None
            if got is None:
                raise self._ended()
            arrived, line = got
            if line.startswith(letter + echo):
                return arrived, line[len(letter) + len(echo) :].strip()

    def _ended(self) -> GuestError:
        """Why the payload ended, from what it left on standard error."""
        said, status = "", -1
        if self._channel is not None:
            channel = self._channel
            if channel.recv_stderr_ready():
                said = channel.recv_stderr(4096).decode(errors="replace").strip()
            if channel.exit_status_ready():
                status = channel.recv_exit_status()
        where = f"guest {self.guest}"
        if program.NO_PYTHON in said:
            return GuestError(
                "no Python 3.6 or later in the guest", where=where, hint="the probe needs python3 on its PATH"
            )
        if said or status > 0:
            last = said.splitlines()[-1] if said else "no message"
            return GuestError(f"the probe ended with status {status}: {last}", where=where)
        return GuestError("the probe's channel was lost", where=where)

    def _send(self, line: bytes) -> None:
        if self._channel is None:
            raise GuestError("the probe is not connected", where=f"guest {self.guest}")
        try:
            self._channel.sendall(line)
        except (OSError, EOFError) as error:
            raise self._ended() from error

    def _retried(self, ask: Callable[[], T]) -> T:
        """ask(), and again over a new connection when the channel was lost."""
        for _ in range(_TRIES - 1):
            with suppress(GuestError):
                return ask()
            self._repair()
        return ask()

    def read(self) -> Reading:
        return self._retried(self._read)

    def _read(self) -> Reading:
        self._sequence += 1
        echo = b" %d " % self._sequence
        line = b"r %d\n" % self._sequence
        wire = self._connected().wire
        t1 = wire.mark_sending()
        self._send(line)
        t1 = wire.first_sent or t1
        t4, answer = self._answer(b"R", ANSWER_S, echo)
        words = answer.split()
        numbers = [int(n) for n in words[:8]]
        t2, t3 = dict(zip(_RECEIPT, numbers[:4], strict=True)), dict(zip(_ANSWER, numbers[4:], strict=True))
        passing = None
        if words[8:] == [b"+"] and (seen := self._answer(b"K", ANSWER_S, echo.rstrip() + b" ")[1]):
            arrived, least, left, most = (int(n) for n in seen.split())
            passing = Passing(arrived or None, least, left or None, most)
        return Reading(t1, t2, t3, t4, self._resolution, passing)

    def start_cycle(self) -> None:
        def ask() -> None:
            self._send(b"c\n")
            self._answer(b"C", ANSWER_S)

        self._retried(ask)
        self._beats = []

    def heartbeats(self) -> Sequence[Heartbeat]:
        return tuple(self._beats)

    def samples(self) -> SamplerReport:
        def ask() -> SamplerReport:
            self._send(b"s\n")
            data = json.loads(self._answer(b"S", ANSWER_S)[1])
            data["holes"] = tuple(Hole(*pair) for pair in data["holes"])
            data["steps"] = tuple(ClockStep(*pair) for pair in data["steps"])
            return SamplerReport(**data)

        return self._retried(ask)

    def facts(self) -> ProbeFacts:
        def ask() -> ProbeFacts:
            self._send(b"f\n")
            data = json.loads(self._answer(b"F", ANSWER_S)[1])
            lines = data["kernel_lines"]
            return ProbeFacts(
                data["boot_id"],
                data["clocksource"],
                data["kernel"],
                data["python"],
                None if lines is None else tuple(lines),
                self.reconnects,
                self.restarts,
            )

        return self._retried(ask)
