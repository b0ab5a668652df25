"""The members of run.json as its schema has them, one line each, for comparing two versions:

    guests[].cycles[].pause.low_ns  always  integer

always: the member is in every run.json of this version or a later one. What follows are its types; constants
of an enumeration are types of their own. tests/data/run.members.txt is the list of the last version that was
published. It is made anew when a version is released:

    python -m tests.unit.schema_members > tests/data/run.members.txt
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lab.record.run import schema

PUBLISHED = Path(__file__).parent.parent / "data" / "run.members.txt"


class SchemaMember(NamedTuple):
    """types: empty for any value."""

    always: bool
    types: frozenset[str]


def members_of(whole: dict[str, Any]) -> dict[str, SchemaMember]:
    """Every member by its path; "[]" is an entry of an array, "*" any other member of an object."""
    return dict(_object("", whole, whole))


def written(members: dict[str, SchemaMember]) -> str:
    """One line for each member."""
    lines = []
    for path, member in sorted(members.items()):
        lines.append(f"{path}  {'always' if member.always else 'maybe'}  {' '.join(sorted(member.types))}")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def read(text: str) -> dict[str, SchemaMember]:
    """What `written` wrote."""
    found = {}
    for line in text.splitlines():
        path, rest = line.split("  ", 1)
        always, _, types = rest.partition("  ")
        found[path] = SchemaMember(always == "always", frozenset(types.split(" ")) - {""})
    return found


def breaks(before: dict[str, SchemaMember], after: dict[str, SchemaMember]) -> list[str]:
    """What a program that reads `before` could trip over in `after`, one line each."""
    found = []
    for path, old in sorted(before.items()):
        new = after.get(path)
        if new is None:
            found.append(f"{path}: is gone")
        elif old.always and not new.always:
            found.append(f"{path}: may be missing now")
        elif old.types and (more := new.types - old.types or ({"any"} if not new.types else set())):
            found.append(f"{path}: may be {', '.join(sorted(more))} now")
    return found


def _object(path: str, given: dict[str, Any], whole: dict[str, Any]) -> Iterator[tuple[str, SchemaMember]]:
    required = given.get("required", [])
    for name, value in given.get("properties", {}).items():
        where = f"{path}.{name}" if path else name
        types, below = _value(where, value, whole)
        yield where, SchemaMember(name in required, types)
        yield from below


def _value(
    path: str, given: dict[str, Any], whole: dict[str, Any]
) -> tuple[frozenset[str], list[tuple[str, SchemaMember]]]:
    """The types of a value, and the members below it."""
    if "$ref" in given:
        return _value(path, whole["$defs"][given["$ref"].rpartition("/")[2]], whole)
    if "anyOf" in given:
        each = [_value(path, one, whole) for one in given["anyOf"]]
        return frozenset().union(*(types for types, _ in each)), [m for _, below in each for m in below]
    if "enum" in given or "const" in given:
        return frozenset(f"={value}" for value in given.get("enum", [given.get("const")])), []
    below = list(_object(path, given, whole))
    for key, where in (("items", f"{path}[]"), ("additionalProperties", f"{path}.*")):
        if isinstance(given.get(key), dict):
            types, more = _value(where, given[key], whole)
            below += [(where, SchemaMember(False, types)), *more]
    for number, one in enumerate(given.get("prefixItems", [])):
        types, more = _value(f"{path}[{number}]", one, whole)
        below += [(f"{path}[{number}]", SchemaMember(True, types)), *more]
    return frozenset([given["type"]] if "type" in given else []), below


if __name__ == "__main__":
    print(written(members_of(schema())), end="")  # noqa: T201 - a command
