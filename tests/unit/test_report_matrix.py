"""The report of runs of a matrix and of exchanges, as people see it."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from lab.core.units import NBSP
from lab.record.run import Predicted, Run
from lab.report.cells import short_values
from lab.report.exchange import change
from lab.report.junit import write_junit
from lab.report.steps import fine_bar
from lab.report.terminal import render
from tests.unit.builders import cycle, guest, run
from tests.unit.consoles import output, pipe, terminal, widest
from tests.unit.histories import ALL


@pytest.fixture
def runs(matrix_runs: dict[str, Run]) -> dict[str, Run]:
    return matrix_runs


def page(made: Run, console: Console) -> str:
    render(made, console, verbose=True)
    return output(console)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", ALL)
def test_on_a_terminal(runs: dict[str, Run], name: str, width: int, snapshot: SnapshotAssertion) -> None:
    assert page(runs[name], terminal(width)).replace(NBSP, " ") == snapshot


@pytest.mark.parametrize("name", ALL)
def test_as_plain_lines(runs: dict[str, Run], name: str, snapshot: SnapshotAssertion) -> None:
    text = page(runs[name], pipe())
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2500-\u259f\u00a0]", text)
    assert text == snapshot


@pytest.mark.parametrize("name", ALL)
def test_fits_every_width(runs: dict[str, Run], name: str) -> None:
    for width in [1, *range(40, 161, 8)]:
        assert widest(page(runs[name], terminal(width))) <= max(40, width)


def test_a_terminal_without_utf_8_has_bars_all_the_same(runs: dict[str, Run]) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    render(runs["upgrade"], Console(file=file, force_terminal=True, width=100, _environ={}), verbose=True)
    file.detach()
    line = next(text for text in raw.getvalue().decode("ascii").splitlines() if "prove memory " in text)
    assert "#" * 30 in line


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_bar_is_never_longer_than_its_room_nor_nothing(encoding: str) -> None:
    from lab.report.page import Page

    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    shown = Page(Console(file=file, force_terminal=True, width=80, _environ={}))
    for share in (0.0, 1e-9, 0.01, 0.33, 0.999, 1.0, 1.5, 1e9):
        made = fine_bar(shown, share, 20)
        assert len(made) <= 20
        assert bool(made) == (share > 0)


def test_junit_names_the_cell(runs: dict[str, Run], tmp_path: Path) -> None:
    write_junit(runs["methods"], tmp_path / "j.xml")
    tree = ET.fromstring((tmp_path / "j.xml").read_text(encoding="utf-8"))  # noqa: S314 - ours
    names = {case.get("classname") for case in tree.iter("testcase")}
    assert {"methods.suspend.web-0", "methods.guest-sleep"} <= names


def test_a_prediction_that_failed_is_a_surprise() -> None:
    wrong = Predicted("regime", "resumed", "jumped", False)
    made = run(guest("web-0", cycle(predictions=(wrong, Predicted("wall clock", "right", "right", True)))))
    lines = [line for line in page(made, pipe()).splitlines() if line.startswith("surprise")]
    assert lines == ["surprise      regime: suspend predicts resumed; measured: jumped"]


def test_predictions_stand_side_by_side_only_for_several_methods(runs: dict[str, Run]) -> None:
    assert "wall clock" in page(runs["methods"], terminal(120))
    assert "wall clock" not in page(runs["upgrade"], terminal(120))


def test_cut_connections_are_not_the_freezes_doing() -> None:
    made = run(guest("web-0", cycle(cut=True, agreeing=("hypervisor", "lag"))))
    text = page(made, pipe())
    assert "user-mode networking cut connections, the freeze did not" in text
    assert "silence contradicts" not in text


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("QEMU 7.2.22", "QEMU 10.0.2", "QEMU 7.2.22 → 10.0.2"),
        ("QEMU 7.2.22", "QEMU 7.2.22", "QEMU 7.2.22, the same"),
        ("", "0x2b", "0x2b"),
        ("a", "b", "a → b"),
    ],
)
def test_what_a_patch_changed(before: str, after: str, shown: str) -> None:
    assert change(before, after) == shown


def test_hundreds_of_cells_make_a_short_report(runs: dict[str, Run]) -> None:
    first = runs["benchmark"].cells[0]
    many = tuple(replace(first, id=f"cell-{i}") for i in range(400))
    lines = page(replace(runs["benchmark"], cells=many), terminal(100)).splitlines()
    assert len(lines) < 120


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (["udp-echo", "etcd"], ["udp-echo", "etcd"]),
        (
            ["name: corosync, options: {token: 3000}, expect: {lost: 0}", "name: nats"],
            ["corosync, token: 3000", "nats"],
        ),
        (["name: nats, expect: {lost: 0}", "name: nats, expect: {lost: 1}"], None),  # one name for two
    ],
)
def test_a_workload_is_its_name_and_its_options(
    runs: dict[str, Run], written: list[str], shown: list[str] | None
) -> None:
    made = next(one for one in runs.values() if len(one.cells) >= 2)
    cells = [
        replace(cell, values={"workload": text}) for cell, text in zip(made.cells, written, strict=False)
    ]
    values = short_values(replace(made, cells=tuple(cells)))
    assert [values[cell.id]["workload"] for cell in cells] == (shown or written)
