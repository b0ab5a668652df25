"""PyYAML's complaints in the words of who wrote the file."""

from __future__ import annotations

import yaml

from lab.playbook.mistakes import START, Mistake, Place, quoted

_INDENT = "give the keys of one mapping the same number of spaces"
_QUOTE = "put quotes around a text that begins with a sign or has ': ' in it"
_STRAY = "correct this line or the one above it"
_ESCAPE = r"write \\ for a backslash, or use single quotes"
_UNCLOSED_QUOTE = "a quote that is opened and never closed"

# (part of PyYAML's problem, part of its context, what, what to do). The first that fits counts.
_KNOWN = (
    ("mapping values are not allowed", "", "an unexpected colon", f"{_INDENT}, or {_QUOTE}"),
    ("<block end>", "block mapping", "this line does not fit the lines above it", _INDENT),
    ("<block end>", "block collection", "this line does not fit the list above it", "align the '- ' signs"),
    ("sequence entries are not allowed", "", "a list cannot begin here", "begin it on a line of its own"),
    ("could not find expected ':'", "", "no 'key: value' although one is expected", "add the colon"),
    ("unexpected end of stream", "quoted scalar", _UNCLOSED_QUOTE, "add the closing quote"),
    ("document separator", "quoted scalar", _UNCLOSED_QUOTE, "add the closing quote"),
    ("unknown escape", "", "an unknown escape in double quotes", _ESCAPE),
    ("expected escape sequence", "", "an incomplete escape in double quotes", _ESCAPE),
    ("expected ',' or '}'", "", "a { is opened and not closed, or a comma is missing", "add the } or comma"),
    ("expected ',' or ']'", "", "a [ is opened and not closed, or a comma is missing", "add the ] or comma"),
    ("expected the node content", "", "a value is expected here", _QUOTE),
    ("expected alphabetic or numeric", "alias", "a text that begins with *", "put quotes around it"),
    ("expected alphabetic or numeric", "anchor", "a text that begins with &", "put quotes around it"),
    ("expected '<document start>'", "", "something follows the end of the text", _STRAY),
    ("mapping keys are not allowed", "", "an unexpected '?'", "put quotes around the text"),
)


def explain_syntax(error: yaml.YAMLError, text: str) -> Mistake:
    """The mistake behind `error`, which PyYAML raised on `text`."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return Mistake(START, "not YAML text", "give a YAML file")
    mark, opened = error.problem_mark or error.context_mark, error.context_mark
    place = Place(mark.line + 1, mark.column + 1) if mark else START
    problem, context = error.problem or "", error.context or ""
    tab = _tab(text, place)
    if tab:
        return Mistake(tab, "a tab; YAML wants spaces here", "replace each tab by spaces")
    for part, around, what, todo in _KNOWN:
        if part in problem and around in context:
            # A quote swallows all that follows; a bracket's trouble may be a comma on its own line.
            if opened and (what == _UNCLOSED_QUOTE or ("opened" in what and opened.line + 1 != place.line)):
                place = Place(opened.line + 1, opened.column + 1)
            return Mistake(place, what, todo)
    if "cannot start any token" in problem and mark:
        sign = _line(text, place.line)[place.column - 1 : place.column]
        return Mistake(place, f"a text that begins with {quoted(sign)}", "put quotes around it")
    return Mistake(place, f"not valid YAML: {problem or context or 'unknown'}", "correct the line")


def _line(text: str, number: int) -> str:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[number - 1] if number <= len(lines) else ""


def _tab(text: str, place: Place) -> Place | None:
    """A tab at the place, or in the indentation of its line: by far the commonest mistake, and
    PyYAML's own words for it do not name it."""
    line = _line(text, place.line)
    if line[place.column - 1 : place.column] == "\t":
        return place
    indentation = line[: len(line) - len(line.lstrip())]
    return Place(place.line, indentation.index("\t") + 1) if "\t" in indentation else None
