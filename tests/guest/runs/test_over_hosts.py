"""Cells over two workers of this machine, with real guests; one is interrupted while its guest is frozen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from lab.record.journal import EVENTS
from tests.guest.conftest import FREEZELAB, remove_home
from tests.unit.cell_worker import REAL, LoopbackCluster, loopback_cluster

WAIT_S = 200.0
PLAYBOOK = """\
name: two
resync: none
matrix: {hold: [0s, 25s]}
cycle: {settle: 0s, before: 1s, watch: 1s}
"""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackCluster]:
    pytest.importorskip("distributed", reason="needs Dask, which a lab host is not sent")
    monkeypatch.setenv(REAL, "1")
    folder = Path("/tmp") / f"fl-{os.getpid()}-o"  # a short name, for sockets
    folder.mkdir()
    try:
        with loopback_cluster(folder, ["a", "b"]) as made:
            yield made
    finally:
        remove_home(folder)


def until(happened: Callable[[], object], controller: subprocess.Popen[str]) -> None:
    end = time.monotonic() + WAIT_S
    while not happened():
        assert controller.poll() is None and time.monotonic() < end
        time.sleep(0.05)


def frozen(cluster: LoopbackCluster, cell: str) -> bool:
    """Whether a guest of this cell has been stopped."""
    texts = [path.read_text() for path in cluster.folder.glob(f"*/home/runs/2*/{EVENTS}")]
    return any('"kind":"cell"' in text and f'"{cell}"' in text and '"kind":"stop"' in text for text in texts)


def test_a_cell_comes_back_and_a_frozen_one_is_resumed_and_removed(
    cluster: LoopbackCluster, tmp_path: Path
) -> None:
    (tmp_path / "book").mkdir()
    book = tmp_path / "book" / "two.yaml"
    book.write_text(PLAYBOOK)
    home = tmp_path / "home"
    command = [*FREEZELAB, "run", str(book), "--hosts", cluster.address, "--json"]
    controller = subprocess.Popen(
        command,
        env={**os.environ, "FREEZELAB_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    # The first has come back: its folder is not on its host any more.
    until(lambda: list(home.glob("runs/.2*/parts/2*-1")), controller)
    until(lambda: frozen(cluster, "hold-25s"), controller)
    controller.send_signal(signal.SIGINT)
    _, err = controller.communicate(timeout=WAIT_S)
    assert controller.returncode == 130, err
    (folder,) = (home / "runs").iterdir()
    run = json.loads((folder / "run.json").read_text())
    assert run["interrupted"]
    cycles = {guest["cell"]: guest["cycles"] for guest in run["guests"]}
    assert cycles["hold-0s"][0]["pause"]["value_ns"] > 0
    assert {part["host"]["details"]["host"] for part in run["parts"]} == {"a", "b"}
    assert all(part["host"]["qemu"] for part in run["parts"])
    words = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert not [line for line in words if "qemu" in line and str(cluster.folder) in line]
