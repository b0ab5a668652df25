"""A terminal in little: what is on the screen after some bytes, as xterm and its like show it."""

from __future__ import annotations

import io
import re
import threading

_TOKEN = re.compile(r"\x1b\[(\d*)([A-Za-z])|([\r\n])|([^\x1b\r\n])")


class ScreenFile(io.StringIO):
    """Takes text, and knows what a terminal would show of it. Lines that are too long are wrapped."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.rows: list[str] = [""]
        self.row = self.column = 0
        self.blank = 0
        """How often a row that had something was empty at the end of a write."""
        self._lock = threading.Lock()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._lock:
            for number, command, control, char in _TOKEN.findall(text):
                self._take(int(number or 1) if command == "A" else 0, command, control, char)
        return len(text)

    def shown(self) -> list[str]:
        """The rows, without empty ones at the end."""
        with self._lock:
            rows = [row.rstrip() for row in self.rows]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def narrow(self, width: int) -> None:
        """Make it narrower: what is longer is wrapped, and the cursor stays at its line."""
        with self._lock:
            found: list[str] = []
            for number, row in enumerate(self.rows):
                if number == self.row:
                    cursor = len(found)
                row = row.rstrip()
                found += [row[at : at + width] for at in range(0, max(1, len(row)), width)]
            self.rows, self.row, self.width = found, cursor, width

    def _take(self, up: int, command: str, control: str, char: str) -> None:
        if command == "A":
            assert up <= self.row, "the cursor would leave the screen"
            self.row -= up
        elif command == "K":
            self.rows[self.row] = self.rows[self.row][: self.column]
        elif command == "J":
            self.rows[self.row] = self.rows[self.row][: self.column]
            del self.rows[self.row + 1 :]
        elif control == "\r":
            self.column = 0
        elif control == "\n":
            self._down()
            self.column = 0
        elif char:
            if self.column == self.width:
                self._down()
                self.column = 0
            row = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = row[: self.column] + char + row[self.column + 1 :]
            self.column += 1

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append("")
