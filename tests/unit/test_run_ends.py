"""How `run` ends when all is measured and the clean-up fails: with its report, and the verdict's exit code.

The run is a history of a real one, written again; what fails is put after it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner, Result

from lab.cli import main, streams
from lab.core.history import Host, RunEnded, RunStarted
from lab.errors import FreezelabError, GuestError, HypervisorError, Interrupted, MachineError
from lab.record.events import UnknownEvent
from lab.record.journal import read_history
from lab.session import run
from lab.session.guest_host import GuestHost
from tests.unit.real_histories import unpacked

PASSED, FAILED = "control-cycles", "called-off"
Ends = Callable[..., Result]


def raising(error: BaseException | None) -> None:
    if error is not None:
        raise error


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ends:
    """The command, with this run: what comes of its cells, of removing the guests, and of closing libvirt."""

    def end(
        name: str,
        *,
        in_cells: BaseException | None = None,
        removing: BaseException | None = None,
        closing: BaseException | None = None,
        metrics: str = "",
    ) -> Result:
        (tmp_path / "old").mkdir()
        history = read_history(unpacked(name, tmp_path / "old"))

        class Hypervisor:
            dead_man = SimpleNamespace()

            def __enter__(self) -> Hypervisor:
                return self

            def __exit__(self, *_: object) -> None:
                raising(closing)

        class KnownHost(GuestHost):
            def facts(self) -> Host:
                return start.host

        class Cells:
            measured = False

            def __init__(self, *arguments: Any) -> None:
                self._journal = arguments[5]

            def __enter__(self) -> Cells:
                return self

            def __exit__(self, *raised: object) -> None:
                if raised[0] is None:
                    raising(removing)

            def run(self) -> None:
                for entry in history.entries:
                    if not isinstance(entry.event, UnknownEvent | RunStarted | RunEnded) and entry.seq:
                        self._journal.append(entry.event)
                raising(in_cells)
                self.measured = True

        start = history.start
        monkeypatch.setenv("FREEZELAB_HOME", str(tmp_path / "home"))
        monkeypatch.setattr(main, "_plan", lambda _name: start.plan)
        monkeypatch.setattr(run, "with_counts", lambda plan, *_: plan)
        monkeypatch.setattr(run, "images_for", lambda *_: {})
        monkeypatch.setattr(run, "connect", lambda *_, **__: Hypervisor())
        host = KnownHost(tmp_path / "home", *cast(Any, (Hypervisor(), {}, None, None)))
        monkeypatch.setattr(run, "prepare_host", lambda *_: host)
        monkeypatch.setattr(run, "make_patch", lambda *_: SimpleNamespace(check=lambda: None))
        monkeypatch.setattr(run, "Cells", cast(Any, Cells))
        monkeypatch.setattr(streams, "prepare", lambda: None)
        monkeypatch.setattr(streams, "delivered", nullcontext)
        return CliRunner().invoke(
            main.app, ["run", "-q", "--json", *(["--metrics", metrics] if metrics else [])]
        )

    return end


def run_json(home: Path) -> Any:
    (path,) = home.glob("home/runs/*/run.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("name", "outcome", "failing", "code"),
    [
        (PASSED, "passed", {}, 0),
        (FAILED, "failed", {}, 1),
        # Nothing is left behind of a connection, and of what was put into a guest that is gone.
        (PASSED, "passed", {"closing": HypervisorError("cannot be closed")}, 0),
        (FAILED, "failed", {"closing": HypervisorError("cannot be closed")}, 1),
        (PASSED, "passed", {"removing": GuestError("chrony does not stop")}, 0),
        # A tap, or the like.
        (PASSED, "passed", {"removing": MachineError("the tap cannot be removed")}, 4),
        (FAILED, "failed", {"removing": MachineError("the tap cannot be removed")}, 1),
        (PASSED, "passed", {"removing": OSError(28, "No space left on device")}, 4),
    ],
)
def test_a_clean_up_that_fails_takes_nothing_from_a_run_that_was_measured(
    ends: Ends, tmp_path: Path, name: str, outcome: str, failing: dict[str, BaseException], code: int
) -> None:
    done = ends(name, **failing)
    assert done.exit_code == code, done.output
    assert json.loads(done.stdout)["outcome"] == outcome
    assert run_json(tmp_path)["outcome"] == outcome
    lines = done.stderr.splitlines()
    assert len(lines) == len(failing)
    for line, error in zip(lines, failing.values(), strict=True):
        assert line.startswith("freezelab: ")
        assert line.endswith(error.args[-1])


@pytest.mark.parametrize(
    ("failing", "code"),
    [
        ({"in_cells": MachineError("the disk is full")}, 4),
        ({"in_cells": MachineError("the disk is full"), "closing": HypervisorError("cannot be closed")}, 4),
        ({"in_cells": Interrupted("interrupted by SIGINT")}, 130),
        ({"removing": Interrupted("interrupted by SIGINT")}, 130),
    ],
)
def test_what_ends_a_run_early_makes_it_inconclusive_and_is_its_exit_code(
    ends: Ends, tmp_path: Path, failing: dict[str, FreezelabError], code: int
) -> None:
    done = ends(PASSED, **failing)
    assert done.exit_code == code, done.output
    assert run_json(tmp_path)["outcome"] == "inconclusive"
    assert str(next(iter(failing.values()))) in done.stderr


def test_why_a_run_ended_is_told_after_what_could_not_be_written(ends: Ends) -> None:
    done = ends(PASSED, in_cells=GuestError("it does not boot"), metrics="/dev/full")
    assert done.exit_code == 4, done.output
    metrics, why = done.stderr.splitlines()[-2:]
    assert (metrics, why) == (
        "freezelab: /dev/full: cannot be written: No space left on device",
        "freezelab: it does not boot",
    )


def test_a_signal_after_the_run_ends_it_with_its_report(ends: Ends, tmp_path: Path) -> None:
    done = ends(PASSED, closing=Interrupted("interrupted by SIGTERM"))
    assert done.exit_code == 130, done.output
    assert run_json(tmp_path)["outcome"] == "passed"
    assert json.loads(done.stdout)["outcome"] == "passed"
