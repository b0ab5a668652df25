"""A search that goes on from an earlier run's tries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lab.core.history import HistoryEvent, ToleranceTried
from lab.core.plan import Cell, Plan
from lab.core.units import NS_PER_S
from lab.core.verdict import Outcome
from lab.errors import UsageError
from lab.record.journal import read_history
from lab.record.model import Run
from lab.record.run import judge
from lab.session.tolerance import EarlierTries, is_complete
from tests.unit.real_histories import unpacked


class _Written:
    """A journal in memory."""

    def __init__(self) -> None:
        self.events: list[HistoryEvent] = []

    def append(self, event: HistoryEvent) -> None:
        self.events.append(event)


@pytest.fixture
def searched(tmp_path: Path) -> tuple[Run, Plan]:
    """The real run of a search, and its plan."""
    history = read_history(unpacked("tolerance", tmp_path))
    return judge(history)[0], history.start.plan


def _cell(plan: Plan) -> Cell:
    (cell,) = plan.parts
    return cell


def test_its_tries_become_part_of_the_new_history(searched: tuple[Run, Plan]) -> None:
    run, plan = searched
    journal = _Written()
    tries = EarlierTries.of(run, plan, plan).journalled(_cell(plan), journal)
    (record,) = run.tolerances
    assert [(one.pause_ns, one.outcome) for one in tries] == [
        (one.pause_ns, one.outcome) for one in record.tries
    ]
    assert len(journal.events) == len(tries) > 0
    assert all(isinstance(one, ToleranceTried) and one.of_run == run.id for one in journal.events)
    assert is_complete(_cell(plan), tries)


def test_it_goes_on_where_it_was_cut_off(searched: tuple[Run, Plan]) -> None:
    run, plan = searched
    (record,) = run.tolerances
    cut = replace(run, tolerances=(replace(record, tries=record.tries[:2]),))
    tries = EarlierTries.of(cut, plan, plan).journalled(_cell(plan), _Written())
    assert len(tries) == 2
    assert not is_complete(_cell(plan), tries)


def test_inconclusive_tries_are_made_again(searched: tuple[Run, Plan]) -> None:
    run, plan = searched
    (record,) = run.tolerances
    unclear = tuple(replace(one, outcome=Outcome.INCONCLUSIVE) for one in record.tries)
    earlier = EarlierTries.of(replace(run, tolerances=(replace(record, tries=unclear),)), plan, plan)
    assert earlier.journalled(_cell(plan), _Written()) == []


def test_another_playbook_is_refused(searched: tuple[Run, Plan]) -> None:
    run, plan = searched
    with pytest.raises(UsageError, match="it ran another playbook"):
        EarlierTries.of(run, plan, replace(plan, cycle=replace(plan.cycle, watch_ns=1)))
    with pytest.raises(UsageError, match="it searched nothing"):
        EarlierTries.of(replace(run, tolerances=()), plan, plan)


def test_a_longer_search_of_the_same_tries_is_not_complete(searched: tuple[Run, Plan]) -> None:
    run, plan = searched
    cell = _cell(plan)
    assert cell.tolerance is not None
    finer = replace(cell, tolerance=replace(cell.tolerance, precision=0.05, longest_ns=60 * NS_PER_S))
    tries = EarlierTries.of(run, plan, plan).journalled(cell, _Written())
    assert not is_complete(finer, tries)
