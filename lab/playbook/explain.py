"""From pydantic's errors to mistakes: each gets its place, and the words of who writes YAML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from lab.playbook.mistakes import PLAYBOOK, FileKind, Mistake, Place, Wrong, quoted
from lab.playbook.models import Document
from lab.playbook.scalars import found
from lab.playbook.tree import Items, Map, Node

Path = Sequence[str | int]

MOST_COMPARED = 40  # difflib's time grows with the square of the length


def explain(
    error: ErrorDetails, root: Map, document: type[BaseModel] = Document, kind: FileKind = PLAYBOOK
) -> Mistake:
    """The mistake behind one of pydantic's errors on `root`, which was read as a `document`."""
    path = _as_written(root, error["loc"])
    match error["type"]:
        case "value_error":
            raised = wrong(error)
            whole = _as_written(root, [*path, *raised.within])
            place = _place(root, whole, key=_is_section(root, whole))
            return Mistake(place, _at(path) + raised.what, raised.todo)
        case "missing":
            owner, name = path[:-1], str(path[-1])
            field = _fields(_model(owner, document))[name]
            example = next(iter(field.examples or [_example(_model(path, document))]))
            todo = f"add {name}: {example}"
            return Mistake(_place(root, owner, key=True), f"{_at(owner)}{name} is missing", todo)
        case "extra_forbidden":
            what = f"{_at(path[:-1])}unknown key {quoted(str(path[-1]))}"
            return Mistake(_place(root, path, key=True), what, _known(path[:-1], str(path[-1]), document))
        case "list_type":
            what = f"{_at(path)}a list is expected here, not {found(error['input'])}"
            return Mistake(_place(root, path), what, "begin each item with '- '")
        case "model_type" | "model_attributes_type" | "dict_type":
            what = f"{_at(path)}keys and values are expected here, not {found(error['input'])}"
            return Mistake(_place(root, path), what, f"write it like {_example(_model(path, document))}")
        case _:
            return Mistake(_place(root, path), f"{_at(path)}{error['msg']}", f"see {kind.docs}")


def wrong(error: ErrorDetails) -> Wrong:
    """What a reader or a rule raised."""
    raised = error.get("ctx", {}).get("error")
    return raised if isinstance(raised, Wrong) else Wrong(str(raised))


def _at(path: Path) -> str:
    """The way to a value, as a prefix: "guests[0].memory: "."""
    shown = ""
    for step in path:
        shown += f"[{step}]" if isinstance(step, int) else f".{step}" if shown else step
    return f"{shown}: " if shown else ""


def _as_written(root: Map, path: Path) -> Path:
    """The path without the numbers of values that stand alone for a list of one."""
    node: Node | None = root
    found: list[str | int] = []
    for step in path:
        if isinstance(step, int) and node is not None and not isinstance(node, Items):
            continue
        found.append(step)
        node = _step(node, step) if node is not None else None
    return found


def _step(node: Node, step: str | int) -> Node | None:
    if isinstance(node, Map) and isinstance(step, str):
        return node.get(step)
    if isinstance(node, Items) and isinstance(step, int) and step < len(node):
        return node[step]
    return None


def _is_section(root: Map, path: Path) -> bool:
    node: Node | None = root
    for step in path:
        node = _step(node, step) if node is not None else None
    return isinstance(node, Map)


def _place(root: Map, path: Path, *, key: bool = False) -> Place:
    """The place of the value at `path`, or of its key; where the path ends early, how far it goes."""
    node: Node = root
    place = root.place
    for step in path:
        if key and isinstance(node, Map) and isinstance(step, str) and step in node.keys_at:
            place = node.keys_at[step]
        below = _step(node, step)
        if below is None:
            break
        node = below
        if not key or isinstance(step, int):
            place = node.place
    return place


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Models inside a field's annotation, such as list[Guest] or Pause | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


def _model(path: Path, document: type[BaseModel]) -> type[BaseModel]:
    """The model of the section at `path`."""
    model = document
    for step in path:
        if isinstance(step, str):
            model = next(_sections(_fields(model)[step].annotation))
    return model


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields by the keys that are written."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _example(model: type[BaseModel]) -> str:
    extra = model.model_config["json_schema_extra"]
    return str(extra["x-example"]) if isinstance(extra, dict) else ""


def _homes(name: str, model: type[BaseModel], path: str = "") -> Iterator[str]:
    """The sections that have a key of this name, the outer ones first; "" is the top."""
    fields = _fields(model)
    if name in fields:
        yield path
        return
    for key, field in fields.items():
        for section in _sections(field.annotation):
            yield from _homes(name, section, f"{path}.{key}" if path else key)


def _known(section: Path, name: str, document: type[BaseModel]) -> str:
    """What to do about an unknown key: what was meant, where it belongs, or what there is."""
    keys = list(_fields(_model(section, document)))
    written = name[:MOST_COMPARED].lower().replace(" ", "_")
    spelled = [written.replace("-", "_"), written.replace("_", "-")]
    close = [key for key in spelled if key in keys] or get_close_matches(written, keys, n=1)
    if close:
        return f"did you mean {close[0]}?"
    homes = [home for spelling in dict.fromkeys(spelled) for home in _homes(spelling, document)]
    # A matrix has everybody's keys.
    homes = [home for home in homes if not home.startswith("matrix")] or homes
    if homes:
        return f"it belongs {' or '.join(f'under {home}' if home else 'at the top level' for home in homes)}"
    return f"known: {', '.join(keys)}"
