"""Tolerant parsers of configurations and of programs' status: missing or invalid values are None."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction


def number(status: Mapping[str, str], key: str) -> int | None:
    """A whole number; None if there is none."""
    try:
        return int(status.get(key, ""))
    except ValueError:
        return None


def real(text: str) -> Fraction | None:
    """A decimal number, exact; None if the text is not one."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def switches(command: str, with_value: str) -> frozenset[str]:
    """The one-letter options of a command line, and the full names of the long ones. with_value: letters of
    options with a value (getopt(3))."""
    found: set[str] = set()
    given = iter(command.split()[1:])
    for word in given:
        if word.startswith("--"):
            found.add(word[2:].partition("=")[0])
        elif word.startswith("-"):
            for at, letter in enumerate(word[1:], 1):
                found.add(letter)
                if letter in with_value:
                    if at + 1 == len(word):
                        next(given, None)
                    break
    return frozenset(found)


def words(config: str, comments: str) -> list[list[str]]:
    """The lines of a configuration, divided into words, without comments (which begin with one of
    `comments`)."""
    found = []
    for line in config.splitlines():
        text = line.strip()
        if text and text[0] not in comments:
            found.append(text.split())
    return found
