"""Files that a user asked for, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from lab.errors import MachineError
from lab.record.state_files import replace_file
from lab.report.text import clean


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path`, so that a reader gets the old file or the whole new one, and a full disk
    leaves the old one. A path that is not a regular file, such as /dev/stdout, is written directly.
    MachineError when it cannot be written."""
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
        else:
            replace_file(path.resolve(), content)
    except OSError as error:
        raise MachineError(f"cannot be written: {error.strerror}", where=clean(str(path))) from error
