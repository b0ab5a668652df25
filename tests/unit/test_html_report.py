"""A run's page: whole, self-contained, in the terminal's words."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lab.core.verdict import Outcome
from lab.errors import MachineError
from lab.record.journal import read_history
from lab.record.run import Host, Run, judge
from lab.report.header import verdict_text
from lab.report.html.run_page import run_page, write_html
from tests.bench import matrix_history
from tests.unit.builders import RUNS, cycle, guest, run
from tests.unit.html_pages import ReadPage
from tests.unit.real_histories import NAMES, unpacked

ROOT = Path(__file__).parents[2]
MARKUP = '<b id="x" onclick="stop()">bold</b><script>document.title = "changed"</script>'


@pytest.mark.parametrize("name", RUNS)
def test_a_page_is_whole_and_asks_for_nothing(name: str) -> None:
    made = RUNS[name]()
    page = ReadPage(run_page(made, None))
    assert page.mistakes() == []
    assert made.playbook.name in page.shown or name == "hostile"
    assert verdict_text(made) in page.shown
    assert page.tags["h1"] == 1


@pytest.mark.parametrize("name", NAMES)
def test_real_runs_have_a_page(name: str, tmp_path: Path) -> None:
    history = read_history(unpacked(name, tmp_path))
    made, _ = judge(history)
    page = ReadPage(run_page(made, history.start.plan))
    assert page.mistakes() == []
    paused = [c for g in made.guests for c in g.cycles if c.steps and not c.control]
    assert page.tags["figure"] >= len(paused) > 0 or not paused or made.cells


def with_markup(text: str) -> Run:
    """A run with `text` wherever a guest, a playbook or a program may put one."""
    made = run(guest(text, cycle(problems=(text,), kernel_stalls=(text,), patch=text, called_off=text)))
    named = replace(made, id=text, playbook=replace(made.playbook, name=text), findings=made.findings)
    return replace(named, host=replace(made.host, cpu=text, accelerator_reason=text))


def test_a_matrix_of_72_cells_is_of_a_size_that_can_be_sent(tmp_path: Path) -> None:
    history = read_history(matrix_history.write(tmp_path / "run"))
    made, _ = judge(history)
    text = run_page(made, history.start.plan)
    page = ReadPage(text)
    assert page.mistakes() == []
    assert len(made.cells) == 72 and text.count('<td class="shade') == 72
    assert len(text.encode()) < 3_000_000


def test_a_run_without_anything_has_a_page() -> None:
    made = replace(RUNS["passed"](), guests=(), findings=(), calibration=None, host=Host())
    page = ReadPage(run_page(replace(made, outcome=Outcome.INCONCLUSIVE, started="", ended=""), None))
    assert page.mistakes() == [] and "inconclusive" in page.shown


def test_a_place_that_cannot_be_written_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    unpacked("suspend", tmp_path / "run")
    for path, why in ((tmp_path, "Is a directory"), ("/proc/run.html", "No such file or directory")):
        done = subprocess.run(
            [sys.executable, "-m", "lab.cli.main", "report", str(tmp_path / "run"), "--html", str(path)],
            capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 4
        assert done.stderr == f"freezelab: {path}: cannot be written: {why}\n"


def test_markup_is_text() -> None:
    page = ReadPage(run_page(with_markup(MARKUP), None))
    assert page.mistakes() == []
    assert page.shown.count('document.title = "changed"') >= 4


def test_what_reorders_a_line_is_left_out() -> None:
    page = run_page(with_markup("web\u202egnp.exe\x1b[31m\x00\u200b"), None)
    assert not set(page) & set("\u202e\x1b\x00\u200b")
    assert "webgnp.exe" in page


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"cannot be written: No such file or directory"):
        write_html(RUNS["passed"](), None, tmp_path / "none" / "run.html")


def test_the_old_page_stays_when_the_disk_is_full(tmp_path: Path) -> None:
    """The new one is written beside it, to a disk that is full."""
    path = tmp_path / "run.html"
    write_html(RUNS["passed"](), None, path)
    old = path.read_text()
    (tmp_path / f".run.html.{os.getpid()}.new").symlink_to("/dev/full")
    with pytest.raises(MachineError, match="cannot be written: No space left on device"):
        write_html(RUNS["failed"](), None, path)
    assert path.read_text() == old
    assert [one.name for one in tmp_path.iterdir()] == ["run.html"]
