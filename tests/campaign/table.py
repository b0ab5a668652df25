"""The results as a table, by fault and method."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from tests.campaign.cases import STEPS, Case


def read(path: Path) -> list[dict[str, Any]]:
    """All results of a file, a line each; a last line that was cut off is left out."""
    found = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
    return found


def render(results: list[dict[str, Any]]) -> str:
    """Markdown: of each fault and method how many cases there were, and how many of them wrong; then what
    was wrong, with its count and a case."""
    methods = list(STEPS)
    cells: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    kinds: dict[str, list[str]] = defaultdict(list)
    for result in results:
        case = Case.of(result["case"])
        kind = "void" if result["void"] else "wrong" if result["wrong"] else "right"
        cells[case.fault, case.method][kind] += 1
        for wrong in result["wrong"]:
            kinds[_kind(wrong)].append(f"{result['number']} {result['label']}")
    faults = list(dict.fromkeys(fault for fault, _method in sorted(cells)))
    lines = [f"| fault | {' | '.join(methods)} | all |", f"|---{'|---' * (len(methods) + 1)}|"]
    for fault in faults:
        row = [cells[fault, method] for method in methods]
        lines.append(f"| {fault} | {' | '.join(map(_cell, row))} | {_cell(sum(row, Counter()))} |")
    columns = [sum((cells[fault, method] for fault in faults), Counter()) for method in methods]
    every: Counter[str] = sum(columns, Counter())
    lines.append(f"| all | {' | '.join(map(_cell, columns))} | {_cell(every)} |")
    lines += ["", f"{every['right'] + every['wrong']} cases, {every['right']} right, {every['wrong']} wrong"]
    lines[-1] += f"; {every['void']} void (the fault's target did not exist)." if every["void"] else "."
    if kinds:
        lines += ["", "| what was wrong | cases | such as |", "|---|---|---|"]
        for kind, cases in sorted(kinds.items(), key=lambda pair: -len(pair[1])):
            lines.append(f"| {kind} | {len(cases)} | {cases[0]} |")
    return "\n".join(lines)


def _cell(counted: Counter[str]) -> str:
    """right, or right/wrong."""
    if not counted["right"] and not counted["wrong"]:
        return ""
    return f"{counted['right']}" + (f" / {counted['wrong']} wrong" if counted["wrong"] else "")


def _kind(wrong: str) -> str:
    """Without what differs from case to case: numbers, and everything behind a second colon."""
    text = ":".join(wrong.split(":")[:2])
    return "".join("N" if each.isdigit() else each for each in text).replace("NN", "N").replace("NN", "N")
