"""From a matrix to its cells: each is the document with one combination of values put in.

The values are put in as nodes, so every cell is checked by the rules of any playbook, and a mistake
points at where its value was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lab.core.plan import LeftOut
from lab.core.units import format_duration, format_size
from lab.playbook import migration_keys
from lab.playbook.explain import explain, wrong
from lab.playbook.fields import FOLDER
from lab.playbook.matrix import HOMES, MOST_CELLS, Matrix
from lab.playbook.mistakes import MOST_SHOWN, Clash, Mistake, Place
from lab.playbook.models import Document
from lab.playbook.patch_section import Patch
from lab.playbook.tree import Items, Map, Node, Scalar
from lab.playbook.workload_section import WorkloadSection

MOST_WORD = 32  # characters of one value in an id
_MISSING = {("resync",): ("resync",), ("cycle",): ("patch", "hold"), ("cycle", "patch"): ("patch", "hold")}

Values = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Expanded:
    """A cell: its id, its values as written, what is run there, and whether it may be refused."""

    id: str
    values: Values
    document: Document
    may_be_refused: bool = False


@dataclass
class Expansion:
    """What became of a matrix."""

    cells: list[Expanded] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    mistakes: set[Mistake] = field(default_factory=set)


def axes_of(root: Map) -> tuple[str, ...]:
    """The axes in the order they are written; () without a matrix."""
    matrix = root.get("matrix")
    return tuple(axis for axis in matrix if axis in HOMES) if isinstance(matrix, Map) else ()


def with_search(root: Map) -> Map:
    """The document of a search with a hold, which the search itself chooses."""
    search = root.get("tolerance")
    if search is None:
        return root
    cycle = root.get("cycle", Map(search.place))
    if not isinstance(cycle, Map) or "patch" in cycle:
        return root
    hold = Map(search.place)
    hold["hold"] = Scalar("1s", True, search.place)
    return _changed(root, {"cycle": _changed(cycle, {"patch": hold})})


def settled(error: ErrorDetails, axes: Sequence[str]) -> bool:
    """Whether the matrix has an answer to what is wrong with the document without its values."""
    if error["type"] == "missing":
        return any(axis in axes for axis in _MISSING.get(tuple(map(str, error["loc"])), ()))
    return bool(axes) and error["type"] == "value_error" and isinstance(wrong(error), Clash)


def given_twice(root: Map, axes: Sequence[str]) -> Iterator[Mistake]:
    """Values that are in a section and in the matrix."""
    matrix = root.get("matrix")
    for axis in axes:
        if axis in ("hold", "patch") and "tolerance" in root and isinstance(matrix, Map):
            what = f"matrix.{axis} does not go with tolerance, which chooses the hold"
            yield Mistake(matrix.keys_at[axis], what, "delete one of the two")
            continue
        home, fleet = HOMES[axis], root.get("fleet")
        within = "fleet." if home[0] == "guests" and isinstance(fleet, Map) else ""
        outer = fleet if within and isinstance(fleet, Map) else root
        for name in (home[0], "scale_sets") if within else (home[0],):
            section: Node | None = outer if len(home) == 1 else outer.get(name)
            for number, part in enumerate(section if isinstance(section, Items) else [section]):
                if isinstance(part, Map) and home[-1] in part:
                    at = f"{name}[{number}].{home[1]}" if isinstance(section, Items) else ".".join(home)
                    what = f"{within}{at} is given here and by matrix.{axis}"
                    yield Mistake(part.keys_at[home[-1]], what, "delete one of the two")


def expand(root: Map, folder: Path) -> Expansion:
    """The cells of a document that is right but for what its matrix brings together. folder: what a handler's
    path is meant from."""
    made = Expansion()
    matrix, axes = Matrix.model_validate(root["matrix"]), axes_of(root)
    total = prod(len(matrix.values(axis)) for axis in axes)
    if total > MOST_CELLS:
        what = f"matrix: {total} combinations are too many"
        made.mistakes.add(Mistake(root.keys_at["matrix"], what, f"ask for at most {MOST_CELLS}"))
        return made
    clashes: list[Mistake] = []
    keys: set[tuple[object, ...]] = set()
    ids: set[str] = set()
    for chosen in product(*(range(len(matrix.values(axis))) for axis in axes)):
        combination = _Combination(root, matrix, dict(zip(axes, chosen, strict=True)), folder)
        if any(named.covers(combination.values) for named in matrix.exclude or ()):
            made.left_out.append(LeftOut(combination.written(), "excluded by the playbook"))
            continue
        document = combination.document()
        if combination.senseless:
            made.left_out.append(LeftOut(combination.written(), combination.senseless.what))
            clashes += combination.mistakes
        elif document is None:
            made.mistakes.update(combination.mistakes)
            if len(made.mistakes) > MOST_SHOWN:
                break
        elif (key := combination.key()) in keys:
            why = f"save_to is not for {document.cycle.way}, which runs once for all of its values"
            made.left_out.append(LeftOut(combination.written(whole=True), why))
        else:
            keys.add(key)
            may = any(named.covers(combination.values) for named in matrix.may_be_refused or ())
            made.cells.append(Expanded(combination.id(ids), combination.written(), document, may))
    if not made.mistakes:
        made.mistakes.update(_pointless(root, axes, made, clashes))
    return made


def _pointless(root: Map, axes: Sequence[str], made: Expansion, clashes: list[Mistake]) -> Iterable[Mistake]:
    """Mistakes of a matrix that runs nothing, or has no use for save_to."""
    if not made.cells:
        if len(set(clashes)) == 1 and len(clashes) == len(made.left_out):
            return clashes[:1]
        why = made.left_out[0].why
        what = f"matrix: every combination is excluded, the first because: {why}"
        return [Mistake(root.keys_at["matrix"], what, "choose values that fit together")]
    cycle = root.get("cycle")
    holder = root["matrix"] if "save_to" in axes else cycle
    if (
        isinstance(holder, Map)
        and "save_to" in holder
        and not any(cell.document.cycle.save_to for cell in made.cells)
    ):
        return [Mistake(holder.keys_at["save_to"], "save_to: no cell writes a file there", "delete it")]
    return []


class _Combination:
    """One value of each axis, and what comes of them."""

    def __init__(self, root: Map, matrix: Matrix, chosen: Mapping[str, int], folder: Path) -> None:
        self._root, self._chosen, self._saves, self._folder = root, chosen, True, folder
        self.values = {axis: matrix.values(axis)[index] for axis, index in chosen.items()}
        self.senseless: Clash | None = None
        self.mistakes: list[Mistake] = []

    def document(self) -> Document | None:
        """The document with the values put in. None when it is not right: `mistakes` says why, and
        `senseless` when the values make no sense together."""
        tree = _filled(self._root, self._nodes())
        try:
            return Document.model_validate(tree, context={FOLDER: self._folder})
        except ValidationError as error:
            errors = error.errors(include_url=False)
        raised = [wrong(one) if one["type"] == "value_error" else None for one in errors]
        first = raised[0]
        if isinstance(first, Clash):
            if first.key == "save_to" and self._saves and self._may_save():
                self._saves = False
                return self.document()
            self.senseless = first if first.senseless else None
        self.mistakes = [explain(one, tree) for one in errors]
        return None

    def _may_save(self) -> bool:
        """Whether another cell may have a use for save_to."""
        return any(axis in self._chosen for axis in ("save_to", "method", "patch", "hold"))

    def _nodes(self, *, whole: bool = False) -> dict[str, Node | None]:
        """The chosen nodes by axis. None takes what the section has away."""
        matrix = self._root["matrix"]
        nodes: dict[str, Node | None] = {}
        for axis, index in self._chosen.items():
            values = matrix[axis] if isinstance(matrix, Map) else Items(matrix.place)
            nodes[axis] = values[index] if isinstance(values, Items) else None
        if not self._saves and not whole:
            nodes["save_to"] = None
        return nodes

    def key(self) -> tuple[object, ...]:
        """What tells cells apart."""
        return tuple(index for axis, index in self._chosen.items() if axis != "save_to" or self._saves)

    def written(self, *, whole: bool = False) -> Values:
        """(axis, value as written); whole: with those that are of no use."""
        return tuple(
            (axis, _flow(node)) for axis, node in self._nodes(whole=whole).items() if node is not None
        )

    def id(self, taken: set[str]) -> str:
        """An id that is not taken yet; now it is."""
        words = [_word(axis, self.values[axis]) for axis, node in self._nodes().items() if node is not None]
        name = plain = "-".join(words) or "all"
        number = 1
        while name in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name)
        return name


def _flow(node: Node, *, inner: bool = False) -> str:
    """A value as it is written, on one line, without the braces around it."""
    if isinstance(node, Scalar):
        return node.text.strip()
    if isinstance(node, Items):
        return f"[{', '.join(_flow(item, inner=True) for item in node)}]"
    pairs = ", ".join(f"{key}: {_flow(value, inner=True)}" for key, value in node.items())
    return f"{{{pairs}}}" if inner else pairs


def _word(axis: str, value: object) -> str:
    """A value in an id: letters, digits, "." and "-"."""
    match axis, value:
        case "memory", int():
            word = format_size(value).replace(" ", "")
        case "vcpus", int():
            word = f"{value}vcpu"
        case "hold", int():
            word = f"hold-{format_duration(value).replace(' ', '')}"
        case "fill", float():
            word = f"fill-{100 * value:g}"
        case "prove_memory", bool():
            word = "proved" if value else "unproved"
        case "save_to", str():
            word = "shm" if value.startswith("/dev/shm/") else value.rsplit("/", 1)[-1]  # noqa: S108 - a name
        case "patch", Patch():
            word = value.to_plan().short
        case "workload", WorkloadSection():
            word = "-".join([value.name, *(text for option in value.options for text in option)])
        case _:
            word = migration_keys.word(axis, value) or str(value)
    return re.sub(r"[^A-Za-z0-9.-]+", "-", word.replace("µ", "u"))[:MOST_WORD].strip("-.") or "x"


def _filled(root: Map, nodes: Mapping[str, Node | None]) -> Map:
    """`root` with these values in the places of their axes, and without its matrix."""
    at = root["matrix"].place
    tree = _changed(root, {"matrix": None})
    for axis, node in nodes.items():
        home = HOMES[axis]
        if axis == "hold" and node is not None:
            node = _changed(Map(node.place), {"hold": node})
        section, fleet = tree.get(home[0], Map(at)), tree.get("fleet")
        if len(home) == 1:
            tree = _changed(tree, {home[0]: node})
        elif home[0] == "guests" and isinstance(fleet, Map):
            changes = {name: _guests(fleet, home[1], node, at, name) for name in _lists(fleet)}
            tree = _changed(tree, {"fleet": _changed(fleet, changes)})
        elif home[0] == "guests":
            tree = _changed(tree, {"guests": _guests(tree, home[1], node, at)})
        elif isinstance(section, Map):
            tree = _changed(tree, {home[0]: _changed(section, {home[1]: node})})
    return tree


def _lists(fleet: Map) -> list[str]:
    """The keys of a fleet's guests; the one that stands for none is there only without scale sets."""
    if "scale_sets" not in fleet:
        return ["guests"]
    return [key for key in ("guests", "scale_sets") if key in fleet]


def _guests(holder: Map, key: str, node: Node | None, at: Place, name: str = "guests") -> Items:
    """The list of guests in `holder`, or the one that stands for none, each with this value."""
    written = holder.get(name)
    if not isinstance(written, Items):
        written = Items(at)
        written.append(_changed(Map(at), {"name": Scalar("web-0", True, at)}))
    guests = Items(written.place)
    guests.extend(_changed(guest, {key: node}) for guest in written if isinstance(guest, Map))
    return guests


def _changed(old: Map, changes: Mapping[str, Node | None]) -> Map:
    """A copy of `old` with these keys; None takes one away."""
    new = Map(old.place)
    new.update(old)
    new.keys_at.update(old.keys_at)
    for key, node in changes.items():
        if node is None:
            new.pop(key, None)
        else:
            new[key] = node
            new.keys_at[key] = node.place
    return new
