"""A command on a terminal of its own, and what it leaves of that terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

_SIZE = struct.pack("HHHH", 40, 160, 0, 0)
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """Runs one command on a pseudo-terminal that is its controlling one, as a shell would."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], pass_fds: Sequence[int]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, _SIZE)
        self._before = termios.tcgetattr(slave)
        self._slave = slave
        self._output = bytearray()
        self.hung_up = False

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            pass_fds=pass_fds,
            start_new_session=True,
            preexec_fn=take_terminal,  # noqa: PLW1509 - the one thing that Popen has no word for
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):
            while not self.hung_up:
                if select.select([self._master], [], [], 0.05)[0]:
                    self._output += os.read(self._master, 65536)

    def hang_up(self) -> None:
        """The terminal is gone, as when its window is closed: SIGHUP, and errors for who writes."""
        self.hung_up = True
        self._reader.join()  # the master is not closed as long as somebody reads from it
        os.close(self._master)

    @property
    def text(self) -> str:
        """All that was written, without control sequences."""
        plain = _CONTROL.sub("", self._output.decode("utf-8", "replace"))
        return plain.replace("\r\n", "\n").replace("\r", "\n")

    def harm(self) -> list[str]:
        """What is not as it was, once the command has ended."""
        if self.hung_up:
            return []
        found: list[str] = []
        after: list[Any] = termios.tcgetattr(self._slave)
        if after != self._before:
            found.append("the terminal's settings are not as they were")
        raw = self._output.decode("utf-8", "replace")
        for off, on, what in (
            ("\x1b[?25l", "\x1b[?25h", "the cursor is hidden"),
            ("\x1b[?1049h", "\x1b[?1049l", "the alternate screen is on"),
        ):
            if raw.rfind(off) > raw.rfind(on):
                found.append(what)
        return found
