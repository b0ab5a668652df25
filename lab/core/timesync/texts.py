"""Configurations and what programs say of their state, read with patience: what is missing or odd is None."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction


def number(status: Mapping[str, str], key: str) -> int | None:
    """A whole number; None when there is none."""
    try:
        return int(status.get(key, ""))
    except ValueError:
        return None


def real(text: str) -> Fraction | None:
    """A decimal number, exactly; None when it is none."""
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def switches(command: str, with_value: str) -> frozenset[str]:
    """The one-letter options of a command line, and the long ones by their whole names. with_value: the
    letters that a value follows (getopt(3))."""
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
    """The lines of a configuration in words, without comments (which begin with one of `comments`)."""
    found = []
    for line in config.splitlines():
        text = line.strip()
        if text and text[0] not in comments:
            found.append(text.split())
    return found
