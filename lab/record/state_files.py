"""Small JSON files of the state folder: read as they are, written whole or not at all."""

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
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise MachineError(f"cannot be written: {error.strerror}", where=str(path)) from error
