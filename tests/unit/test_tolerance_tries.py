"""What a try of a search is judged by while the run goes on, beside what the judge of the history says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lab.core.history import CellReached, ResumeCalled, StopCalled, ToleranceTried, WorkloadSampled
from lab.core.plan import Cell
from lab.core.units import NS_PER_S
from lab.core.verdict import Outcome
from lab.core.workload.sample import WorkloadDelivery, WorkloadRequest
from lab.core.workload.spec import WorkloadExpect
from lab.record.journal import History, NullJournal, read_history
from lab.session.tolerance import CycleEvents
from tests.unit.real_histories import unpacked


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """Of a real search."""
    folder: Path = tmp_path_factory.mktemp("history")
    return read_history(unpacked("tolerance", folder))


def _cell(history: History) -> Cell:
    (cell,) = history.start.plan.parts
    return cell


def test_the_tries_of_a_real_search_are_judged_as_they_were(history: History) -> None:
    events, found = CycleEvents(NullJournal()), []
    for event in (entry.event for entry in history.entries):
        if isinstance(event, CellReached | WorkloadSampled | StopCalled | ResumeCalled):
            events.append(event)
        elif isinstance(event, ToleranceTried):
            found.append((events.outcome(_cell(history)), event.outcome))
            events.clear()
    assert len(found) > 3
    assert {judged for judged, _ in found} == {Outcome.PASSED, Outcome.FAILED}
    assert all(judged is recorded for judged, recorded in found)


def test_a_message_delivered_before_the_cycle_that_acknowledges_it_is_not_lost(history: History) -> None:
    """A broker may deliver a message before it acknowledges it."""
    cell = _cell(history)
    spec = replace(cell.workloads[0], delivers=True, expect=WorkloadExpect(lost=0))
    cell = replace(cell, workloads=(spec,))
    t = 1000 * NS_PER_S
    control = WorkloadSampled(0, spec.name, t, t + NS_PER_S, (), [WorkloadDelivery(1, t + NS_PER_S - 2)])
    acknowledged = WorkloadRequest(1, t + NS_PER_S - 4, t + NS_PER_S - 3, t + NS_PER_S + 1, ok=True)
    later = WorkloadRequest(2, t + 2 * NS_PER_S, t + 2 * NS_PER_S, t + 2 * NS_PER_S + 2, ok=True)
    tried = WorkloadSampled(
        1,
        spec.name,
        t + NS_PER_S,
        t + 30 * NS_PER_S,
        [acknowledged, later],
        [WorkloadDelivery(2, later.sent_ns + 1)],
    )
    with_control, alone = CycleEvents(NullJournal()), CycleEvents(NullJournal())
    with_control.append(control)
    for events in (with_control, alone):
        events.clear()
        events.append(tried)
    assert with_control.outcome(cell) is Outcome.PASSED
    assert alone.outcome(cell) is not Outcome.PASSED  # lost, as far as this cycle tells
