"""The glossary has every word that a report uses as a head or a label."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab import report
from lab.cli.main import app
from lab.core.mechanism import ResyncMechanism
from lab.core.method import FreezeMethod
from lab.core.terms import find, glossary, near
from lab.record.run import Run
from lab.report.page import Page
from lab.report.table import Layout
from tests import glossary as page_of_terms
from tests.unit.builders import RUNS
from tests.unit.consoles import page, pipe, terminal
from tests.unit.real_histories import NAMES, real

ROOT = Path(__file__).parents[2]
MODULES = Path(report.__file__).parent
OTHERS = ("calibration", "drift", "history", "listings", "nights", "plan", "service", "live")
"""Beginnings of modules whose output is not a report."""
NAMED = {"Column", "labelled"}


def literals(tree: ast.AST) -> Iterator[str]:
    """Heads of columns, labels, and values of `label`, as far as they are written out."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            called = node.func.value if isinstance(node.func, ast.Subscript) else node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in NAMED and isinstance(first := node.args[0], ast.Constant):
                yield str(first.value)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            yield from [str(node.value.value)] if "label" in names else []


def test_every_head_and_label_in_the_code_has_a_term() -> None:
    files = [path for path in MODULES.glob("*.py") if not path.stem.startswith(OTHERS)]
    words = {word.strip() for path in files for word in literals(ast.parse(path.read_text("utf-8")))}
    assert len(words) > 60
    assert not sorted(word for word in words if word and not find(word))


@pytest.mark.parametrize("name", [*NAMES, *RUNS])
def test_every_head_and_label_on_a_page_has_a_term(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = real(name) if name in NAMES else RUNS[name]()
    words: set[str] = set()
    labelled, of = Page.labelled, Layout.of

    def label(self: Page, label: str, text: str, **more: object) -> None:
        words.add(label)
        labelled(self, label, text, **more)  # type: ignore[arg-type]

    def heads(columns, rows, gap, known):  # type: ignore[no-untyped-def]
        words.update(column.head for column in columns)
        return of(columns, rows, gap, known)

    monkeypatch.setattr(Page, "labelled", label)
    monkeypatch.setattr(Layout, "of", heads)
    for console in (terminal(60), terminal(120), pipe()):
        for verbose in (False, True):
            page(made, console, verbose=verbose)
    unknown = {word.strip() for word in words if word.strip() and not find(word)}
    assert not {word for word in unknown if not of_this_run(made, word)}


def of_this_run(made: Run, word: str) -> bool:
    """True for a head or label that comes from the run's own names and numbers."""
    own = {cell.id for cell in made.cells} | {guest.name for guest in made.guests}
    own |= {one.method for one in made.tolerances} | {event.group for event in made.events} - {""}
    numbers = ("≤", ">", "a full bar is ", "measured in ")
    cut = word.removesuffix("…")
    return word.startswith(numbers) or any(word.startswith(name) or name.startswith(cut) for name in own)


def test_every_metric_and_every_choice_has_a_term() -> None:
    words = {*FreezeMethod, *ResyncMechanism, "passed", "failed", "inconclusive"}
    words |= {s.metric for name in NAMES for s in real(name).statistics}
    words |= {step.name for n in NAMES for g in real(n).guests for c in g.cycles for step in c.steps}
    words |= {c.regime for n in NAMES for g in real(n).guests for c in g.cycles if c.regime}
    assert not sorted(word for word in words if not find(word))


def test_a_term_is_a_line_of_plain_text() -> None:
    for terms in glossary().values():
        for term in terms:
            assert term.text.isprintable() and 10 < len(term.text) < 160, term
            assert not term.text.endswith("."), term
            assert find(term.name), term


def test_the_page_of_terms_is_this_glossary() -> None:
    assert (ROOT / "docs" / "terms.md").read_text("utf-8") == page_of_terms.document()


def test_the_readme_says_the_same() -> None:
    text = (ROOT / "README.md").read_text("utf-8").split("## How to read a report")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) > 5
    for name, meaning in rows[1:]:
        assert meaning.replace("*", "") in {term.text for term in find(name)}, name


def test_explain() -> None:
    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["explain", *words])
        return done.exit_code, done.stdout + done.stderr

    assert run("in", "time", "after") == run("in time after")
    assert "stayed so" in run("in time after")[1]
    code, text = run("pauze")
    assert code == 2
    assert text.splitlines() == ["freezelab: there is no term 'pauze'", "perhaps: pause"]
    assert run("zzzzzz")[1].endswith("freezelab explain lists all of them\n")
    assert run("none")[1].count("none  ") == 2
    code, text = run()
    assert code == 0
    assert all(term.name in text for terms in glossary().values() for term in terms)


def test_near_ones() -> None:
    assert near("regimen") == ["regime"]
    assert "closure" in near("closre")
    assert near("") == []
