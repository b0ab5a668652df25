"""Each history of a real run is judged to the run.json that was made of it, member by member. How those are
made anew is in real_histories.py."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from lab.core.history import KINDS, ProblemMet, ServiceFailed
from lab.core.history.encoding import line_of
from lab.record.events import UnknownEvent
from lab.record.journal import EVENTS, read_history
from lab.record.run import judge, to_json
from lab.report.terminal import render
from tests.unit.real_histories import HISTORIES, NAMES, recorded, unpacked

SHOWN = 20
"""So many of the members that differ are listed."""


def differences(expected: object, actual: object, where: str = "") -> Iterator[str]:
    """Each member that differs, one line: where it is, what it was, what it is now."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in [*expected, *(key for key in actual if key not in expected)]:
            path = f"{where}.{key}" if where else key
            if key not in actual:
                yield f"{path}: is missing, was {expected[key]!r}"
            elif key not in expected:
                yield f"{path}: is new: {actual[key]!r}"
            else:
                yield from differences(expected[key], actual[key], path)
    elif isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            yield f"{where}: {len(actual)} entries, were {len(expected)}"
        for index, (one, other) in enumerate(zip(expected, actual, strict=False)):
            yield from differences(one, other, f"{where}[{index}]")
    elif type(expected) is not type(actual) or expected != actual:
        yield f"{where}: {actual!r}, was {expected!r}"


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_its_report_fits_the_terminal(tmp_path: Path, name: str, verbose: bool) -> None:
    run, _ = judge(read_history(unpacked(name, tmp_path)))
    for width in (60, 80, 120):
        console = Console(
            file=io.StringIO(), width=width, height=50, record=True, force_terminal=True, highlight=False
        )
        render(run, console, tmp_path, verbose=verbose)
        text = console.export_text()
        assert max(map(len, text.splitlines())) <= width
        assert " ;" not in text
        assert "None" not in text


@pytest.mark.parametrize("name", NAMES)
def test_a_history_is_judged_as_it_was(tmp_path: Path, name: str) -> None:
    run, _ = judge(read_history(unpacked(name, tmp_path)))
    expected = json.loads(recorded(name))
    found = list(differences(expected, json.loads(to_json(run))))
    assert not found, "\n".join([f"{len(found)} members differ:", *found[:SHOWN]])


@pytest.mark.parametrize("name", NAMES)
def test_each_line_is_written_as_it_was_read(tmp_path: Path, name: str) -> None:
    """Other programs read them. Members that came later may be there as well: some of these histories were
    made earlier on that day."""
    entries = read_history(unpacked(name, tmp_path)).entries
    lines = filter(None, (tmp_path / EVENTS).read_text(encoding="utf-8").split("\n"))
    for entry, line in zip(entries, lines, strict=False):
        assert not isinstance(entry.event, UnknownEvent)
        written = json.loads(line_of(entry.event, entry.seq, entry.at))
        found = [each for each in differences(json.loads(line), written) if ": is new: " not in each]
        assert not found, f"{entry.kind}: {found[0]}"


def test_all_kinds_of_events_are_there() -> None:
    found = set()
    for name in NAMES:
        text = gzip.decompress((HISTORIES / name / f"{EVENTS}.gz").read_bytes()).decode()
        found |= {kind for kind in KINDS if f'"kind":"{kind}"' in text}
    # No guest and no service of these runs went wrong by itself.
    assert set(KINDS) - found == {ProblemMet.KIND, ServiceFailed.KIND}


def test_there_is_one_of_each_kind() -> None:
    methods = {"suspend", "sigstop", "save-restore", "in-place", "in-place-cold"}
    methods |= {"live-migrate", "guest-sleep", "reboot"}
    runs = {"announced", "cancelled", "rollout", "matrix", "resync-cells", "calibration", "truncated"}
    assert methods | runs <= set(NAMES)
    assert len(NAMES) >= 20


def test_what_differs_is_listed_by_its_place() -> None:
    before = {"a": [1, {"b": 2.0}], "c": None}
    assert list(differences(before, before)) == []
    assert list(differences(before, {"a": [1, {"b": 2}, 3], "d": 4})) == [
        "a: 3 entries, were 2",
        "a[1].b: 2, was 2.0",
        "c: is missing, was None",
        "d: is new: 4",
    ]
