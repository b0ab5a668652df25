"""A real history, written again line by line as its run wrote it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from lab.record.events import Entry, entry_of, envelope
from lab.record.journal import EVENTS
from tests.unit.real_histories import unpacked


def replayed(name: str, folder: Path) -> Iterator[Entry]:
    """Each event of the history, after its line was appended to the history in `folder`, which is made."""
    with tempfile.TemporaryDirectory() as whole:
        lines = (unpacked(name, Path(whole)) / EVENTS).read_text(encoding="utf-8").split("\n")
    folder.mkdir()
    with (folder / EVENTS).open("w", encoding="utf-8") as file:
        for line in filter(None, lines):
            file.write(line + "\n")
            file.flush()
            given = envelope(line)
            assert given is not None
            yield entry_of(line, given)
