"""Announcements and rollouts as people see them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from lab.core.units import NBSP
from lab.record.run import Run
from lab.report.notices import announced_text, show_events
from lab.report.page import Page
from lab.report.rollout import show_rollouts
from lab.report.terminal import render
from lab.report.text import cleaned
from tests.unit.consoles import output, pipe, terminal, widest
from tests.unit.fleets import ALL


@pytest.fixture(scope="module")
def runs(fleet_runs: dict[str, Run]) -> dict[str, Run]:
    return {name: cleaned(run) for name, run in fleet_runs.items()}


def shown(run: Run, width: int | None) -> str:
    console = pipe() if width is None else terminal(width)
    page = Page(console)
    show_rollouts(page, run)
    show_events(page, run)
    return output(console).replace(NBSP, " ")


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal(runs: dict[str, Run], name: str, width: int, snapshot: SnapshotAssertion) -> None:
    assert shown(runs[name], width) == snapshot


def test_as_plain_lines(runs: dict[str, Run], snapshot: SnapshotAssertion) -> None:
    assert shown(runs["rolled_out"], None) == snapshot


@pytest.mark.parametrize("name", ALL)
def test_fits_every_width(runs: dict[str, Run], name: str) -> None:
    for width in range(40, 140, 3):
        assert widest(shown(runs[name], width)) <= width


def test_a_large_rollout_makes_a_short_report(runs: dict[str, Run]) -> None:
    console = terminal(80)
    render(runs["large"], console, Path("/tmp/x"), verbose=True)
    assert len(output(console).splitlines()) < 110


def test_whom_a_stopped_rollout_did_not_come_to_is_no_row(runs: dict[str, Run]) -> None:
    console = pipe()
    render(runs["stopped"], console, Path("/tmp/x"), verbose=True)
    text = output(console)
    assert not re.search(r"^web-[4-7] ", text, re.M)
    assert "Not begun: web UD 2, 3" in text


def test_a_run_without_announcements_tells_of_none(runs: dict[str, Run]) -> None:
    from tests.unit.builders import run

    assert shown(run(), 80) == ""
    assert announced_text(runs["spared"].events).endswith("called off, and no guest was frozen")
