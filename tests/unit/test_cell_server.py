"""The process that starts cells: its children's ends, told and untold."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lab.errors import MachineError
from lab.hosts import cell_server
from lab.hosts.cell_server import CellServer

WAIT_S = 60.0
STAND_IN = """
import os, signal, sys, time
from pathlib import Path
from lab.hosts.cell_server import serve

def run(words):
    sys.stderr.write("said ")
    if words[0] == "exit":
        return int(words[1])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("cleaned up"))
    Path(words[1]).write_text(f"{os.getpid()} {os.getsid(0)} {os.getppid()}\\n")
    time.sleep(600)

serve(run)
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[CellServer]:
    monkeypatch.setattr(cell_server, "SERVER", (sys.executable, "-c", STAND_IN))
    made = CellServer()
    yield made
    made.close()


def status(server: CellServer) -> int | None:
    return server.ended(WAIT_S)


def begun(server: CellServer, folder: Path) -> tuple[int, int]:
    """A child that goes on; its process id and its server's."""
    pids = folder / "pids"
    server.begin(["hang", str(pids)], folder / "said")
    end = time.monotonic() + WAIT_S
    while not pids.exists() or not pids.read_text().endswith("\n"):
        assert time.monotonic() < end
        time.sleep(0.02)
    child, session, parent = map(int, pids.read_text().split())
    assert session == child and psutil.Process(child).name() == cell_server.NAME
    return child, parent


def gone(pid: int) -> None:
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], WAIT_S)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_one_child_after_another_with_its_words_stderr_and_exit_status(
    server: CellServer, tmp_path: Path
) -> None:
    for number in (0, 3):
        server.begin(["exit", str(number)], tmp_path / f"said-{number}")
        assert status(server) == number
        assert (tmp_path / f"said-{number}").read_text() == "said "


def test_a_child_ends_when_it_is_told(server: CellServer, tmp_path: Path) -> None:
    child, _ = begun(server, tmp_path)
    assert server.ended(0.1) is None
    server.end()
    assert status(server) == 1
    assert (tmp_path / "said").read_text() == "said cleaned up\n"
    assert not psutil.pid_exists(child)
    server.end()  # nobody is there to be told
    server.begin(["exit", "0"], tmp_path / "said")
    assert status(server) == 0


def test_a_child_that_is_killed_has_the_signal_as_its_status(server: CellServer, tmp_path: Path) -> None:
    child, _ = begun(server, tmp_path)
    os.kill(child, signal.SIGKILL)
    assert status(server) == -signal.SIGKILL


def test_a_child_does_not_outlive_whoever_wants_it(server: CellServer, tmp_path: Path) -> None:
    child, parent = begun(server, tmp_path)
    server.close()
    assert not psutil.pid_exists(child) and not psutil.pid_exists(parent)
    assert (tmp_path / "said").read_text() == "said cleaned up\n"
    with pytest.raises(MachineError, match="has gone"):
        server.begin(["exit", "0"], tmp_path / "said")


def test_a_child_whose_server_is_killed_cleans_up(server: CellServer, tmp_path: Path) -> None:
    child, parent = begun(server, tmp_path)
    os.kill(parent, signal.SIGKILL)
    with pytest.raises(MachineError, match="has gone"):
        status(server)
    gone(child)
    assert (tmp_path / "said").read_text() == "said cleaned up\n"


def test_the_command_itself_runs_in_a_child(tmp_path: Path) -> None:
    server = CellServer()
    try:
        server.begin(["run", "no-such-playbook"], tmp_path / "said")
        assert status(server) == 2
        assert "no-such-playbook" in (tmp_path / "said").read_text()
    finally:
        server.close()
