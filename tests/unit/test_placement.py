"""How long a matrix takes on several hosts, and from what that is known."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from lab.core.parallel_cells import batches
from lab.core.placement import forecasts, longest_first
from lab.record.cell_times import cell_times
from lab.record.journal import read_history
from lab.report.plan import render_plan
from tests.unit.consoles import output, terminal
from tests.unit.real_histories import unpacked


def least(lengths: tuple[int, ...], hosts: int) -> int:
    """By all placements."""
    return min(
        max(
            sum(length for length, on in zip(lengths, chosen, strict=True) if on == host)
            for host in range(hosts)
        )
        for chosen in product(range(hosts), repeat=len(lengths))
    )


@pytest.mark.parametrize("lengths", [(7,), (5, 5, 4, 4, 3, 3, 3), (9, 1, 1, 1), (6, 5, 4, 3, 2, 1)])
@pytest.mark.parametrize("hosts", [1, 2, 3])
def test_longest_first_is_within_its_bound(lengths: tuple[int, ...], hosts: int) -> None:
    found, best = longest_first(lengths, hosts), least(lengths, hosts)
    assert best <= found
    assert 3 * hosts * found <= (4 * hosts - 1) * best


def test_a_forecast_ends_where_each_batch_has_a_host() -> None:
    assert [one.hosts for one in forecasts([4, 3, 2])] == [2, 5]
    assert [(one.all_ns, one.times_as_fast) for one in forecasts([4, 3, 2])] == [(5, 9 / 5), (4, 9 / 4)]
    assert [one.hosts for one in forecasts([1] * 30)] == [2, 5, 20]
    assert forecasts([4]) == []


@pytest.mark.parametrize("name", ["matrix", "merged"])
def test_times_are_those_of_a_real_run(name: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    plan = read_history(unpacked(name, tmp_path / "other")).start.plan
    folder = tmp_path / f"20261130-000000-{plan.name}-0000"
    (tmp_path / "other").rename(folder)
    history = read_history(folder)
    found = cell_times([tmp_path / "none", folder], plan)
    assert found is not None
    assert len(found.batches) == len(batches(plan))
    assert all(length > 1_000_000_000 for length in found.batches)
    whole = sum(entry.at.raw_ns for entry in history.entries[-2:-1]) - history.began.raw_ns
    if name == "matrix":  # in one process: its cells fill it, but for starts of guests that were shared
        assert sum(found.batches) >= whole * 0.9


def test_the_plan_says_how_much_faster_it_is(tmp_path: Path) -> None:
    plan = read_history(unpacked("matrix", tmp_path)).start.plan
    console = terminal(110)
    render_plan(plan, console, over_hosts=(forecasts([30_000_000_000, 20_000_000_000]), "RUN"))
    assert "2 hosts: 30 s, 1.7 times as fast · by run RUN" in output(console).replace(
        "\N{NO-BREAK SPACE}", " "
    )
