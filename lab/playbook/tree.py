"""YAML text as a tree of nodes that know where they were written.

Scalars stay as written: whether `5`, `no` or `1:30` is a number, a word or a mistake is
decided by who reads the value, so none of YAML 1.1's surprises (`no` is false, `010` is 8,
`1:30` is 90) can happen. Of YAML only what data needs is taken: one document, no anchors and
aliases (so there is no bomb to expand), no tags, no merge keys, keys that are text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from lab.playbook.mistakes import PLAYBOOK, START, FileKind, Mistake, Place, quoted
from lab.playbook.source import REFUSED
from lab.playbook.syntax import explain_syntax

MOST_DEPTH = 32
MOST_KEYS = 100  # of one mapping; more is another kind of file, and not worth a line for each


@dataclass(frozen=True)
class Scalar:
    """A value as written. plain: it stands without quotes and is not a block of text."""

    text: str
    plain: bool
    place: Place


class Map(dict[str, "Node"]):
    """A mapping; `keys_at` are the places of its keys."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.keys_at: dict[str, Place] = {}
        self.written = 0  # keys, the refused ones as well


class Items(list["Node"]):
    """A list."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place


Node = Scalar | Map | Items


@dataclass
class _Open:
    """A mapping or list that is still being filled; key: the key that waits for its value."""

    node: Map | Items
    key: Node | None = None


@dataclass
class _Fatal(Exception):
    mistake: Mistake


@dataclass
class _Composer:
    kind: FileKind
    root: Node | None = None
    mistakes: list[Mistake] = field(default_factory=list)
    stack: list[_Open] = field(default_factory=list)
    documents: int = 0

    def take(self, event: yaml.Event) -> None:
        mark = event.start_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else START
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                what = "a second document begins here (---)"
                raise _Fatal(Mistake(place, what, f"write one {self.kind.noun} per file"))
        elif isinstance(event, yaml.NodeEvent):
            self._check_node(event, place)
            self._take_node(event, place)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self.stack.pop()

    def _check_node(self, event: yaml.NodeEvent, place: Place) -> None:
        if event.anchor is not None:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            what = f"anchors and aliases ({sign}{event.anchor[:20]}) are not part of a {self.kind.noun}"
            raise _Fatal(Mistake(place, what, "write the value where it is used"))
        tag = getattr(event, "tag", None)
        if tag is not None:
            shown = quoted(tag.replace("tag:yaml.org,2002:", "!!"))
            self.mistakes.append(
                Mistake(place, f"tags ({shown}) are not part of a {self.kind.noun}", "delete the tag")
            )

    def _take_node(self, event: yaml.NodeEvent, place: Place) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._put(Scalar(self._clean(event.value, place), event.style is None, place))
            return
        node = Map(place) if isinstance(event, yaml.MappingStartEvent) else Items(place)
        self._put(node)
        self.stack.append(_Open(node))
        if len(self.stack) > MOST_DEPTH:
            raise _Fatal(
                Mistake(
                    place, f"nested deeper than {MOST_DEPTH} levels", f"a {self.kind.noun} needs at most five"
                )
            )

    def _clean(self, text: str, place: Place) -> str:
        # Escapes in double quotes ("\e", "\ud800") write what the file itself may not hold.
        bad = next((c for c in text if c == "\r" or REFUSED.match(c)), None)
        if bad:
            what = f"the text holds a control character, U+{ord(bad):04X}"
            self.mistakes.append(Mistake(place, what, "delete its escape"))
            text = REFUSED.sub("_", text)
        return text

    def _put(self, node: Node) -> None:
        if not self.stack:
            self.root = node
            return
        frame = self.stack[-1]
        if isinstance(frame.node, Items):
            frame.node.append(node)
        elif frame.key is None:
            frame.key = node
        else:
            key, frame.key = frame.key, None
            self._add(frame.node, key, node)

    def _add(self, to: Map, key: Node, value: Node) -> None:
        to.written += 1
        if to.written > MOST_KEYS:
            what = f"more than {MOST_KEYS} keys in one mapping"
            raise _Fatal(Mistake(key.place, what, f"check that this is a {self.kind.noun}"))
        if not isinstance(key, Scalar):
            todo = f"put quotes around it; there are no {{{{ templates }}}} in a {self.kind.noun}"
            self.mistakes.append(Mistake(key.place, "a key that is not plain text", todo))
        elif key.plain and key.text == "<<":
            what = f"merge keys (<<) are not part of a {self.kind.noun}"
            self.mistakes.append(Mistake(key.place, what, "write the keys themselves"))
        elif key.text in to:
            first = to.keys_at[key.text].line
            what = f"the key {quoted(key.text)} is given twice, first in line {first}"
            self.mistakes.append(Mistake(key.place, what, "delete one of the two"))
        else:
            to[key.text] = value
            to.keys_at[key.text] = key.place


def _events(text: str) -> Iterator[yaml.Event]:
    # libyaml's parser would be ten times faster but words its complaints otherwise.
    loader = yaml.SafeLoader(text)
    try:
        while loader.check_event():
            event: yaml.Event = loader.get_event()  # type: ignore[no-untyped-call]
            yield event
    except yaml.YAMLError as error:
        raise _Fatal(explain_syntax(error, text)) from error
    except (ValueError, OverflowError) as error:  # PyYAML on an escape such as "\UFFFFFFFF"
        place = Place(loader.line + 1, loader.column + 1)
        raise _Fatal(Mistake(place, "an escape for a code that is not a character", "delete it")) from error
    finally:
        loader.dispose()


def compose(text: str, kind: FileKind = PLAYBOOK) -> tuple[Node | None, list[Mistake]]:
    """The tree in `text` and the mistakes found on the way; no tree when it could not be read
    to its end or holds nothing."""
    composer = _Composer(kind)
    try:
        for event in _events(text):
            composer.take(event)
    except _Fatal as fatal:
        return None, [*composer.mistakes, fatal.mistake]
    if composer.root is None or composer.root == Scalar("", True, composer.root.place):
        composer.mistakes.append(Mistake(START, f"the {kind.noun} is empty", kind.begin))
        return None, composer.mistakes
    return composer.root, composer.mistakes
