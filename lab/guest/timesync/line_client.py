"""A program in the guest that answers each line with a line, over a channel that is opened before it is
needed.

It is used right after a resume, in its own thread, so it has its own SSH connection; the probe's belongs to
the controller's thread. A freeze may cut both, because a user-mode network ends with its QEMU process. Then a
new connection is made, and the program is restarted.
"""

from __future__ import annotations

import time
from contextlib import suppress

import paramiko

from lab.core.clock import Stamp
from lab.errors import GuestError, GuestGone
from lab.guest.client import ChannelLines, last_error
from lab.guest.ssh import SSH

START_S, ANSWER_S = 60.0, 10.0
PATIENCE_S = 5.0
HELLO = "H "
"""The beginning of a program's first line, before its process id."""

_PACE_S = 0.02


class Line:
    """The channel to one program. ssh: its own connection. command: the shell command that starts the
    program. greeting: its first line: HELLO, its process id, and possibly more."""

    patience_s = PATIENCE_S
    """Time limit for an answer, in seconds."""

    def __init__(self, ssh: SSH, command: str) -> None:
        self._ssh, self._command = ssh, command
        self._channel: paramiko.Channel | None = None
        self._lines: ChannelLines | None = None
        self.greeting = ""

    @property
    def where(self) -> str:
        return f"guest {self._ssh.address.guest}"

    def now(self) -> Stamp:
        """The host's clocks."""
        return self._ssh.clock.now()

    def open(self, timeout_s: float = START_S) -> Line:
        """Start the program. GuestError when it does not start."""
        self._channel = self._ssh.channel(self._command, timeout_s)
        self._lines = ChannelLines(self._channel)
        self.greeting = self._read(time.monotonic() + timeout_s)
        if not self.greeting.startswith(HELLO):
            raise GuestError(f"the program says: {self.greeting or self._last_words()}", where=self.where)
        return self

    def _lost(self, what: str) -> GuestError:
        return self._ssh.gone or GuestError(what, where=self.where)

    def again(self, deadline_s: float) -> None:
        """Reconnect and restart the program. GuestError when that fails until CLOCK_MONOTONIC `deadline_s`
        (seconds)."""
        while True:
            left = deadline_s - time.monotonic()
            try:
                fresh = self._ssh.again(max(0.1, left))
                forsaken = self.greeting.split()[1:2]
                self.close()
                self._ssh = fresh
                self.open(max(1.0, deadline_s - time.monotonic()))
            except GuestError as error:
                if isinstance(error, GuestGone) or time.monotonic() + _PACE_S >= deadline_s:
                    raise
                time.sleep(_PACE_S)
            else:
                self._end(forsaken)
                return

    def _end(self, forsaken: list[str]) -> None:
        """End the programs of lost connections. Their sshd sends nothing, so it never notices the loss."""
        for pid in forsaken:
            self._ssh.run(
                f"! readlink /proc/{pid}/exe | grep -qE 'python|/(ba|da)?sh$|/busybox$' || kill -9 {pid}",
                ANSWER_S,
            )

    def ask(self, line: str, timeout_s: float) -> tuple[Stamp, str, Stamp]:
        """Send a line. Returns a host stamp before the sending, the answer, and a host stamp after its
        arrival. GuestError when the channel is lost, or no answer comes in time."""
        return self.send(line), *self.receive(timeout_s)

    def send(self, line: str) -> Stamp:
        """Send a line. Returns a host stamp before the sending. GuestError when the channel is lost."""
        wire = self._ssh.wire
        if self._channel is None:
            raise GuestError("the program is not running", where=self.where)
        sent = wire.mark_sending()
        try:
            self._channel.sendall(line.encode() + b"\n")
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self._lost("the channel was lost") from error
        return wire.first_sent or sent

    def receive(self, timeout_s: float) -> tuple[str, Stamp]:
        """The next line, and a host stamp after its arrival. GuestError when the channel is lost, or no line
        comes in time."""
        return self._read(time.monotonic() + timeout_s), self._ssh.wire.last_received

    def close(self, *, leave_connection: bool = False) -> None:
        """End the program and the connection, if they still exist."""
        channel, self._channel = self._channel, None
        if channel is not None:
            with suppress(OSError, EOFError, paramiko.SSHException):
                channel.shutdown_write()
                channel.settimeout(1.0)
                while channel.recv(4096):
                    pass
            with suppress(OSError, EOFError, paramiko.SSHException):
                channel.close()
        if not leave_connection:
            self._ssh.close()

    def _read(self, deadline_s: float) -> str:
        if self._channel is None or self._lines is None:
            raise GuestError("the program is not running", where=self.where)
        try:
            return self._lines.read(deadline_s).decode(errors="replace")
        except TimeoutError as error:
            raise GuestError("no answer in time", where=self.where) from error
        except OSError as error:
            raise self._lost("the channel was lost") from error
        except EOFError:
            raise self._lost(f"the program has ended: {self._last_words()}") from None

    def _last_words(self) -> str:
        return (last_error(self._channel) if self._channel is not None else "") or "no message"
