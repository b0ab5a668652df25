"""From a path to text, guarding against everything that is no playbook at all."""

from __future__ import annotations

import os
import re
import stat
from itertools import islice
from pathlib import Path

from lab.core.units import format_size
from lab.errors import PlaybookError
from lab.playbook.mistakes import PLAYBOOK, START, FileKind, Mistake, Place, as_error, printable

MOST_BYTES = 256 << 10  # a playbook is a page; the parser needs half a second for this much

# What YAML refuses, the line breaks that only YAML 1.1 knows (lines would be counted otherwise
# than by editors), and the marks that make a text read otherwise than it is.
REFUSED = re.compile(
    r"[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
    r"|[\u2028-\u202e\u2066-\u2069\ufeff]"
)
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_UTF8_MARK = b"\xef\xbb\xbf"


def read(path: Path, kind: FileKind = PLAYBOOK) -> bytes:
    """The bytes of the file at `path`. PlaybookError when there is no such readable file,
    when it is a folder, pipe or device, or when it is larger than MOST_BYTES."""
    file = printable(str(path))
    try:
        # Without O_NONBLOCK a named pipe would hold us here for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISDIR(mode):
                raise IsADirectoryError
            if not stat.S_ISREG(mode):
                raise PlaybookError("not an ordinary file; give the path of a .yaml file", where=file)
            data = stream.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise PlaybookError("no such file; check the path", where=file) from None
    except IsADirectoryError:
        raise PlaybookError("a folder; give the path of a .yaml file in it", where=file) from None
    except PermissionError:
        raise PlaybookError("permission denied; allow reading with chmod +r", where=file) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PlaybookError(f"cannot be read: {reason}; check the path", where=file) from error
    if len(data) > MOST_BYTES:
        limit = format_size(MOST_BYTES)
        raise PlaybookError(f"larger than {limit}; check that this is a {kind.noun}", where=file)
    return data


def place_after(text: str) -> Place:
    """The place of the character that follows `text` at the start of a file."""
    lines = re.split("\r\n|\r|\n", text)
    return Place(len(lines), len(lines[-1]) + 1)


def decode(data: bytes, file: str) -> str:
    """The text in `data`. PlaybookError, naming `file`, when it is binary or not UTF-8."""
    if data.startswith(_UTF16):
        raise as_error(file, [Mistake(START, "the text is UTF-16", "save it as UTF-8")])
    data = data.removeprefix(_UTF8_MARK)
    zero = data.find(b"\0")
    if zero >= 0:
        place = place_after(data[:zero].decode("utf-8", "replace"))
        raise as_error(file, [Mistake(place, "a binary file (it holds a zero byte)", "give a YAML file")])
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = place_after(data[: error.start].decode("utf-8"))
        what = f"not UTF-8 text (byte 0x{data[error.start]:02x})"
        raise as_error(file, [Mistake(place, what, "give a YAML file saved as UTF-8")]) from None
    refused = [
        Mistake(
            place_after(text[: match.start()]),
            f"an invisible character, U+{ord(match[0]):04X}",
            "delete it",
        )
        for match in islice(REFUSED.finditer(text), 3)
    ]
    if refused:
        raise as_error(file, refused)
    return text
