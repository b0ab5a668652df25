"""Lines at the bottom of a terminal that are drawn again in place.

A picture is one write, which overwrites the one before line by line: nothing is blank in between. The cursor
rests at the beginning of the last line, where a "^C" that the terminal echoes moves nothing. It is never
hidden, so that a program that is killed leaves a terminal as it found it.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

_TO_END_OF_LINE, _TO_END_OF_SCREEN = "\x1b[K", "\x1b[J"


SETTLING = 4
"""Pictures that are left out after a change of size."""


def _above(notes: Sequence[str]) -> str:
    return "".join(f"{note}{_TO_END_OF_LINE}\n" for note in notes)


class Screen:
    """Draws on a console that is a terminal. Not thread-safe."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._widths: list[int] = []
        self._shown = ""
        self._size = (console.width, console.height)
        self._settling = 0
        self._waiting: list[str] = []

    def draw(self, lines: Sequence[Text], notes: Sequence[str] = ()) -> None:
        """Replace what was drawn before by `lines`, as many as the terminal has room for. notes: lines that
        stay, above them. Nothing is drawn for SETTLING pictures after the terminal was resized: it may wrap
        its lines only a while after it has told its size."""
        if self._resized():
            self._waiting += notes
            return
        notes = self._and_waiting(notes)
        lines = [self._cropped(line) for line in lines[: max(1, self._console.height - 1)]]
        texts = [self._ansi(line) for line in lines]
        picture = f"{_TO_END_OF_LINE}\n".join(texts) + _TO_END_OF_SCREEN
        if picture == self._shown and not notes:
            return
        self._write(self._back() + _above(notes) + picture + "\r")
        self._widths = [cell_len(line.plain) for line in lines]
        self._shown = picture

    def _resized(self) -> bool:
        size = (self._console.width, self._console.height)
        if size != self._size:
            self._size, self._settling = size, SETTLING
        self._settling -= self._settling > 0
        return self._settling > 0

    def _and_waiting(self, notes: Sequence[str]) -> list[str]:
        waiting, self._waiting = self._waiting, []
        return [*waiting, *notes]

    def erase(self, notes: Sequence[str] = ()) -> None:
        """Leave nothing of it on the terminal but the notes."""
        notes = self._and_waiting(notes)
        if self._widths or notes:
            self._write(self._back() + _TO_END_OF_SCREEN + _above(notes))
        self.forget()

    def forget(self) -> None:
        """Draw the next time where the cursor is: somebody else has written meanwhile."""
        self._widths, self._shown = [], ""

    def _back(self) -> str:
        """Moves the cursor to the beginning of what was drawn. A terminal that has become narrower since has
        wrapped its lines."""
        if not self._widths:
            return "\r"
        width = max(1, self._console.width)
        # The cursor is at the beginning of the last line: rows that it wrapped to are below.
        rows = sum(max(1, -(-wide // width)) for wide in self._widths[:-1])
        return f"\r\x1b[{rows}A" if rows else "\r"

    def _cropped(self, line: Text) -> Text:
        """The line in less than the terminal's width: after its last column a cursor is nowhere."""
        line = line.copy()
        line.truncate(max(1, self._console.width - 1), overflow="crop")
        line.rstrip()
        return line

    def _ansi(self, line: Text) -> str:
        with self._console.capture() as captured:
            self._console.print(line, end="", soft_wrap=True, highlight=False)
        return captured.get()

    def _write(self, text: str) -> None:
        try:
            self._console.file.write(text)
            self._console.file.flush()
        except BrokenPipeError:
            self._console.on_broken_pipe()
