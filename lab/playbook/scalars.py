"""Readers: what a written scalar means, and the JSON schema of what may be written.

A reader takes a node and returns the value the plan wants, or raises Wrong. pydantic calls it
as the type of a field, `Annotated[int, duration()]`, so that each rule stands in one place.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from lab.core.units import NS_PER_S, format_duration, format_size, parse_duration, parse_size
from lab.playbook.mistakes import Wrong, quoted
from lab.playbook.tree import Items, Map, Scalar

HOUR = 3600 * NS_PER_S
DAY = 24 * HOUR
MOST_NAME = 40
MOST_TEXT = 1000
MOST_WORDS = 100

_LONGEST_QUANTITY = 40
_NULL = re.compile(r"|~|null|Null|NULL")
_BOOLEAN = re.compile(r"true|True|TRUE|false|False|FALSE")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0o[0-7]+|0x[0-9a-fA-F]+"
                     r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")  # fmt: skip
_WHOLE = re.compile(r"[-+]?[0-9]+")
_CLOCK = re.compile(r"[0-9]+(:[0-9]+)+")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_IMAGE = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
_PERCENT = re.compile(r"\s*\+?([0-9]+(?:\.[0-9]+)?)\s*%\s*")
_URL = re.compile(r"https?://[\x21-\x7e]+")
_PPM = re.compile(r"\s*([-+]?[0-9]+(?:\.[0-9]+)?)\s*(\S*)\s*")


@dataclass(frozen=True, eq=False)  # hashed by identity: `Annotated[...] | None` wants a hash
class ScalarReader:
    """Makes `Annotated[T, Reader]` a pydantic type: `read` gets the node as written."""

    read: Callable[[object], object]
    json: Mapping[str, object]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return dict(self.json)


def found(node: object) -> str:
    """What stands in the file, in words: "a list", "the number 5", "the text 'abc'"."""
    if isinstance(node, Map):
        return "a mapping"
    if isinstance(node, Items):
        return "a list"
    if not isinstance(node, Scalar):
        return "nothing"
    if node.plain and _NULL.fullmatch(node.text):
        return "nothing"
    if node.plain and _BOOLEAN.fullmatch(node.text):
        return f"{node.text} (yes or no)"
    if node.plain and _NUMBER.fullmatch(node.text):
        return f"the number {node.text[:_LONGEST_QUANTITY]}"
    return f"the text {quoted(node.text)}"


def is_text(node: Scalar) -> bool:
    """It is text to every YAML 1.2 reader, such as the one that checks the schema in an editor."""
    rules = (_NULL, _BOOLEAN, _NUMBER)
    return not (node.plain and any(rule.fullmatch(node.text) for rule in rules))


def expect_scalar(node: object, wanted: str, advice: str) -> Scalar:
    """`node` when something is written there; Wrong, asking for `wanted`, when not."""
    if isinstance(node, Scalar) and not (node.plain and _NULL.fullmatch(node.text)):
        return node
    raise Wrong(f"{wanted} is expected here, not {found(node)}", advice)


def _quantity(node: object, wanted: str, advice: str) -> str:
    text = expect_scalar(node, wanted, advice).text
    if len(text) > _LONGEST_QUANTITY:
        raise Wrong(f"not {wanted}: {quoted(text)}", advice)
    if text.strip().startswith("-") and _PPM.fullmatch(text):
        raise Wrong(f"{wanted} cannot be negative: {quoted(text)}", advice)
    return text.replace("\N{GREEK SMALL LETTER MU}", "\N{MICRO SIGN}")


def duration(*, zero: bool = False, most: int = DAY) -> ScalarReader:
    """Nanoseconds, at most `most`; zero: whether 0 makes sense."""
    advice = "write it like 5s, 250ms or 2min"

    def read(node: object) -> int:
        text = _quantity(node, "a duration", advice)
        if _CLOCK.fullmatch(text):
            raise Wrong(f"not a duration: {quoted(text)}", "write it with a unit, like 90s or 1.5min")
        try:
            value = parse_duration(text)
        except ValueError as error:
            raise Wrong(str(error)) from error
        if value == 0 and not zero:
            raise Wrong("zero is not allowed here", "write a longer duration, like 5s")
        if value > most:
            raise Wrong(f"{quoted(text)} is too long", f"write at most {_round_hours(most)}")
        return value

    units = "(ns|us|\N{MICRO SIGN}s|\N{GREEK SMALL LETTER MU}s|ms|s|min|m|h)"
    pattern = rf"^\s*\+?[0-9]+(\.[0-9]+)?\s*{units}\s*$"
    return ScalarReader(read, {"type": "string", "pattern": pattern})


def _round_hours(ns: int) -> str:
    return f"{ns // HOUR} h" if ns % HOUR == 0 else format_duration(ns)


def size(*, least: int) -> ScalarReader:
    """Bytes in whole MiB, at least `least`."""
    advice = "write it like 512 MiB or 2 GiB"

    def read(node: object) -> int:
        text = _quantity(node, "a size", advice)
        try:
            value = parse_size(text)
        except ValueError as error:
            raise Wrong(str(error)) from error
        if value < least:
            raise Wrong(f"{quoted(text)} is too small", f"write at least {format_size(least)}")
        if value % (1 << 20):
            raise Wrong(f"{quoted(text)} is not a whole number of MiB", advice)
        return value

    return ScalarReader(
        read, {"type": "string", "pattern": r"^\s*\+?[0-9]+(\.[0-9]+)?\s*(B|KiB|MiB|GiB|TiB)\s*$"}
    )


def ppm(*, most: int = 100_000) -> ScalarReader:
    """Parts per million, above 0 and at most `most`."""
    advice = "write it like 200 ppm"

    def read(node: object) -> float:
        text = _quantity(node, "a rate", advice)
        match = _PPM.fullmatch(text)
        if not match:
            raise Wrong(f"not a rate: {quoted(text)}", advice)
        number, unit = match.groups()
        if not unit:
            raise Wrong(f"a rate without a unit: {quoted(text)}", advice)
        if unit != "ppm":
            raise Wrong(f"unknown unit {quoted(unit)}", advice)
        value = float(number)
        if value == 0:
            raise Wrong("zero is not allowed here: no clock is free of drift", advice)
        if value > most:
            raise Wrong(f"{quoted(text)} is too large", f"write at most {most} ppm")
        return value

    return ScalarReader(read, {"type": "string", "pattern": r"^\s*\+?[0-9]+(\.[0-9]+)?\s*ppm\s*$"})


def percent(most: int) -> ScalarReader:
    """A share from 0 to 1, written in percent, at most `most` of them."""
    advice = f"write it like 75%, at most {most}%"

    def read(node: object) -> float:
        text = _quantity(node, "a share", advice)
        match = _PERCENT.fullmatch(text)
        if not match:
            missing = re.fullmatch(r"\s*[0-9.]+\s*", text)
            raise Wrong(f"{'a share without %' if missing else 'not a share'}: {quoted(text)}", advice)
        value = float(match[1])
        if value > most:
            raise Wrong(f"{quoted(text)} is too large", advice)
        return value / 100

    return ScalarReader(read, {"type": "string", "pattern": r"^\s*\+?[0-9]+(\.[0-9]+)?\s*%\s*$"})


def flag() -> ScalarReader:
    """true or false. YAML 1.1's other words for them (yes, no, on, off) are words here."""
    advice = "write true or false"

    def read(node: object) -> bool:
        text = expect_scalar(node, "true or false", advice)
        if not (text.plain and text.text in ("true", "false")):
            raise Wrong(f"neither true nor false: {quoted(text.text)}", advice)
        return text.text == "true"

    return ScalarReader(read, {"type": "boolean"})


def whole(least: int, most: int, noun: str) -> ScalarReader:
    """A whole number of `noun` from `least` to `most`."""
    wanted = f"a whole number from {least} to {most}"

    def read(node: object) -> int:
        scalar = expect_scalar(node, "a whole number", f"write {wanted}")
        text = scalar.text
        if not scalar.plain and _WHOLE.fullmatch(text):
            raise Wrong(f"a number in quotes: {quoted(text)}", "write it without quotes")
        if not _WHOLE.fullmatch(text):
            raise Wrong(f"not a whole number: {quoted(text)}", f"write {wanted}")
        digits = text.lstrip("+-")
        if len(digits) > 1 and digits.startswith("0"):
            raise Wrong(
                f"{quoted(text)} is a different number to some readers of YAML", "drop the leading zero"
            )
        # Python refuses to convert more than 4300 digits.
        value = int(text) if len(digits) < 20 else most + 1
        if text.startswith("-") or value < least:
            raise Wrong(f"{text[:20]} {noun} are too few", f"write {wanted}")
        if value > most:
            raise Wrong(f"{text[:20]} {noun} are too many", f"write {wanted}")
        return value

    return ScalarReader(read, {"type": "integer", "minimum": least, "maximum": most})


def alternatives(words: Sequence[str]) -> str:
    """ "a, b or c"."""
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else "".join(words)


def one_of(*members: StrEnum, hint: str, small: bool = False) -> ScalarReader:
    """One of `members`, whose values are the words written; small: in small letters."""
    words = [member.value.lower() if small else member.value for member in members]
    known = f"write {alternatives(words)}"

    def read(node: object) -> StrEnum:
        text = expect_scalar(node, hint, known).text
        if text in words:
            return members[words.index(text)]
        close = get_close_matches(text[:40].lower(), words, n=1)
        advice = f"did you mean {close[0]}?" if close else known
        raise Wrong(f"{quoted(text)} is not {hint}", advice)

    return ScalarReader(read, {"type": "string", "enum": words})


def name() -> ScalarReader:
    """A name that can also be a host name: an RFC 1123 label of at most MOST_NAME characters."""
    return _word(_LABEL, "a name", "small letters, digits and hyphens", MOST_NAME)


def is_name(text: str) -> bool:
    """Whether name() would accept this text."""
    return len(text) <= MOST_NAME and _LABEL.fullmatch(text) is not None


def image_name() -> ScalarReader:
    """The name of an image; or with a "/" the path of a recipe's folder."""
    word = _word(_IMAGE, "the name of an image", "small letters, digits, '.', '_' and '-'", 64)

    def read(node: object) -> object:
        path = node.text if isinstance(node, Scalar) else ""
        if "/" not in path:
            return word.read(node)
        if len(path) > MOST_TEXT or not path.isprintable():
            raise Wrong(f"{quoted(path)} is not the path of an image's folder", "write it like ./my-image")
        return path

    folder = {"type": "string", "pattern": "/", "maxLength": MOST_TEXT}
    return ScalarReader(read, {"anyOf": [dict(word.json), folder]})


def _word(pattern: re.Pattern[str], wanted: str, made_of: str, most: int) -> ScalarReader:
    rule = f"use {made_of}, beginning and ending with a letter or digit"

    def read(node: object) -> str:
        scalar = expect_scalar(node, wanted, rule)
        text = scalar.text
        if len(text) > most:
            raise Wrong(f"{quoted(text)} is too long for {wanted}", f"use at most {most} characters")
        if not pattern.fullmatch(text):
            slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
            raise Wrong(f"{quoted(text)} is not {wanted}", f"{rule}{f', like {slug}' if slug else ''}")
        if not is_text(scalar):
            what = f"YAML reads {text} as a number or as yes or no, not as a name"
            raise Wrong(what, f"write it in quotes: '{text}'")
        return text

    return ScalarReader(read, {"type": "string", "pattern": f"^{pattern.pattern}$", "maxLength": most})


def text() -> ScalarReader:
    """Free text of at most MOST_TEXT characters, without the spaces around it."""
    advice = "write some text"

    def read(node: object) -> str:
        scalar = expect_scalar(node, "a text", advice)
        if not is_text(scalar):
            raise Wrong(f"a text is expected here, not {found(node)}", "write it in quotes")
        if len(scalar.text) > MOST_TEXT:
            raise Wrong("the text is too long", f"use at most {MOST_TEXT} characters")
        return scalar.text.strip()

    return ScalarReader(read, {"type": "string", "maxLength": MOST_TEXT})


def shell_line() -> ScalarReader:
    """A command as one line, for the guest's shell."""
    advice = 'write it like "systemctl is-active nginx"'
    words = text()

    def read(node: object) -> str:
        line = words.read(expect_scalar(node, "a command", advice))
        if not isinstance(line, str) or not line or "\n" in line:
            raise Wrong("a command is one line, and not an empty one", advice)
        return line

    return ScalarReader(read, {"type": "string", "pattern": r"^[^\n]*[^\s][^\n]*$", "maxLength": MOST_TEXT})


def url() -> ScalarReader:
    """An address of HTTP, as a guest asks for it."""
    advice = "write it like http://127.0.0.1:8080/health"

    def read(node: object) -> str:
        line = expect_scalar(node, "a URL", advice).text.strip()
        try:
            parts = urlsplit(line) if _URL.fullmatch(line) and len(line) <= MOST_TEXT else None
            good = parts is not None and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:  # a port that is none, an address of half a bracket
            good = False
        if not good:
            raise Wrong(f"{quoted(line)} is not the URL of a web server", advice)
        return line

    return ScalarReader(read, {"type": "string", "pattern": f"^{_URL.pattern}$", "maxLength": MOST_TEXT})


def argv() -> ScalarReader:
    """A program and its arguments; numbers count as the text they are written with."""
    advice = "write a list, like [systemctl, restart, chrony]"

    def read(node: object) -> tuple[str, ...]:
        if isinstance(node, Scalar) and node.text.strip():
            raise Wrong("a command is a list of arguments, run without a shell", _as_list(node.text))
        if not isinstance(node, Items):
            raise Wrong(f"a list of arguments is expected here, not {found(node)}", advice)
        if not node or len(node) > MOST_WORDS:
            raise Wrong(f"a command with {len(node)} arguments", f"write 1 to {MOST_WORDS} arguments")
        return tuple(_read_word(word, index) for index, word in enumerate(node))

    return ScalarReader(
        read,
        {
            "type": "array",
            "items": {"type": ["string", "number", "boolean"]},
            "minItems": 1,
            "maxItems": MOST_WORDS,
        },
    )


def _read_word(word: object, index: int) -> str:
    if not isinstance(word, Scalar):
        raise Wrong(
            f"an argument is expected here, not {found(word)}", "put quotes around it", within=(index,)
        )
    if word.plain and _NULL.fullmatch(word.text):
        raise Wrong(
            "an empty argument", "write '' for an argument that is meant to be empty", within=(index,)
        )
    if index == 0 and not word.text.strip():
        raise Wrong("the program has no name", "write its name or path", within=(index,))
    return word.text


def _as_list(line: str) -> str:
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    plain = re.compile(r"[A-Za-z0-9_./=-]+")
    shown = ", ".join(word if plain.fullmatch(word) else quoted(word) for word in words[:8])
    return f"write [{shown}{', …' if len(words) > 8 else ''}]"
