"""What the report says of workloads and searches, from the real history of one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from lab.core.verdict import Outcome
from lab.core.workload.gauges import GaugeSummary
from lab.record.journal import read_history
from lab.record.model_clock import Measure
from lab.record.model_workload import OverlapRecord, StateChangeRecord
from lab.record.run import Run, judge
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
