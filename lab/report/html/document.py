"""Templates into HTML, and the form that all pages have in common (templates/base.html.j2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from lab import __version__
from lab.core.verdict import Outcome
from lab.report.cycles import VERDICTS
from lab.report.text import glued

if TYPE_CHECKING:
    import jinja2

LARGE = 1_000_000
"""From this size on, in characters, a page is laid out in pieces."""
TEMPLATES = Path(__file__).parent / "templates"

_CLASSES = {
    "bold": "b", "dim": "dim", "green": "passed", "red": "failed", "yellow": "inconclusive",
    "magenta": "surprise", "cyan": "accent",
}  # fmt: skip
_BETWEEN = re.compile(r">\s*\n\s*<")
_OUTCOMES = {text: outcome for outcome, (text, _) in VERDICTS.items()}


@dataclass(frozen=True)
class PageSection:
    """A section of a page. id: of its heading's anchor. lead: a sentence below the heading."""

    id: str
    title: str
    content: Markup
    lead: str = ""


@dataclass(frozen=True)
class Tile:
    """A figure that is shown large. note: what it is of."""

    label: str
    value: str
    note: str = ""


def _classes(style: str) -> str:
    """The CSS classes of a terminal's style."""
    return " ".join(_CLASSES[word] for word in style.split() if word in _CLASSES)


def _outcome_of(text: str) -> Outcome | None:
    """The outcome that a cell's text names, as `VERDICTS` does."""
    return _OUTCOMES.get(text)


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["classes"] = _classes
    made.filters["glued"] = glued
    made.globals["outcome_of"] = _outcome_of
    made.globals["version"] = __version__
    return made


def markup(template: str, **values: Any) -> Markup:
    """A template's HTML. All values but Markup are escaped. Line breaks between tags are left out: a browser
    would make a node of each."""
    made = _environment().get_template(template).render(**values)
    return Markup(_BETWEEN.sub("><", made))  # noqa: S704


def page(
    title: str,
    outcome: Outcome | None,
    verdict: str,
    sections: Sequence[PageSection],
    *,
    name: str = "",
    facts: Sequence[str] = (),
    warnings: Sequence[str] = (),
    tiles: Sequence[Tile] = (),
    template: str = "base.html.j2",
    **values: Any,
) -> str:
    """A whole page. verdict: a sentence beside the outcome. facts: lines below it. Sections without content
    are left out."""
    shown = [section for section in sections if section.content]
    return markup(
        template, large=sum(len(section.content) for section in shown) > LARGE,
        title=title, outcome=outcome, verdict=verdict, name=name, facts=facts, warnings=warnings, tiles=tiles,
        sections=shown, **values,
    )  # fmt: skip


class PictureIds:
    """Numbers for the ids of a page's pictures."""

    def __init__(self) -> None:
        self._next = count(1)

    def new(self) -> str:
        return f"p{next(self._next)}"
