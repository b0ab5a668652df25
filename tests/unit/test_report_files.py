"""JUnit files and histories."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from syrupy.assertion import SnapshotAssertion

from lab.core.units import NBSP
from lab.core.verdict import Outcome
from lab.errors import MachineError
from lab.record.index import summary_of
from lab.report.history import render_history
from lab.report.junit import write_junit
from tests.unit.builders import RUNS, cycle, finding, guest, run
from tests.unit.consoles import output, pipe, terminal, widest


def tree(path: Path) -> ET.Element:
    return ET.fromstring(path.read_text(encoding="utf-8"))  # noqa: S314 - ours


def test_junit_counts_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    made = RUNS["many_cycles"]()
    write_junit(made, path)
    suite = tree(path)[0]
    kinds = [f.outcome for f in made.findings]
    assert suite.get("tests") == str(len(kinds))
    assert suite.get("failures") == str(kinds.count(Outcome.FAILED))
    assert suite.get("errors") == str(kinds.count(Outcome.INCONCLUSIVE))
    assert suite.get("time") == "38.167"
    failure = next(suite.iter("failure"))
    assert (failure.get("message") or "").startswith("final offset")
    assert "expected: as expected" in (failure.text or "")
    properties = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert properties["host.accelerator_reason"] == "KVM opens here but boots no guest"
    assert properties["outcome"] == "failed"
    case = next(suite.iter("testcase"))
    assert case.get("classname") == "first-freeze.web-0"


def test_an_undecided_finding_is_an_error_never_green(tmp_path: Path) -> None:
    write_junit(RUNS["inconclusive"](), tmp_path / "j.xml")
    suite = tree(tmp_path / "j.xml")[0]
    assert suite.get("errors") == "2"
    assert not list(suite.iter("skipped"))


@pytest.mark.parametrize("name", RUNS)
def test_junit_is_xml_whatever_was_said(tmp_path: Path, name: str) -> None:
    write_junit(RUNS[name](), tmp_path / "j.xml")
    assert tree(tmp_path / "j.xml").tag == "testsuites"


def test_every_control_character_is_survived(tmp_path: Path) -> None:
    why = "".join(map(chr, [*range(32), *range(127, 160), 0xD800, 0xFFFE, 0xFFFF, 0x1F600])) + "<&\"'>]]>"
    write_junit(run(found=(finding(Outcome.FAILED, "kernel log", why),)), tmp_path / "j.xml")
    message = next(tree(tmp_path / "j.xml").iter("failure")).get("message") or ""
    assert message.strip() == "\U0001f600<&\"'>]]>"


def test_junit_replaces_the_old_file_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "j.xml"
    path.write_text("old")
    link = tmp_path / "link.xml"
    link.symlink_to(path)
    write_junit(RUNS["passed"](), link)
    assert link.is_symlink()
    assert tree(path).tag == "testsuites"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["j.xml", "link.xml"]


@pytest.mark.parametrize("where", ["missing/j.xml", ".", "x" * 300])
def test_a_place_that_cannot_be_written(tmp_path: Path, where: str) -> None:
    with pytest.raises(MachineError, match=r"cannot be written: \w+"):
        write_junit(RUNS["passed"](), tmp_path / where)
    assert not list(tmp_path.iterdir())


def test_a_full_disk() -> None:
    with pytest.raises(MachineError, match="No space left"):
        write_junit(RUNS["passed"](), Path("/dev/full"))


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write_junit(RUNS["passed"](), path)
    assert os.read(reader, 5) == b"<?xml"
    os.close(reader)


@pytest.mark.parametrize("width", [80, 120])
def test_history_on_a_terminal(width: int, snapshot: SnapshotAssertion) -> None:
    shown = terminal(width)
    render_history([summary_of(made()) for name, made in RUNS.items() if name != "hostile"], shown)
    assert output(shown).replace(NBSP, " ") == snapshot


@pytest.mark.parametrize("width", range(40, 201, 7))
def test_history_fits(width: int) -> None:
    shown = terminal(width)
    render_history([summary_of(made()) for made in RUNS.values()], shown)
    assert widest(output(shown)) <= width


def test_no_history_yet() -> None:
    shown = pipe()
    render_history([], shown)
    assert output(shown) == "no runs yet\n"


@pytest.mark.parametrize("width", [40, 120])
def test_a_run_in_progress_has_no_outcome_yet(width: int) -> None:
    shown = terminal(width)
    render_history([replace(summary_of(run(guest("web-0", cycle(0)))), running=True)], shown)
    (line,) = output(shown).strip().splitlines()[1:]
    assert line.split()[-1] == "running"


def test_the_longest_pause_of_all_guests_and_cycles() -> None:
    shown = pipe()
    render_history([summary_of(run(guest("web-0", cycle(0), cycle(5)), guest("web-1", cycle(1))))], shown)
    assert "5008.3 ± 0.6 ms" in output(shown)
