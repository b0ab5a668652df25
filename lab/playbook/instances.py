"""`instance` and `compute_name`: what the metadata service says of a guest, in Azure's own words."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from lab.core.scheduled.instance import COMPUTE_NAME, MOST_ENTRIES, Given, fields, refusal
from lab.playbook.mistakes import Wrong, quoted
from lab.playbook.scalars import ScalarReader, expect_scalar, found
from lab.playbook.tree import Items, Map

_ADVICE = "write it as in /metadata/instance, like {compute: {zone: 1}}"

Place = tuple[str | int, ...]


def compute_name() -> ScalarReader:
    """What events call a guest."""
    advice = "use letters, digits, '.', '_' and '-', at most 64, beginning with a letter or digit"

    def read(node: object) -> str:
        text = expect_scalar(node, "a name", advice).text
        if not COMPUTE_NAME.fullmatch(text):
            raise Wrong(f"{quoted(text)} is not a valid compute.name", advice)
        return text

    return ScalarReader(read, {"type": "string", "pattern": f"^{COMPUTE_NAME.pattern}$"})


def instance() -> ScalarReader:
    """Values of /metadata/instance, a mapping as it is answered; any part of it."""

    def read(node: object) -> Given:
        if not isinstance(node, Map):
            raise Wrong(f"a mapping is expected here, not {found(node)}", _ADVICE)
        return tuple(_leaves(node, ()))

    part = {"type": "object"}
    return ScalarReader(
        read,
        {"type": "object", "properties": {"compute": part, "network": part}, "additionalProperties": False},
    )


def _leaves(node: object, at: Place) -> Iterator[tuple[tuple[str, ...], str]]:
    path = tuple(map(str, at))
    if isinstance(node, Map):
        for key, value in node.items():
            yield from _leaves(value, (*at, key))
    elif isinstance(node, Items):
        if len(node) > MOST_ENTRIES:
            raise Wrong(f"{len(node)} entries are too many", f"write at most {MOST_ENTRIES}", within=at)
        for index, value in enumerate(node):
            yield from _leaves(value, (*at, index))
    else:
        if why := refusal(path):
            close = get_close_matches(path[-1], fields(path[:-1]), n=1)
            raise Wrong(f"{'.'.join(path)}: {why}", f"did you mean {close[0]}?" if close else "", within=at)
        try:
            yield path, expect_scalar(node, "a value", "write '' for an empty one").text
        except Wrong as wrong:
            raise Wrong(wrong.what, wrong.todo, within=at) from None
