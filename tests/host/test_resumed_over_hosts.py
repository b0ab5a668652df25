"""Cells over hosts that are namespaces, each with a real sshd, and real guests."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.hosts.cell_server import NAME
from tests.host.other_user import attempts, closed
from tests.host.ssh_hosts import NamespaceHost, SshHosts, in_namespace, ssh_hosts

WAIT_S = 250.0
PLAYBOOK = """
name: two
resync: agent
matrix: {hold: [3s, 4s]}
cycle: {settle: 0s, before: 1s, watch: 3s}
"""


def until(happened: Callable[[], object], controller: subprocess.Popen[str]) -> None:
    end = time.monotonic() + WAIT_S
    while not happened():
        assert controller.poll() is None and time.monotonic() < end
        time.sleep(0.05)


def child_of(host: NamespaceHost) -> psutil.Process:
    """The process there that has the guests of a cell."""
    for process in psutil.Process(host.process.pid).children(recursive=True):
        with suppress(psutil.Error):
            if process.name() == NAME:
                return process
    raise AssertionError(f"no cell runs on {host.name}")


def record(lab: SshHosts, text: str) -> dict[str, Mapping[str, Any]]:
    """What the record has of each cell: its finding's outcome, its part, its guest's cycles."""
    run = json.loads(text)
    cycles = {guest["cell"]: guest["cycles"] for guest in run["guests"]}
    parts = {part["cells"][0]: part for part in run["parts"]}
    return {
        cell["id"]: {
            **cell,
            "run": run["id"],
            "part": parts[cell["id"]],
            "cycles": cycles.get(cell["id"], []),
        }
        for cell in run["cells"]
    }


@pytest.mark.guest
def test_a_run_goes_on_after_a_child_was_killed(tmp_path: Path) -> None:
    """On a host whose REALTIME is an hour behind the controller's. Another user can do nothing meanwhile. The
    second run has the cell that the first lacks, and the other as it was."""
    with ssh_hosts() as lab:
        behind, other = lab.add("rack-1", real_ahead_s=-3600), lab.add("rack-2")
        book = tmp_path / "book" / "two.yaml"
        book.parent.mkdir()
        book.write_text(PLAYBOOK)
        command = ["run", str(book), "--hosts", str(lab.file()), "--json"]
        lab.folder.chmod(0o755)  # so that only freezelab's own folders hide what is in them
        controller = subprocess.Popen(
            lab.argv(*command), env=lab.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        until(lambda: behind.told("freeze"), controller)
        child_of(behind).kill()
        could = attempts(
            in_namespace(lab.controller), closed(lab.folder / "controller-state"), [controller.pid]
        )
        could += attempts(other.inside(), closed(other.state))
        assert [line.split()[0] for line in could] == ["tried"] * 2, could
        out, err = controller.communicate(timeout=WAIT_S)
        assert controller.returncode == 3, err
        first = record(lab, out)
        (lost,) = [
            name for name, cell in first.items() if cell["part"]["host"]["details"]["host"] == "rack-1"
        ]
        assert {cell["outcome"] for name, cell in first.items() if name != lost} == {"passed"}
        assert "the run was cut off before its end" in first[lost]["why"]
        done = lab.run(*command, "--resume", first[lost]["run"], timeout_s=WAIT_S)
        assert done.stdout, done.stderr
        second = record(lab, done.stdout)
        for name, cell in second.items():
            (cycle,) = cell["cycles"]
            assert cycle["pause"]["high_ns"] >= 3_000_000_000
            assert (cell["part"] == first[name]["part"]) == (name != lost)
        for host in lab.hosts:
            assert not list((host.state / "guests").glob("*"))
