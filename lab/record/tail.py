"""The lines of a history as they are written."""

from __future__ import annotations

from pathlib import Path

from lab.errors import RecordError
from lab.record import EVENTS


class Tail:
    """Reads on from where it was. Not thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / EVENTS
        self._offset, self._rest = 0, b""

    def lines(self) -> list[str]:
        """The whole lines that are new. RecordError when the history cannot be read."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except OSError as error:
            raise RecordError(f"cannot be read: {error.strerror}", where=str(self._path)) from error
        self._offset += len(new)
        *whole, self._rest = (self._rest + new).split(b"\n")
        return [line.decode("utf-8", "replace") for line in whole if line]
