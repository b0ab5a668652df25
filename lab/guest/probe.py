"""The probe's outside: one persistent channel to the payload in one guest.

A thread of its own reads the channel, so that what arrives is stamped when it arrives and not when
somebody asks. A lost channel is had again, and counted: what the sampler knew is lost with it.
"""

from __future__ import annotations

import json
import queue
import shlex
import threading
import time
import zlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import resources
from typing import Any, TypeVar

import paramiko

from lab.core.clock import GuestClock, Stamp
from lab.core.timeline import ClockStep, Heartbeat, Hole, ProbeFacts, Reading, SamplerReport
from lab.errors import GuestError
from lab.guest.ssh import SSH
from lab.guest.wire import Wire

ANSWER_S = 15.0
START_S = 60.0
T = TypeVar("T")
NO_PYTHON = "freezelab: no python3"
_RECEIPT = (GuestClock.RAW, GuestClock.REAL, GuestClock.MONO, GuestClock.BOOT)
_ANSWER = _RECEIPT[::-1]


def payload_source() -> bytes:
    """The payload's text."""
    return resources.files("lab.guest").joinpath("payload.py").read_bytes()


def start_command() -> str:
    """The shell command that starts the payload: its text travels on the command line, so that
    standard input is the protocol's from the first byte."""
    packed = b64encode(zlib.compress(payload_source(), 9)).decode()
    program = (
        f"import base64,zlib;exec(compile(zlib.decompress(base64.b64decode('{packed}')),'probe','exec'))"
    )
    run = f'exec "$p" -I -S -u -c {shlex.quote(program)}'
    return (
        "for p in python3 /usr/bin/python3 /usr/libexec/platform-python; do "
        f'if "$p" -c "import sys; sys.exit(sys.version_info < (3, 6))" 2>/dev/null; then {run}; fi; done; '
        f"echo {NO_PYTHON} >&2; exit 127"
    )


class GuestProbe:
    """ports.Probe over SSH.

    connect: gives a new SSH connection to the guest, or raises GuestError.
    """

    def __init__(self, guest: str, connect: Callable[[], SSH]) -> None:
        self.guest = guest
        self.reconnects = 0
        self._connect = connect
        self._ssh: SSH | None = None
        self._channel: paramiko.Channel | None = None
        self._answers: queue.SimpleQueue[tuple[Stamp, bytes] | None] = queue.SimpleQueue()
        self._beats: list[Heartbeat] = []
        self._sequence = 0
        self._resolution = 1
        self._facts: dict[str, Any] = {}

    def __enter__(self) -> GuestProbe:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        # A channel over a connection that is gone says EOFError when it is closed.
        if self._channel is not None:
            with suppress(OSError, EOFError):
                self._channel.close()
        if self._ssh is not None:
            self._ssh.close()
        self._ssh = self._channel = None

    def restart(self, deadline_raw_ns: int) -> None:  # noqa: ARG002
        """Start anew in a guest that was rebooted. GuestError when it does not answer."""
        self.close()
        self._open()

    @property
    def ssh(self) -> SSH:
        """The connection, for other commands between the measurements."""
        if self._ssh is None:
            raise GuestError("the probe is not connected", where=f"guest {self.guest}")
        return self._ssh

    def _open(self) -> None:
        self._ssh = self._connect()
        self._channel = self._ssh.channel(start_command())
        self._answers = queue.SimpleQueue()
        threading.Thread(
            target=self._receive,
            args=(self._channel, self._ssh.wire, self._answers),
            name=f"probe-{self.guest}",
            daemon=True,
        ).start()
        hello = self._answer(b"H", START_S)
        self._facts = json.loads(hello[1])
        self._resolution = self._facts["resolution_ns"]

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
        if NO_PYTHON in said:
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
        """ask(), and once more over a new connection when the channel was lost."""
        try:
            return ask()
        except GuestError:
            self.close()
            self._open()
            self.reconnects += 1
            return ask()

    def read(self) -> Reading:
        return self._retried(self._read)

    def _read(self) -> Reading:
        self._sequence += 1
        echo = b" %d " % self._sequence
        line = b"r %d\n" % self._sequence
        t1 = self.ssh.wire.mark_sending()
        self._send(line)
        t1 = self.ssh.wire.first_sent or t1
        t4, answer = self._answer(b"R", ANSWER_S, echo)
        numbers = [int(n) for n in answer.split()]
        t2, t3 = dict(zip(_RECEIPT, numbers[:4], strict=True)), dict(zip(_ANSWER, numbers[4:], strict=True))
        return Reading(t1, t2, t3, t4, self._resolution)

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
            )

        return self._retried(ask)
