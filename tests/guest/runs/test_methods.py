"""Methods and patches through the command: what each predicts, a matrix, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.core.verdict import Outcome
from lab.hypervisor.domain import Accelerator
from tests.guest.conftest import Cli
from tests.regimes import possible_regimes

MATRIX = """
name: three
resync: agent
cycle:
  patch: {hold: 1s}
  settle: 500ms
  before: 3s
  watch: 6s
matrix:
  method: [save-restore, guest-sleep, host-sleep, snapshot-state]
expect:
  pause: {at_least: 1s}
  in_time: {within: 5s, tolerance: 1s, hold: 1s}
  kernel_log: any
"""

REBOOT = """
name: reboot
resync: agent
cycle:
  patch: {command: [touch, MARK], deadline: 5s, impact: reboot, undo: [rm, MARK]}
  settle: 500ms
  before: 2s
  watch: 4s
"""

SNAPSHOT = """
name: snapshot
resync: none
cycle:
  method: snapshot
  patch: {hold: 25s}
  settle: 0s
  before: 1s
  watch: 1s
"""

RUNS_ON = """
name: runs-on
resync: agent
cycle:
  patch: {command: [sleep, "1"], deadline: 5s, impact: none}
  settle: 500ms
  before: 2s
  watch: 3s
"""


def run(cli: Cli, playbook: str) -> tuple[int, dict[str, Any], str]:
    """A run; made again, twice at most, when it is inconclusive, as a busy machine may make it."""
    path = cli.home / "playbook.yaml"
    path.write_text(playbook)
    for _ in range(3):
        done = cli("run", str(path), "--json")
        assert done.stdout.startswith("{"), done.stderr
        if done.returncode != Outcome.INCONCLUSIVE.exit_code:
            break
    return done.returncode, json.loads(done.stdout), done.stderr


def test_a_matrix_of_methods_and_what_they_predict(cli: Cli) -> None:
    status, seen, said = run(cli, MATRIX)
    assert [cell["id"] for cell in seen["cells"]] == [
        *("save-restore", "guest-sleep", "host-sleep", "snapshot-state")
    ]
    cycles = {guest["cell"]: guest["cycles"][0] for guest in seen["guests"]}
    for cell, cycle in cycles.items():
        happened = "jumped" if cell == "host-sleep" else "resumed"
        # A guest that takes long to fall asleep may have run for that time, or not.
        assert cycle["regime"] in possible_regimes(cycle, happened), (cell, cycle)
        assert all(held["agrees"] is not False for held in cycle["predictions"]), cycle["predictions"]
    assert {"save", "restore"} <= {step["name"] for step in cycles["save-restore"]["steps"]}
    assert cycles["guest-sleep"]["boot_id_unchanged"]
    stall = cycles["snapshot-state"]["stall"]
    assert stall["thawed_inside"] == 0
    assert stall["felt"]["high_ns"] >= stall["calls"]["low_ns"] >= 1_000_000_000
    assert status == 0, said
    assert not cli.left()
    assert not list((cli.home / "saved").glob("*"))


def test_frozen_file_systems_are_thawed_when_the_controller_is_killed(
    cli: Cli, eventually: Callable[..., Any]
) -> None:
    path = cli.home / "playbook.yaml"
    path.write_text(SNAPSHOT)
    process = cli.start("run", str(path))
    eventually(lambda: '"kind":"freeze"' in cli.journal())
    process.kill()
    eventually(lambda: '"kind":"deadman"' in cli.journal())
    acted = next(line for line in map(json.loads, cli.journal().splitlines()) if line["kind"] == "deadman")
    assert (acted["act"], acted["text"]) == ("resumed", "its file systems were thawed"), acted
    overlays = list((cli.home / "guests").rglob("freezelab-*.qcow2"))
    assert len(overlays) == 1
    recovered = cli("recover", "--keep")
    assert "was written back" in recovered.stdout, recovered.stderr
    assert not overlays[0].exists()
    assert cli("recover").returncode == 0
    assert not cli.left()


def test_a_patch_that_needs_a_reboot(cli: Cli) -> None:
    mark = cli.home / "mark"
    status, seen, said = run(cli, REBOOT.replace("MARK", str(mark)))
    (cycle,) = seen["guests"][0]["cycles"]
    assert cycle["method"] == "reboot"
    assert cycle["boot_id_unchanged"] is False
    assert cycle["outage_ns"] > 0
    assert cycle["pause"] is None
    assert status == 0, said
    assert not mark.exists()  # it was undone
    assert '"kind":"undo"' in cli.journal()


def test_a_patch_under_guests_that_run_on(cli: Cli) -> None:
    status, seen, said = run(cli, RUNS_ON)
    (cycle,) = seen["guests"][0]["cycles"]
    assert (cycle["method"], cycle["regime"], cycle["boot_id_unchanged"]) == ("none", "running", True)
    assert status == 0, said


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        (
            "{command: [reboot-the-host], deadline: 5s, impact: reboot}",
            "cannot be applied under a frozen guest",
        ),
        ("{replace-hypervisor: /nowhere/qemu}", "cannot be applied under suspend"),
    ],
)
def test_what_does_not_go_together_is_refused_by_plan(cli: Cli, patch: str, says: str) -> None:
    path = cli.home / "playbook.yaml"
    path.write_text(f"name: wrong\nresync: none\ncycle:\n  method: suspend\n  patch: {patch}\n")
    done = cli("plan", str(path))
    assert done.returncode == 2
    assert says in done.stderr
    assert f"{Path(path).name}:" in done.stderr


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        ("{replace-hypervisor: /nowhere/qemu}", "no such emulator"),
        ("{replace-hypervisor: /bin/echo}", "this is not QEMU"),
        ("{ansible: /nowhere/playbook.yml, deadline: 5s}", "/nowhere/playbook.yml"),
        ("reload-kvm", "KVM is not usable here"),
    ],
)
def test_what_this_machine_cannot_do_is_told_before_a_guest_is_booted(
    cli: Cli, accelerator: Accelerator, patch: str, says: str
) -> None:
    if patch == "reload-kvm" and accelerator is Accelerator.KVM:
        pytest.skip("refused only where KVM cannot be used, and here it can")
    if "ansible" in patch and shutil.which("ansible-playbook") is None:
        says = "ansible-playbook is not installed"
    path = cli.home / "playbook.yaml"
    path.write_text(f"name: wrong\nresync: none\ncycle:\n  patch: {patch}\n")
    done = cli("run", str(path))
    assert done.returncode == 4
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((cli.home / "runs").glob("*"))
