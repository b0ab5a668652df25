"""Mistakes in a playbook or another file of the user's: each has a place, says what is wrong and what to do.

They are collected, not raised one by one: whoever mends a playbook sees all of them at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lab.errors import PlaybookError

MOST_SHOWN = 20
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]")


@dataclass(frozen=True)
class FileKind:
    """What a YAML file is. noun: how messages call it. begin: what an empty one is told to begin with. docs:
    the page that describes it."""

    noun: str
    begin: str
    docs: str


PLAYBOOK = FileKind("playbook", "begin with a copy of first-freeze.yaml", "docs/playbooks.md")


@dataclass(frozen=True, order=True)
class Place:
    """A position in the file. Lines and columns (in characters) are counted from 1."""

    line: int
    column: int


START = Place(1, 1)


@dataclass(frozen=True, order=True)
class Mistake:
    """What is wrong at a place, and what to do about it ("" when `what` says it)."""

    place: Place
    what: str
    todo: str = ""


class Wrong(ValueError):
    """A value that cannot be used, raised where its place is not known.

    within: keys from the refused value down to the part that is to be pointed at.
    """

    def __init__(self, what: str, todo: str = "", *, within: tuple[str | int, ...] = ()) -> None:
        super().__init__(what)
        self.what, self.todo, self.within = what, todo, within


class Clash(Wrong):
    """Two values, each good by itself, that do not go together.

    key: the one that is pointed at. senseless: a matrix may leave the combination out.
    """

    def __init__(self, what: str, todo: str, key: str, *, senseless: bool = True) -> None:
        super().__init__(what, todo, within=(key,))
        self.key, self.senseless = key, senseless


def printable(text: str) -> str:
    """`text` with everything that could disturb a terminal written as an escape."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def quoted(text: str, most: int = 40) -> str:
    """`text` for a message: in quotes, on one line, at most about `most` characters."""
    return repr(printable(text if len(text) <= most else text[: most - 1] + "…")).replace("\\\\", "\\")


def as_error(file: str, mistakes: Iterable[Mistake]) -> PlaybookError:
    """One error with a line for each mistake, in the order of the file, MOST_SHOWN at most."""
    ordered = sorted(set(mistakes))
    lines = []
    for mistake in ordered[:MOST_SHOWN]:
        advice = f"; {mistake.todo}" if mistake.todo else ""
        lines.append(f"{file}:{mistake.place.line}:{mistake.place.column}: {mistake.what}{advice}")
    if len(ordered) > MOST_SHOWN:
        lines.append(f"{file}: and {len(ordered) - MOST_SHOWN} more")
    return PlaybookError("\n".join(lines))
