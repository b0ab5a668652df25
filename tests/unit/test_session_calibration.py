"""Calibrations on disk, their plan and their output."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from lab.cli.main import app
from lab.core.calibration import CalibratedMachine, calibrate
from lab.core.history import Host
from lab.core.method import FreezeMethod, Regime
from lab.errors import RecordError, UsageError
from lab.process.clock import HostClock
from lab.record.model import Calibration
from lab.report.accuracy import show_accuracy
from lab.report.calibration import render_calibration
from lab.report.page import Page
from lab.session import calibration, calibration_run
from tests.unit.builders import RUNS
from tests.unit.kept_guest import console_of
from tests.unit.simulation import MS, Repair, S, Scenario, simulate
from tests.unit.strategies import cases


@given(st.integers(1, 80), st.integers(1, 30), st.integers(0, 1 << 32))
@cases(50)
def test_the_plan_of_a_calibration(cycles: int, controls: int, seed: int) -> None:
    plan = calibration_run.plan_for(cycles, controls, seed)
    assert plan == calibration_run.plan_for(cycles, controls, seed)
    assert len({cell.id for cell in plan.cells}) == len(plan.cells)
    assert sum(cell.repeat for cell in plan.cells) == cycles
    assert sum(cell.control for cell in plan.cells) == controls
    assert {cell.cycle.method for cell in plan.cells} <= {FreezeMethod.SIGSTOP, FreezeMethod.SUSPEND}
    if cycles >= 30:
        kinds = {(cell.cycle.method, cell.cycle.patch.longest_ns) for cell in plan.cells}
        assert len(kinds) == 2 * len(calibration_run.LENGTHS_NS)
        assert plan.cells != calibration_run.plan_for(cycles, controls, seed + 1).cells


MACHINE = Host(cpu="c", kernel="k", qemu="7.2", accelerator="tcg")


def saved(made_ns: int = 0, **changes: object) -> calibration.Saved:
    obs, _ = simulate(Scenario(1, Regime.JUMPED, pause_ns=500 * MS, watch_ns=S, repair=Repair.NONE))
    quiet, _ = simulate(Scenario(2, Regime.RUNNING, pause_ns=0, watch_ns=S, repair=Repair.NONE))
    figures = calibrate([(500 * MS, obs), (500 * MS, quiet)])
    assert figures is not None
    machine = calibration.machine_of(MACHINE)
    summary = {
        name: value
        for name, value in asdict(Calibration("2026", 1, 5, 6, 1.0, 7, 8)).items()
        if name not in ("stale", "rough")
    }
    made = calibration.Saved("2026", made_ns, "run", 1, machine, summary, calibration.as_data(figures))
    return replace(made, **changes)  # type: ignore[arg-type]


def test_runs_quote_the_last_calibration(tmp_path: Path) -> None:
    host = MACHINE
    assert calibration.for_record(tmp_path, host) is None
    calibration._write(tmp_path, saved(HostClock().now().real_ns))
    assert calibration.load(tmp_path) is not None
    quoted = calibration.for_record(tmp_path, host)
    assert quoted is not None
    assert Calibration(**quoted) == Calibration("2026", 1, 5, 6, 1.0, 7, 8, "", "only 1 of 30 pauses")
    moved = calibration.for_record(tmp_path, replace(host, kernel="k2"))
    assert moved is not None
    assert "another kernel" in moved["stale"]
    calibration._write(tmp_path, saved(0))
    old = calibration.for_record(tmp_path, host)
    assert old is not None
    assert "days old" in old["stale"]
    (tmp_path / "calibration.json").write_text("{}")
    assert calibration.for_record(tmp_path, host) is None
    with pytest.raises(RecordError, match="not a calibration"):
        calibration.load(tmp_path)


def test_the_machine_is_not_named() -> None:
    made = calibration.machine_of(Host())
    identity = Path("/etc/machine-id")
    assert len(made.id) == 16
    if identity.exists() and identity.stat().st_size:
        assert made.id not in identity.read_text()
    assert made == CalibratedMachine(made.id, "", "", "", "")


@pytest.mark.parametrize(("met", "lost", "code"), [(1, 0, 0), (0, 0, 1), (1, 1, 3), (0, 1, 1)])
def test_a_calibration_is_never_green_by_accident(met: int, lost: int, code: int) -> None:
    made = saved()
    everything = {**made.figures["all"], "met": met, "lost": lost}
    assert calibration.exit_code(replace(made, figures={**made.figures, "all": everything})) == code


def test_counts() -> None:
    assert calibration_run.counts(None, quick=False) == (calibration.CYCLES, calibration_run.CONTROLS)
    assert calibration_run.counts(1, quick=False) == (1, 1)
    with pytest.raises(UsageError):
        calibration_run.counts(5, quick=True)


def full(**changes: object) -> calibration.Saved:
    """A calibration of as many pauses as it takes, on a machine at rest."""
    made = saved(HostClock().now().real_ns, **changes)
    everything = {**made.figures["all"], "count": calibration.CYCLES, "met": calibration.CYCLES}
    return replace(made, figures={**made.figures, "all": everything})


def test_a_rough_calibration_does_not_take_a_good_ones_place(tmp_path: Path) -> None:
    good, loaded = full(made="good"), full(made="busy", load=6.3, cpus=2)
    few = saved(HostClock().now().real_ns, made="few")
    assert (good.rough, loaded.rough, few.rough) == (
        "", "measured at a load of 6.3 on 2 CPUs", "only 1 of 30 pauses"
    )  # fmt: skip
    for first in (few, loaded):
        assert calibration.store(tmp_path, first) == ""  # better than none
    kept = calibration.load(tmp_path)
    assert kept is not None
    assert kept.made == "busy"
    assert calibration.store(tmp_path, good) == ""
    for later in (few, loaded):
        why = calibration.store(tmp_path, later)
        assert (
            why == f"{later.rough}; the calibration of good stays (freezelab calibrate --forget removes it)"
        )
    assert calibration.load(tmp_path) == good
    assert calibration.store(tmp_path, replace(few, machine=replace(few.machine, kernel="k2"))) == ""


def test_a_rough_calibration_is_quoted_as_one(tmp_path: Path) -> None:
    calibration.store(tmp_path, full(load=6.3, cpus=2))
    quoted = calibration.for_record(tmp_path, MACHINE)
    assert quoted is not None
    console, out = console_of(120)
    show_accuracy(Page(console), replace(RUNS["passed"](), calibration=Calibration(**quoted)))
    assert (
        "the calibration is rough: measured at a load of 6.3 on 2 CPUs: run freezelab calibrate"
        in out.getvalue()
    )


@pytest.mark.parametrize("damaged", [False, True])
def test_a_calibration_can_be_forgotten(tmp_path: Path, damaged: bool) -> None:
    calibration.store(tmp_path, full())
    if damaged:
        (tmp_path / "calibration.json").write_text("{")
    environment = {"FREEZELAB_HOME": str(tmp_path)}
    done = CliRunner().invoke(app, ["calibrate", "--forget"], env=environment)
    assert done.exit_code == 0
    assert done.stdout == f"removed {tmp_path}/calibration.json; later reports quote no calibration\n"
    assert calibration.load(tmp_path) is None
    again = CliRunner().invoke(app, ["calibrate", "--forget"], env=environment)
    assert again.exit_code == 2
    assert "no calibration yet" in again.stderr


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_calibration_fits_the_terminal(width: int) -> None:
    made = saved()
    console, out = console_of(width)
    loaded = replace(made, load=2.5, cpus=2)
    assert loaded.busy
    assert not replace(loaded, load=1.9).busy
    render_calibration(
        made.made, made.run, made.figures, "another kernel since: 2, then 1", console, "the load was 2.5"
    )
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "500 ms" in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "1/1" in text
    assert "another kernel" in text
    assert "the load was 2.5" in text
    assert "noise floor" in text
