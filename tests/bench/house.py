"""Counts of the code's structure, as rows of the table in docs/figures.md: what grows unnoticed.

    .venv/bin/python -m tests.bench.house                          this checkout
    .venv/bin/python -m tests.bench.house BEFORE AFTER             two checkouts, side by side
    .venv/bin/python -m tests.bench.house BEFORE AFTER --help-of   and what `freezelab --help` takes in each

It reads files and imports nothing of a checkout, so that any commit can be counted. `--help-of` starts the
command with the Python that runs this one, in turn, 20 times each.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SHORT = 60
RUNS = 20
_EVENT = re.compile(r"(?i)event|entry|line|data|happening")


@dataclass(frozen=True)
class Source:
    path: Path
    module: str
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        return self.text.count("\n")


def sources(root: Path) -> list[Source]:
    found = []
    for path in sorted((root / "lab").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Source(path, name, text, ast.parse(text)))
    return found


def each(given: list[Source], kind: type[ast.AST]) -> Iterator[ast.AST]:
    return (node for source in given for node in ast.walk(source.tree) if isinstance(node, kind))


def class_names_used_twice(given: list[Source]) -> int:
    names = Counter(node.name for node in each(given, ast.ClassDef) if isinstance(node, ast.ClassDef))
    return sum(count > 1 for count in names.values())


def imported(source: Source, known: set[str]) -> set[str]:
    """Modules of the lab that a module imports, also those that a function imports late."""
    found: set[str] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(
                full if (full := f"{node.module}.{alias.name}") in known else node.module
                for alias in node.names
            )
    return (found & known) - {source.module}


def circles(given: list[Source]) -> int:
    """Groups of modules that import one another, directly or not (strongly connected components)."""
    known = {source.module for source in given}
    graph = {source.module: imported(source, known) for source in given}
    reach: dict[str, set[str]] = {}
    for start, direct in graph.items():
        reached, todo = set[str](), list(direct)
        while todo:
            at = todo.pop()
            if at not in reached:
                reached.add(at)
                todo += graph[at]
        reach[start] = reached
    inside = {name for name in graph if name in reach[name]}
    return len({frozenset(other for other in reach[name] if name in reach[other]) for name in inside})


def marked(given: list[Source], mark: str) -> int:
    return sum(source.text.count(mark) for source in given)


def event_subscripts(given: list[Source]) -> int:
    """Members of events taken by a string, outside the modules that read histories."""
    count = 0
    for source in given:
        if not re.search(r"\.(record|core|report)(\.|$)", source.module):
            continue
        for node in ast.walk(source.tree):
            if (
                isinstance(node, ast.Subscript)
                and isinstance(node.slice, ast.Constant)
                and isinstance(node.slice.value, str)
                and _EVENT.search(ast.unparse(node.value))
            ):
                count += 1
    return count


def any_keywords(given: list[Source]) -> int:
    """Functions that take `**name: Any`."""
    return sum(
        node.args.kwarg is not None
        and node.args.kwarg.annotation is not None
        and ast.unparse(node.args.kwarg.annotation) == "Any"
        for node in [*each(given, ast.FunctionDef), *each(given, ast.AsyncFunctionDef)]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def process_starts(given: list[Source]) -> int:
    """Calls of subprocess in programs of the host (those for guests are theirs)."""
    names = {"run", "Popen", "check_output", "check_call", "call"}
    return sum(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in names
        and ast.unparse(node.func.value) == "subprocess"
        for source in given
        if ".inside" not in source.module
        for node in ast.walk(source.tree)
    )


ROWS: dict[str, Callable[[list[Source]], int]] = {
    "files in `lab/`": len,
    "lines": lambda given: sum(source.lines for source in given),
    "longest file, lines": lambda given: max(source.lines for source in given),
    f"files below {SHORT} lines": lambda given: sum(source.lines < SHORT for source in given),
    "class names used twice or more": class_names_used_twice,
    "import circles, also of imports in functions": circles,
    "`type: ignore`": lambda given: marked(given, "type: ignore"),
    "`noqa`": lambda given: marked(given, "# noqa"),
    "event data by a string subscript": event_subscripts,
    "functions with `**name: Any`": any_keywords,
    "places that start a process": process_starts,
}


def help_of(root: Path) -> tuple[float, int]:
    """Seconds that `freezelab --help` takes, and its peak memory in KiB."""
    environment = os.environ | {"PYTHONPATH": str(root)}
    began = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "lab.cli.main", "--help"], cwd=root, env=environment, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(child.pid, 0)
    took = time.perf_counter() - began
    if status:
        raise SystemExit(f"--help failed in {root}")
    return took, used.ru_maxrss


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[Path(__file__).resolve().parents[2]])
    parser.add_argument("--help-of", action="store_true")
    asked = parser.parse_args()
    found: list[list[tuple[float, int]]] = [[] for _ in asked.checkouts]
    # First: what this process has in memory would count as a child's, until that has begun its own program.
    for _ in range(RUNS if asked.help_of else 0):
        for root, here in zip(asked.checkouts, found, strict=True):
            here.append(help_of(root.resolve()))
    given = [sources(root.resolve()) for root in asked.checkouts]
    for name, count in ROWS.items():
        print(f"| {name} | {' | '.join(format(count(one), ',').replace(',', ' ') for one in given)} |")
    if asked.help_of:
        times = [f"{statistics.median(took for took, _ in here) * 1e3:.0f} ms" for here in found]
        peaks = [f"{statistics.median(peak for _, peak in here) / 1024:.1f} MiB" for here in found]
        print(f"| `freezelab --help`, median of {RUNS} | {' | '.join(times)} |")
        print(f"| its peak memory | {' | '.join(peaks)} |")


if __name__ == "__main__":
    main()
