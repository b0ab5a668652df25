"""Reads a guest's console, which alone shows that its kernel has panicked."""

from __future__ import annotations

import re
from pathlib import Path

from lab.errors import GuestGone

_PANIC = re.compile(rb"Kernel panic - not syncing: ([^\r\n]*)[\r\n]")
"""The kernel's message (Linux, kernel/panic.c). Its level is KERN_EMERG, so `quiet` does not suppress it."""

_LONGEST = 1024
"""The most bytes of a line that are kept; printk's lines are shorter (LOG_LINE_MAX)."""


class Panicked(GuestGone):
    """The guest's kernel has panicked."""


class ConsoleLog:
    """Reads the console's log file from its present end on. path: the file, which need not exist yet."""

    def __init__(self, guest: str, path: Path) -> None:
        self._guest, self.path = guest, path
        self._at = path.stat().st_size if path.exists() else 0
        self._rest = b""
        self._why: str | None = None

    def look(self) -> None:
        """Raise Panicked when the console shows a kernel panic."""
        if self._why is None:
            try:
                with self.path.open("rb") as file:
                    file.seek(self._at)
                    new = file.read()
            except OSError:
                return
            self._at += len(new)
            text = self._rest + new
            self._rest = text[-_LONGEST:]
            if (found := _PANIC.search(text)) is None:
                return
            self._why = found[1].decode(errors="replace").strip()
        raise Panicked(
            f"its kernel has panicked: {self._why}",
            where=f"guest {self._guest}",
            hint=f"its console: {self.path}",
            ended=True,
        )


def console_end(console: Path) -> str:
    """The last line of a guest's console, as a hint."""
    try:
        lines = console.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return f"its console is in {console}"
    lines_read = [line.strip() for line in lines if line.strip()]
    return (
        f"its console ends with: {lines_read[-1]}\n({console})"
        if lines_read
        else f"its console is empty\n({console})"
    )
