"""A page read back: what is wrong with its HTML, and what it shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br"}
NAMES = {"href", "src", "srcset", "xlink:href", "action", "poster", "data", "background"}


@dataclass
class ReadPage(HTMLParser):
    """Tags, ids, references and texts of a page."""

    text: str
    tags: Counter[str] = field(default_factory=Counter)
    ids: Counter[str] = field(default_factory=Counter)
    references: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    handlers: list[str] = field(default_factory=list)
    unbalanced: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []
        self.feed(self.text)
        self.close()
        self.unbalanced += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        if tag not in VOID:
            self._open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids[value or ""] += 1
            if name in NAMES:
                self.references.append(value or "")
            if name in ("aria-labelledby", "aria-describedby"):
                self.labels += (value or "").split()
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.unbalanced.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def shown(self) -> str:
        return " ".join(" ".join(self.words).split())

    def mistakes(self) -> list[str]:
        """What no page may have: references to elsewhere, scripts, ids twice, labels without a target."""
        found = [f"refers to {one}" for one in self.references if not one.startswith(("#", "data:"))]
        found += [f"{tag} element" for tag in ("script", "iframe", "img", "object", "form") if self.tags[tag]]
        found += [f"id {one} {times} times" for one, times in self.ids.items() if times > 1]
        found += [f"no element {one}" for one in self.labels if one not in self.ids]
        anchors = [one[1:] for one in self.references if one.startswith("#")]
        found += [f"no element {one} to refer to" for one in anchors if one not in self.ids]
        found += [f"attribute {one}" for one in self.handlers]
        return found + [f"unbalanced {one}" for one in self.unbalanced]
