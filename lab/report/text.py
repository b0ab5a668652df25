"""Text that is safe to print: without control characters, wrapped only where allowed, and in characters that
the output supports.

Texts of guests, playbooks and host programs pass `cleaned` once, before the layout, and are never parsed as
rich's markup.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Sequence
from enum import Enum
from typing import Any, TypeVar

from rich.cells import cell_len, set_cell_size

from lab.core.units import NBSP

T = TypeVar("T")

_ASCII = str.maketrans(
    {"±": "+/-", "·": "-", "→": "->", "–": "-", "—": "-", "…": "...", "≤": "<=", "µ": "u", NBSP: " "}
)
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[ -/]*[0-~])")
_UNITS = r"(?:ns|µs|ms|s|min|h|ppm|%|MiB|GiB)\b"


def clean(text: str) -> str:
    """`text` on one line, without characters that could move a cursor, reorder the line or break XML:
    control, format (bidirectional, zero-width), surrogate and unassigned characters."""
    if text.isprintable():
        return text
    chars = []
    for char in text:
        category = unicodedata.category(char)
        if category in ("Zl", "Zp") or char in "\t\n\v\f\r":
            chars.append(" ")
        elif category not in ("Cc", "Cf", "Cs", "Cn"):
            chars.append(char)
    return "".join(chars)


def without_escapes(line: str) -> str:
    """A line of a console without its control sequences (ECMA-48: colours, cursor movements), cleaned."""
    return clean(_ESCAPE.sub("", line)).rstrip()


def cleaned(value: T) -> T:
    """`value` with every string in it cleaned, down through dataclasses, tuples, lists and dicts."""
    return _cleaned(value)  # type: ignore[no-any-return]


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return value if isinstance(value, Enum) else clean(value)
    if isinstance(value, list | tuple):
        return type(value)(_cleaned(v) for v in value)
    if isinstance(value, dict):
        return {_cleaned(k): _cleaned(v) for k, v in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {f.name: _cleaned(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **changes)
    return value


def glued(text: str) -> str:
    """`text` with the spaces inside quantities ("5 s", "± 0.6 ms") made unbreakable."""
    text = re.sub(r"(?<=\w) ?±", f"{NBSP}±", text)
    return re.sub(rf"(?<=±) ?|(?<=[≤≥]) |(?<=\d) (?={_UNITS})", NBSP, text)


def bare(text: str) -> str:
    """`text` for grep and awk: numbers without grouping, ordinary spaces."""
    return re.sub(rf"(?<=\d){NBSP}(?=\d)", "", text).replace(NBSP, " ")


def ascii_only(text: str) -> str:
    """`text` for an output that supports only ASCII."""
    return text.translate(_ASCII).encode("ascii", "replace").decode("ascii")


def wrapped(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` cells, broken at ordinary spaces; a longer word is divided."""
    width = max(1, width)
    lines: list[str] = []
    line = ""
    for word in glued(text).split(" "):
        candidate = f"{line} {word}" if line else word
        if cell_len(candidate) <= width:
            line = candidate
            continue
        if line:
            lines.append(line)
        while cell_len(word) > width:
            head = _head(word, width)
            lines.append(head)
            word = word[len(head) :]
        line = word
    return [*lines, line] if line or not lines else lines


def _head(word: str, width: int) -> str:
    """The longest beginning of `word` that fits; at least one character, so that wrapping terminates."""
    used = 0
    for index, char in enumerate(word):
        used += cell_len(char)
        if used > width:
            return word[: max(1, index)]
    return word


def joined(parts: Sequence[str], width: int, separator: str = " · ") -> list[str]:
    """The parts joined by `separator`, in lines broken at separators only, or inside a part that is
    too long for a line."""
    lines: list[str] = []
    for part in filter(None, parts):
        candidate = f"{lines[-1]}{separator}{part}" if lines else part
        if lines and cell_len(glued(candidate)) <= width:
            lines[-1] = candidate
        else:
            lines.extend(wrapped(part, width))
    return lines


def shortened(text: str, width: int) -> str:
    """`text` in at most `width` cells, its end cut with an ellipsis."""
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)) + "…"


def names(given: Sequence[str], most: int = 4) -> str:
    """ "web-0, web-1 and 6 more"."""
    if len(given) <= most:
        return ", ".join(given)
    return f"{', '.join(given[: most - 1])} and {len(given) - most + 1} more"


def ranges(numbers: Sequence[int]) -> str:
    """ "3, 7-9"."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}, {b}" if b == a + 1 else f"{a}-{b}" for a, b in runs)


def counted(number: int, one: str) -> str:
    """ "1 guest", "3 guests"."""
    return f"{number} {one}" if number == 1 else f"{number} {one}s"
