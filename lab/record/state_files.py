"""Files that are written whole or not at all, and the small JSON files of the state folder."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from lab.errors import MachineError, RecordError


def read_json(path: Path) -> Any:
    """The file's value; None when there is no file. RecordError when it cannot be read or is no JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise RecordError("damaged: it is not JSON", where=str(path), hint="remove the file") from error


def write_json(path: Path, value: Any) -> None:
    """Write the value, and the folder if needed. A full disk leaves the old file. MachineError when it cannot
    be written."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode())
    except OSError as error:
        raise MachineError(f"cannot be written: {error.strerror}", where=str(path)) from error


def replace_file(path: Path, content: bytes) -> None:
    """A reader gets the old file or the whole new one, and a full disk leaves the old one. OSError when it
    cannot be written."""
    draft = draft_of(path)
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def draft_of(path: Path) -> Path:
    """The file beside it that this process writes before it replaces it."""
    return path.with_name(f".{path.name[:200]}.{os.getpid()}.new")
