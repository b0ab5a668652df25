"""One channel to the probe's program in a guest, and the thread that reads it, so that data is stamped when
it arrives and not when it is requested."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import paramiko

from lab.core.clock import Stamp
from lab.core.timeline import Heartbeat
from lab.errors import GuestError
from lab.guest import program
from lab.guest.client import last_error
from lab.guest.ssh import SSH
from lab.threads import Worker

SILENT_S = 0.5
"""After this long without a heartbeat, which comes every 20 ms, the serial channel is used instead."""

_LEAVE_S = 0.5


class SilentError(GuestError):
    """SSH is connected but silent, and the serial channel can be used instead."""


class ProbeChannel:
    """One channel to the program. ssh: the connection of `channel`. on_data: called when data has arrived.
    on_beat: called with each heartbeat, and with the clocks in its line. Both are called from the reading
    thread."""

    def __init__(
        self,
        guest: str,
        ssh: SSH,
        channel: paramiko.Channel,
        on_data: Callable[[], None],
        on_beat: Callable[[Heartbeat, Sequence[bytes]], None],
    ) -> None:
        self._where = f"guest {guest}"
        self._ssh, self._channel = ssh, channel
        self._on_data, self._on_beat = on_data, on_beat
        self._answers: queue.SimpleQueue[tuple[Stamp, bytes] | None] = queue.SimpleQueue()
        on_data()
        self._reader = Worker(target=self._read, name=f"probe-{guest}", daemon=True)
        self._reader.start()

    @property
    def open(self) -> bool:
        """Whether the program's end is open, as far as is known."""
        return self._reader.is_alive()

    def close(self) -> None:
        """Disconnect. The program goes on, and waits for another host."""
        with suppress(OSError, EOFError):
            self._channel.close()

    def quit(self) -> None:
        """End the program, if possible."""
        with suppress(OSError, EOFError):
            self._channel.sendall(b"q\n")
            # Wait until the program has ended: otherwise sshd may notice the end of the connection first.
            self._reader.join(_LEAVE_S)

    def _read(self) -> None:
        wire, waiting = self._ssh.wire, b""
        while True:
            try:
                data = self._channel.recv(65536)
            except OSError:
                data = b""
            now = wire.last_received
            self._on_data()
            if not data:
                self._answers.put(None)
                return
            *lines, waiting = (waiting + data).split(b"\n")
            for line in lines:
                if line.startswith(b"B "):
                    with suppress(ValueError, IndexError):  # a login shell's line, or the rest of one
                        _, sequence, *clocks = line.split()
                        if clocks[0] != b"-":
                            self._on_beat(Heartbeat(int(sequence), int(clocks[0]), now), clocks)
                else:
                    self._answers.put((now, line))

    def send(self, line: bytes) -> None:
        """Send a line. GuestError when the channel or the program is gone."""
        try:
            self._channel.sendall(line)
        except (OSError, EOFError) as error:
            raise self._ended() from error

    def answer(
        self, letter: bytes, timeout_s: float, echo: bytes = b"", silent: Callable[[], bool] | None = None
    ) -> tuple[Stamp, bytes]:
        """The arrival of the next answer that starts with `letter` and `echo`, and the answer without them.
        GuestError when none comes in time; SilentError as soon as `silent` returns True."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                left = max(0.0, deadline - time.monotonic())
                got = self._answers.get(timeout=left if silent is None else min(left, SILENT_S))
            except queue.Empty:
                if silent is not None and silent():
                    raise SilentError("SSH is silent", where=self._where) from None
                if time.monotonic() < deadline:
                    continue
                raise GuestError(
                    f"the probe did not answer within {timeout_s:.0f} s", where=self._where
                ) from None
            if got is None:
                raise self._ended()
            arrived, line = got
            if line.startswith(letter + echo):
                return arrived, line[len(letter) + len(echo) :].strip()

    def _ended(self) -> GuestError:
        """Why the program ended, from its exit status and standard error."""
        if (gone := self._ssh.gone) is not None:
            return gone
        error, status = last_error(self._channel), -1
        if self._channel.exit_status_ready():
            status = self._channel.recv_exit_status()
        if program.NO_PYTHON in error:
            return GuestError(
                "no Python 3.6 or later in the guest",
                where=self._where,
                hint="the probe needs python3 on its PATH",
            )
        if error or status > 0:
            return GuestError(
                f"the probe ended with status {status}: {error or 'no message'}", where=self._where
            )
        return GuestError("the probe's channel was lost", where=self._where)
