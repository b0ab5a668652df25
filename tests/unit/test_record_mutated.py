"""Histories with a wrong value somewhere: told in one line, or judged; never a traceback."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lab.errors import RecordError
from lab.record.journal import EVENTS, read_history
from lab.record.run import judge, to_json
from lab.report.terminal import render
from tests.unit import fleets, histories
from tests.unit.history_lines import deadman_line, thin
from tests.unit.strategies import HEAVY, USUAL

MADE: Mapping[str, Callable[[Path], Path]] = {
    name: histories.ALL[name] for name in ("upgrade", "called_off", "slewed", "stepped")
} | {name: fleets.ALL[name] for name in ("acknowledged", "stopped")}

WRONG: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, -(2**62), 2**63, 10**400, 0.5, -1e300, 1e400, "", "1", "x\ny",
    "\ud800", [], [1], {}, {"a": 1}, [[]], "suspend", "before", 1_795_000_000_000_000_000,
)  # fmt: skip


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every member of every member, with what it is in."""
    for key, member in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(member, dict | list):
            yield from places(member)


def mutated(events: list[dict[str, Any]], draw: random.Random) -> str:
    """The history with one value changed, or left out."""
    event = draw.choice(events)
    there = [place for place in places(event) if place[1] not in ("seq", "kind")]
    within, key = draw.choice(there)
    kept = within[key]
    chosen = draw.randrange(len(WRONG) + 2)
    if chosen == len(WRONG):
        del within[key]
    elif chosen > len(WRONG) and isinstance(kept, int):
        within[key] = kept + draw.choice([-1, 1]) * 10 ** draw.randrange(19)
    else:
        within[key] = WRONG[chosen % len(WRONG)]
    made = "".join(json.dumps(each) + "\n" for each in events)
    if chosen == len(WRONG):
        if isinstance(within, list):
            within.insert(key, kept)
        else:
            within[key] = kept
    else:
        within[key] = kept
    return made


def shown(folder: Path) -> str:
    """The report, as `freezelab report` makes it; "" where that says what is wrong with the history."""
    try:
        run = judge(read_history(folder))[0]
    except RecordError as error:
        run, told = None, str(error)
    if run is None:
        assert "\n" not in told
        return ""
    page = io.StringIO()
    to_json(run)
    for verbose in (False, True):
        console = Console(file=page, width=100, force_terminal=False)
        render(run, console, folder=folder, verbose=verbose)
    return page.getvalue()


@pytest.mark.parametrize("name", MADE)
def test_a_wrong_value_is_refused_in_one_line_or_judged(tmp_path: Path, name: str) -> None:
    folder = MADE[name](tmp_path)
    path = folder / EVENTS
    events = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    thin(events)
    events.append(
        json.loads(
            deadman_line(events[-1]["raw_ns"], (events[-1]["raw_ns"],) * 2, cycle=events[-2].get("cycle"))
        )
    )
    draw = random.Random(name)
    path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    assert shown(folder)
    refused = 0
    for number in range(200 * max(1, HEAVY // USUAL)):
        text = mutated(events, draw)
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        try:
            refused += not shown(folder)
        except Exception as error:
            (tmp_path / "mutated.jsonl").write_text(text, encoding="utf-8", errors="surrogatepass")
            raise AssertionError(f"mutation {number}: {type(error).__name__}: {error}") from error
    assert refused > 50
