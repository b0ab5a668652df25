"""Output of `freezelab explain`: terms, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console

from lab.core.terms import Term, glossary
from lab.report.page import Page

WIDEST = 22
"""A longer name has a line of its own."""


def render_terms(terms: Sequence[Term], console: Console) -> None:
    """Print what these mean, with their other names."""
    page = Page(console)
    for term in terms:
        page.labelled(term.name, term.text, label_style="bold", width=cell_len(term.name))
        others = [name for name in term.names[1:] if name.rstrip("s") != term.name]
        if others:
            page.labelled("", f"also: {', '.join(others)}", style="dim", width=cell_len(term.name))


def render_glossary(console: Console) -> None:
    """Print all terms, group by group."""
    page = Page(console)
    for title, terms in glossary().items():
        page.blank()
        page.put((title, "bold"))
        for term in sorted(terms, key=lambda one: one.name.lower().lstrip("|")):
            page.labelled(f"  {term.name}", term.text, label_style="", width=WIDEST)
