"""Properties of the clone that no linter knows."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import grimp
import pytest
from packaging.requirements import Requirement

from tests.bench import house
from tests.lint.conftest import ROOT

# In pieces, or this file would be the first finding.
REGISTRIES = [
    f"{name}.{domain}"
    for name, domain in [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("proxy.golang", "org"),
        ("rubygems", "org"),
        ("crates", "io"),
        ("deb.debian", "org"),
        ("archive.ubuntu", "com"),
    ]
]


def test_no_conflict_was_committed_with_its_marks(own_files: list[Path]) -> None:
    pattern = re.compile(rf"^(?:{'<' * 7}|{'>' * 7}) ", re.MULTILINE)
    texts = {path: path.read_bytes().decode("utf-8", "replace") for path in own_files}
    found = [str(path.relative_to(ROOT)) for path, text in texts.items() if pattern.search(text)]
    assert texts and not found, found


def test_no_registry_is_named(own_files: list[Path]) -> None:
    """Where packages come from is the machine's own setting."""
    pattern = re.compile("|".join(map(re.escape, REGISTRIES)), re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match.group()}"
        for path in own_files
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if (match := pattern.search(line))
    ]
    assert not found, "\n".join(found)


def test_no_log_is_cut_by_the_time_of_day(own_files: list[Path]) -> None:
    """A guest's clock is stepped backward here: what asks the journal until now then misses all that came
    after the step, for as long as the step was wide. Cursors know no time."""
    pattern = re.compile(r"journalctl\b[^\n]*\s(--until|--since|-U|-S)\b")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in own_files
        if path.suffix in (".py", ".sh", ".yaml", ".j2") or not path.suffix
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


def class_names() -> dict[str, list[str]]:
    """Every class of the lab, nested ones too, with the files that define one of this name."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "lab").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    return found


def test_a_class_name_stands_for_one_thing() -> None:
    twice = {name: files for name, files in class_names().items() if len(files) > 1}
    assert not twice, twice


SPEECH = re.compile("told|tells?|said|says?|seen|sees?|held|holds?|kept|keeps?|meant|mean")
"""Verbs of speech, sight and holding: as a name they say as little of what is told as of what it is for."""

CONTRACTS = frozenset({"kept_guest", "kept_guests", "hold_patch", "hold", "keeps_memory", "keeps_process"})
"""Terms that a user reads: a kept guest is one that `up` leaves, `hold` is a key of playbooks."""


def spoken(name: str) -> bool:
    """Whether a name has one of these verbs in it, beside the terms."""
    words = "_" + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_") + "_"
    for term in CONTRACTS:
        words = words.replace(f"_{term}_", "_")
    return any(SPEECH.fullmatch(word) for word in words.split("_"))


def public_names(source: str) -> list[str]:
    """Classes, functions and methods, those of functions and of private classes aside."""
    found: list[str] = []

    def walk(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                if not node.name.startswith("_"):
                    found.append(node.name)
                    if isinstance(node, ast.ClassDef):
                        walk(node.body)
            elif isinstance(node, ast.If | ast.Try | ast.With):
                walk(node.body)

    walk(ast.parse(source).body)
    return found


def test_no_public_name_is_a_verb_of_speech_or_sight() -> None:
    sources = sorted((ROOT / "lab").rglob("*.py"))
    names = {path: public_names(path.read_text(encoding="utf-8")) for path in sources}
    assert sum(map(len, names.values())) > 1500
    found = [f"{path.relative_to(ROOT)}: {name}" for path in sources for name in names[path] if spoken(name)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("Told", True), ("told_of", True), ("render_kept", True), ("EventSeen", True), ("keep_ram", True),
        ("KeptGuest", False), ("destroy_kept_guest", False), ("HoldPatch", False), ("threshold", False),
    ],
)  # fmt: skip
def test_a_verb_of_speech_is_found_however_it_is_written(name: str, bad: bool) -> None:
    assert spoken(name) is bad
    assert public_names(f"class A:\n    def {name}(self) -> None: ...") == ["A", name]


def test_the_counts_of_the_house_stay_where_they_are() -> None:
    """A file that nobody reads to its end, a class name for two things, a circle of imports."""
    given = house.sources(ROOT)
    assert len(given) > 250
    assert max(source.lines for source in given) <= 400
    assert house.class_names_used_twice(given) == 0
    assert house.circles(given) == 0
    assert house.event_subscripts(given) <= 3
    assert house.process_starts(given) == 1  # lab/process/runner.py


def test_the_counts_find_what_they_count(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    source = """
        import subprocess
        class A: ...
        class B:
            class A: ...
        def late(event, **more: Any):
            from lab import {other}
            subprocess.run(event["guest"])
    """
    (tmp_path / "lab" / "__init__.py").write_text("")
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / "lab" / f"{name}.py").write_text(textwrap.dedent(source).format(other=other))
    (tmp_path / "lab" / "record.py").write_text("x = event['kind'] + event[0]\n")
    given = house.sources(tmp_path)
    assert (house.class_names_used_twice(given), house.circles(given)) == (2, 1)
    assert (house.process_starts(given), house.any_keywords(given), house.event_subscripts(given)) == (
        2,
        2,
        1,
    )


def locked() -> dict[str, str]:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return {match[1]: match[2] for match in re.finditer(r"^([a-z0-9-]+)==([^\s;]+)", text, re.MULTILINE)}


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [Requirement(text) for text in [*project["dependencies"], *extras["guests"], *extras["dev"]]]
    pins = locked()
    missing = [
        str(requirement)
        for requirement in wanted
        if (pin := pins.get(requirement.name.lower())) is None or not requirement.specifier.contains(pin)
    ]
    assert not missing, f"requirements.lock does not satisfy {missing}; how to remake it stands at its head"


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-build.lock"])
def test_every_pin_has_its_hash(name: str) -> None:
    entries = re.split(r"\n(?=\S)", (ROOT / name).read_text(encoding="utf-8"))
    pins = [entry for entry in entries if not entry.startswith("#")]
    assert pins
    assert [entry for entry in pins if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("command", ["events serve --listen x", "events list", "list", "check x", "plan x"])
def test_a_command_that_needs_no_guest_imports_no_libvirt(command: str, tmp_path: Path) -> None:
    """Each ends with a usage error, or at once. docs/commands.md says what works without libvirt-python."""
    source = "import sys; sys.modules['libvirt'] = None; from lab.cli.entry import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", source, *command.split()],
        env={**os.environ, "PYTHONPATH": str(ROOT), "FREEZELAB_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, 2), done.stderr
    assert "libvirt" not in done.stderr


def test_no_module_imports_itself_through_others() -> None:
    """import-linter's contract compares siblings, and so sees no circle of a package and its own modules."""
    graph = grimp.build_graph("lab", cache_dir=None)
    assert len(graph.modules) > 200
    circles = [
        " -> ".join((importer, *chain))
        for importer in sorted(graph.modules)
        for imported in sorted(graph.find_modules_directly_imported_by(importer))
        if (chain := graph.find_shortest_chain(importer=imported, imported=importer))
    ]
    assert not circles, "\n".join(circles)


def imported(source: str) -> set[str]:
    """The modules that a source imports, and what it imports from them, by their full names."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_nothing_is_imported_from_a_test() -> None:
    """What tests share is in helpers, which tests/README.md lists."""
    pattern = re.compile(r"(^|\.)test_")
    sources = sorted((ROOT / "tests").rglob("*.py"))
    assert sum(path.name.startswith("test_") for path in sources) > 100
    found = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources
        for name in sorted(imported(path.read_text(encoding="utf-8")))
        if name.startswith("tests.") and pattern.search(name.removeprefix("tests."))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    ["import tests.unit.test_a", "from tests.unit.test_a import run", "from tests.unit import test_a"],
)
def test_an_import_of_a_test_is_found_however_it_is_written(source: str) -> None:
    assert "tests.unit.test_a" in imported(f"def late() -> None:\n    {source}\n")


def test_the_launcher_runs_every_test_once() -> None:
    """`./freezelab test` divides the tests among processes by folder and name."""
    runs = [
        words.split() for words in re.findall(r"\) set -- (tests/[^\"\n]*)", (ROOT / "freezelab").read_text())
    ]
    assert len(runs) > 1
    for path in (ROOT / "tests").rglob("test_*.py"):
        count = 0
        for words in runs:
            given = {one for word in words if not word.startswith("-") for one in ROOT.glob(word)}
            ignored = {ROOT / word.partition("=")[2] for word in words if word.startswith("--ignore=")}
            above = {path, *path.parents}
            count += bool(above & given) and not above & ignored
        assert count == 1, f"{path.relative_to(ROOT)} is run {count} times"
