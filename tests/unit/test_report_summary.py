"""The report on one screen."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from syrupy.assertion import SnapshotAssertion

from lab.core.units import NBSP
from lab.core.verdict import Outcome
from lab.record.model import CellRecord
from lab.record.run import Run
from lab.report.summary import SCREEN
from tests.unit.builders import RUNS, cycle, finding, guest, run
from tests.unit.consoles import FOLDER, page, pipe, terminal, widest
from tests.unit.real_histories import NAMES, real

KINDS = ("suspend", "resync-cells", "rollout", "announced", "tolerance", "interrupted")
"""Real runs, one of each kind, whose whole page is looked at."""
TALLEST = 30
FIRST = {Outcome.PASSED: "passed", Outcome.FAILED: "FAILED", Outcome.INCONCLUSIVE: "inconclusive"}


def summary(made: Run, width: int = 80) -> str:
    return page(made, terminal(width), verbose=False).replace(NBSP, " ")


@pytest.mark.parametrize("name", KINDS)
def test_what_it_looks_like(name: str, snapshot: SnapshotAssertion) -> None:
    assert summary(real(name)) == snapshot


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_real_run_fits_one_screen(name: str, width: int) -> None:
    text = summary(real(name), width)
    assert widest(text) <= width
    # Below 80 columns a row is several lines.
    assert len(text.splitlines()) <= (TALLEST if width >= 80 else 2 * TALLEST)


@pytest.mark.parametrize("name", RUNS)
def test_any_run_fits_one_screen(name: str) -> None:
    text = summary(RUNS[name]())
    assert len(text.splitlines()) <= TALLEST
    assert widest(text) <= 80


@pytest.fixture(scope="module")
def searches() -> Run:
    """A real search, as if it were sixteen workloads by two methods, of which the last was cut off; and its
    playbook has a long name."""
    one = real("tolerance")
    (found,) = one.tolerances
    cells, tolerances = [], []
    for number in range(16):
        for method in ("suspend", "sigstop"):
            id = f"workload-{number}-{method}"
            values = {"workload": f"w{number}", "method": method}
            cells.append(
                CellRecord(id, values, Outcome.PASSED, method, 256 << 20, 1, "hold", "agent", 5, 5, ())
            )
            failed = 10**9 * (20 - number)
            tolerances.append(
                replace(found, cell=id, workload=f"w{number}", method=method, shortest_failed_ns=failed)
            )
    tolerances[-1] = replace(tolerances[-1], complete=False, why="stopped")
    id = f"20261129-204539-{'tolerance-of-' * 3}t-5310"
    return replace(one, id=id, cells=tuple(cells), tolerances=tuple(tolerances))


@pytest.mark.parametrize("width", [60, 80, 120, None])
def test_many_searches_fit_one_screen_too(searches: Run, width: int | None) -> None:
    text = page(searches, terminal(width) if width else pipe(), verbose=False)
    columns = width or 80
    lines = sum(max(1, -(-len(line) // columns)) for line in text.splitlines())
    assert lines <= (TALLEST if columns >= 80 else 2 * TALLEST)
    assert "the 10 of 16 workloads that failed first" in text
    assert re.search(r"^w15 ", text, re.MULTILINE)
    assert not re.search(r"^w5 ", text, re.MULTILINE)
    assert f"freezelab run --resume {searches.id}\n" in text


@pytest.mark.parametrize("name", NAMES)
def test_a_real_run_fits_one_screen_in_a_pipe_too(name: str) -> None:
    lines = page(real(name), pipe(), verbose=False).splitlines()
    assert sum(max(1, -(-len(line) // 80)) for line in lines) <= TALLEST


def test_matrices_and_fleets_fit_one_screen(matrix_runs: dict[str, Run], fleet_runs: dict[str, Run]) -> None:
    for name, made in {**matrix_runs, **fleet_runs}.items():
        text = summary(made)
        assert len(text.splitlines()) <= TALLEST, name
        assert widest(text) <= 80, name


def test_a_matrix_of_many_cells_is_a_grid(matrix_runs: dict[str, Run]) -> None:
    lines = summary(matrix_runs["resync_matrix"]).splitlines()
    assert "resync                  200ms         3s    200ms       3s" in lines
    assert "none                    never      never     2 ms     2 ms" in lines
    assert "chrony-frozen        1.42 s !    never ?" in lines
    assert "chrony-phc          refused ?  refused ?" in lines
    assert "each cell: in time after · ! FAILED · ? inconclusive" in lines


@pytest.mark.parametrize("name", RUNS)
def test_the_verdict_is_the_first_line_and_the_last_ones_say_what_next(name: str) -> None:
    made = RUNS[name]()
    for console in (terminal(80), terminal(120), pipe()):
        lines = page(made, console, verbose=False).splitlines()
        assert lines[0].startswith(FIRST[made.outcome] + "  ")
        assert f"freezelab report {made.id} -v" in " ".join(lines[-4:])
        assert str(FOLDER) in lines[-1]


@pytest.mark.parametrize("name", RUNS)
def test_plain_lines_are_for_grep(name: str) -> None:
    text = page(RUNS[name](), pipe(), verbose=False)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2500-\u259f]", text)
    assert NBSP not in text


def test_reasons_that_do_not_fit_are_counted() -> None:
    found = tuple(finding(Outcome.FAILED, f"thing {'abcdefghijklmnopqrstuvwxyz'[i]}", "x") for i in range(26))
    text = summary(run(guest("web-0", cycle()), found=found))
    shown = text.count("FAILED        thing")
    assert 3 <= shown < 26
    assert f"and {26 - shown} more" in text
    assert len(text.splitlines()) <= SCREEN + 1


def test_a_path_is_never_broken() -> None:
    """It is copied. Beside its label, alone, or not at all."""
    for width in range(40, 120):
        lines = [line.strip() for line in summary(RUNS["passed"](), width).splitlines()]
        assert all(line.endswith(str(FOLDER)) for line in lines if "/var/lib" in line)
