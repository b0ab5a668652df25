"""Runs over hosts: a real Dask scheduler and real workers on the loopback, with cell_stand_in.py in place of
`freezelab run --cell` on each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lab.cli.main import app
from tests.unit.cell_stand_in import playbook
from tests.unit.cell_worker import WAIT_S, LoopbackCluster, loopback_cluster

FOUR = "128MiB, 192MiB, 256MiB, 320MiB"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackCluster]:
    """A cluster of two machines, which no test harms."""
    with loopback_cluster(tmp_path_factory.mktemp("two"), ["rack-1", "rack-2"]) as cluster:
        yield cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LoopbackCluster]:
    """A cluster of a test's own, without workers."""
    (tmp_path / "machines").mkdir()
    with loopback_cluster(tmp_path / "machines") as made:
        yield made


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FREEZELAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(cluster: LoopbackCluster, file: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["run", str(file), "--hosts", cluster.address, *options])


def record(done: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def reasons(run: dict[str, Any]) -> dict[str, str]:
    return {cell["id"]: cell["why"] for cell in run["cells"] if cell["why"]}


def until(happened: Any) -> None:
    end = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_cells_go_to_all_hosts_and_one_record_comes_back(
    two: LoopbackCluster, home: Path, tmp_path: Path
) -> None:
    done = run(two, playbook(tmp_path / "book", FOUR), "--json", "--repeat", "2", "--tag", "rack")
    assert done.exit_code == 0, done.output
    found = record(done)
    assert [cell["id"] for cell in found["cells"]] == [size.strip() for size in FOUR.split(",")]
    assert {cell["outcome"] for cell in found["cells"]} == {"passed"}
    assert [cell["cycles"] for cell in found["cells"]] == [2] * 4
    parts = found["parts"]
    assert {part["host"]["details"]["host"] for part in parts} == {"rack-1", "rack-2"}
    assert [len(part["cells"]) for part in parts] == [1] * 4
    assert all(part["complete"] for part in parts)
    # The parts are kept in the record's folder, and nothing is left on the hosts.
    (folder,) = (home / "runs").iterdir()
    assert folder.name == found["id"]
    assert len(list((folder / "parts").iterdir())) == 4
    assert not [*two.home("rack-1").glob("runs/*"), *two.home("rack-2").glob("runs/*")]
    again = CliRunner().invoke(app, ["report", folder.name, "--json"])
    assert json.loads(again.stdout) == found
