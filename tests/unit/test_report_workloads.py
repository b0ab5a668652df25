"""What the report says of workloads and searches, from the real history of one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from syrupy.assertion import SnapshotAssertion

from lab.core.verdict import Outcome
from lab.core.workload.gauges import GaugeSummary
from lab.core.workload.stamps import StaleStamps
from lab.record.journal import read_history
from lab.record.model_clock import Measure
from lab.record.model_workload import OverlapRecord, StateChangeRecord
from lab.record.run import Run, judge
from lab.report.tolerances import PauseAxis
from tests.unit.consoles import plain, shown
from tests.unit.real_histories import unpacked

MS = 1_000_000


@pytest.fixture
def searched(tmp_path: Path) -> Run:
    return judge(read_history(unpacked("tolerance", tmp_path)))[0]


def about_workloads(text: str) -> str:
    """The part of a report that is about workloads."""
    lines = text.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("workload"))
    last = next(n for n, line in enumerate(lines) if line.startswith("budget"))
    return "\n".join(line.rstrip() for line in lines[first:last])


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_search(searched: Run, width: int, snapshot: SnapshotAssertion) -> None:
    text = shown(searched, width)
    assert all(len(line) <= width for line in text.splitlines())
    assert about_workloads(text) == snapshot


def test_for_programs_tries_are_words(searched: Run) -> None:
    text = plain(searched)
    assert "  2.83 s  passed, passed" in text
    assert "●" not in text


def test_changes_roles_and_problems_are_told(searched: Run) -> None:
    (record,) = searched.workloads
    first, *rest = record.cycles
    at = Measure(1500 * MS, 1400 * MS, 1600 * MS)
    changed = replace(
        first,
        changes=(StateChangeRecord("leader", "a", "b", at, "in the pause"),),
        overlaps=(OverlapRecord("master", ("a", "b"), Measure(50 * MS, 40 * MS, 60 * MS), 2000 * MS),),
        events={"disconnected": 3},
        event_phases={"disconnected": {"after the clock's step": 2, "in the pause": 1}},
        problems=("a line is no sample: not JSON: x",),
        outcome=Outcome.INCONCLUSIVE,
    )
    text = plain(replace(searched, workloads=(replace(record, cycles=(changed, *rest)),)))
    assert "leader changed, two master" in text
    assert "disconnected 3" in text
    assert "leader a → b, 1.4–1.6 s after its start, in the pause" in text
    assert "a and b were both master for 40–60 ms" in text
    assert "disconnected: 2 of 3 after the clock's step" in text
    assert "a line is no sample: not JSON: x" in text


def test_recovery_by_pause(searched: Run) -> None:
    """The same cycles, without the search: one row for each hold, the shortest first."""
    (record,) = searched.workloads
    text = plain(replace(searched, tolerances=()))
    lines = text.splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("asked for"))
    rows = [line.split() for line in lines[first + 1 : lines.index("", first)]]
    rows = rows[: next((n for n, row in enumerate(rows) if row[0] == "predicted"), len(rows))]
    assert sum(int(row[3 if row[0] == "hold" else 2]) for row in rows) == len(record.cycles)
    assert rows[0][:2] == ["no", "freeze"]
    holds = [float(row[1]) if row[2] == "s" else float(row[1]) / 1000 for row in rows[1:]]
    assert len(holds) > 2 and holds == sorted(holds)
    assert "connections lost" not in lines[first]
    assert "asked for" not in plain(searched)  # a search has its own table


def test_recovery_tells_of_tcps_timer(searched: Run) -> None:
    (record,) = searched.workloads
    tcp = [
        replace(
            cycle,
            gauges=(
                GaugeSummary("rto_ns", 204 * MS, 204 * MS, (3 + n) * 1000 * MS, 204 * MS),
                GaugeSummary("retransmits", 10, 12, 20 + n, 20 + n),
            ),
            events={"connection lost": 1} if n == 2 else {},
        )
        for n, cycle in enumerate(record.cycles)
    ]
    text = plain(replace(searched, tolerances=(), workloads=(replace(record, cycles=tuple(tcp)),)))
    (head,) = [line for line in text.splitlines() if line.startswith("asked for")]
    assert head.split()[-5:] == ["longest", "RTO", "retransmits", "connections", "lost"]
    (control,) = [line for line in text.splitlines() if line.startswith("no freeze")]
    assert control.split()[-4:] == ["3.0", "s", "10", "0"]
    lost = [line.split()[-1] for line in text.splitlines() if line.startswith("hold ")]
    assert sum(int(count) for count in lost) == 1


def times(factor: float, pause_ns: int) -> int:
    return round(factor * pause_ns / (10 * MS)) * 10 * MS


def _searches(run: Run, number: int) -> Run:
    """A run with `number` searches: what one found, at other pauses and by two methods."""
    (one,) = run.tolerances
    found = []
    for place in range(number):
        factor = 1.6 ** (place // 2)
        tries = tuple(replace(each, pause_ns=times(factor, each.pause_ns)) for each in one.tries)
        passed, failed = one.longest_passed_ns, one.shortest_failed_ns
        assert passed is not None
        assert failed is not None
        found.append(
            replace(
                one,
                workload=f"workload-{place // 2}",
                method=("suspend", "sigstop")[place % 2],
                tries=tries,
                longest_passed_ns=times(factor, passed),
                shortest_failed_ns=times(factor, failed),
            )
        )
    return replace(run, tolerances=tuple(found))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_many_searches_are_on_one_page(searched: Run, width: int, snapshot: SnapshotAssertion) -> None:
    text = shown(_searches(searched, 12), width)
    assert all(cell_len(line) <= width for line in text.splitlines())
    lines = about_workloads(text).splitlines()
    first = next(n for n, line in enumerate(lines) if line.strip().startswith("suspend"))
    assert "\n".join(lines[first:]) == snapshot
    plot = [line for line in lines if line.startswith("workload-") and "░" in line]
    assert len(plot) == 12


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_plot_has_each_pause_where_the_axis_has_it(searched: Run, width: int) -> None:
    lines = shown(searched, width).splitlines()
    first = next(n for n, line in enumerate(lines) if "●" in line and "passed" not in line)
    axis, labels = lines[first + 2 : first + 4]
    assert axis.index("┴") == lines[first].index("●"), "the shortest pause that was tried is 2 s"
    assert axis.rindex("┴") == lines[first].rindex("○"), "the longest is 4 s"
    assert labels.split() == ["2", "s", "3", "s", "4", "s"]
    shaded = lines[first][lines[first].rindex("●") + 1 : lines[first].index("○")]
    assert set(shaded) == {"░"}


@given(st.lists(st.integers(10**6, 10**12), min_size=1, max_size=12, unique=True), st.integers(16, 72))
def test_an_axis_keeps_the_order_of_pauses(pauses: list[int], width: int) -> None:
    pauses.sort()
    axis = PauseAxis.of(pauses, width)
    columns = axis.columns(pauses)
    assert all(0 <= column < width for column in columns)
    assert all(one < two for one, two in pairwise(columns)), "each has a place of its own"
    assert all(0 <= column < width for column, _ in axis.ticks())
    if len(pauses) == 2:
        assert columns == [0, width - 1]


def test_a_search_that_made_no_try_says_so(searched: Run) -> None:
    (one,) = searched.tolerances
    idle = replace(
        one, tries=(), longest_passed_ns=None, shortest_failed_ns=None, complete=False, why="stopped"
    )
    text = about_workloads(shown(replace(searched, tolerances=(idle,)), 80))
    assert re.search(r"udp-echo +– +stopped +–$", text, re.MULTILINE)
    assert "●" not in text


def test_a_run_that_ended_before_its_workload_began_has_one_finding(tmp_path: Path) -> None:
    folder = unpacked("tolerance", tmp_path)
    events = folder / "events.jsonl"
    lines = events.read_text().splitlines(keepends=True)
    first = next(place for place, line in enumerate(lines) if json.loads(line)["kind"] == "workload")
    events.write_text("".join(lines[:first]))
    run = judge(read_history(folder))[0]
    missing = [one for one in run.findings if one.metric in ("cycles", "tolerance", "client")]
    assert [one.metric for one in missing] == ["cycles"]
    assert run.outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("width", [60, 80, 120])
def test_what_a_guest_has_dated_is_told_by_kind(searched: Run, width: int) -> None:
    (record,) = searched.workloads
    control, frozen, *rest = record.cycles
    kinds = (
        StaleStamps(40, 12, -8_000 * MS, 5_600 * MS, 3, "token", 12, 0, expired=9),
        StaleStamps(40, 12, -8_000 * MS, 5_600 * MS, 0, "log line", 12, disordered=7),
    )
    answers = StaleStamps(40, 0, in_window=11)
    cycle = replace(frozen, stale=answers, stamps=kinds, stale_window_ns=5_700 * MS)
    run = replace(searched, workloads=(replace(record, cycles=(control, cycle, *rest)),))
    lines = about_workloads(shown(run, width)).splitlines()
    assert all(cell_len(line) <= width for line in lines)
    token = next(line for line in lines if "token" in line)
    assert re.search(r"token +.*12 to 15 of 40 +8\.0 s behind", token)
    log = next(line for line in lines if "log line" in line)
    if width == 120:
        assert re.search(r"token +5\.7 s +12 +.*5\.6 s +9 expired +0", token)
        assert log.split()[-1] == "7"
        assert any(re.search(r"answer +5\.7 s +11 +0 of 40", line) for line in lines)
    assert "dated" not in about_workloads(shown(searched, width)), "answers alone have their column"
