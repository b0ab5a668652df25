"""The command as people start it: one real guest a test, and nothing left behind."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.process.pace import paced
from tests.guest.conftest import Cli
from tests.unit.uninstall_lists import names_removed

Eventually = Callable[..., Any]

LONG = """\
name: long
resync: agent
cycle:
  settle: 100ms
  before: 500ms
  patch: {hold: 60s}
  budget: 90s
  watch: 1s
"""


@pytest.fixture
def long(tmp_path: Path) -> str:
    path = tmp_path / "long.yaml"
    path.write_text(LONG)
    return str(path)


def frozen(cli: Cli) -> Callable[[], bool]:
    """Whether the run has frozen its guest."""
    return lambda: '"kind":"freeze"' in cli.journal()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_resumes_the_frozen_guest_first(
    cli: Cli, long: str, eventually: Eventually, number: signal.Signals
) -> None:
    process = cli.start("run", long)
    eventually(frozen(cli))
    process.send_signal(number)
    process.send_signal(number)  # an impatient second one changes nothing
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert f"interrupted by {number.name}" in said
    assert "Traceback" not in said
    kinds = [json.loads(line)["kind"] for line in cli.journal().splitlines()]
    assert kinds.index("freeze") < kinds.index("resume") < kinds.index("run-end")
    assert cli.qemu() == []
    assert cli.left() == []
    assert {path.name for path in cli.home.iterdir()} <= names_removed("state_names")  # uninstall's list


def test_a_killed_run_is_recovered(cli: Cli, long: str, eventually: Eventually) -> None:
    process = cli.start("run", long)
    eventually(frozen(cli))

    # While it lives, a second one is told so and harms nothing.
    second = cli("run")
    assert second.returncode == 4
    assert f"pid {process.pid}" in second.stderr
    assert len(cli.qemu()) == 1

    process.kill()
    process.communicate(timeout=60)
    (guest,) = cli.qemu()
    eventually(lambda: '"kind":"deadman"' in cli.journal())  # which has resumed it
    used = guest.cpu_times().user
    eventually(lambda: guest.cpu_times().user > used)
    dead = cli("report", "--json")
    assert dead.returncode == 3, dead.stderr
    assert "dead-man" in dead.stdout

    short = cli.home / "short.yaml"
    short.write_text(LONG.replace("60s", "100ms"))
    after = cli("run", str(short))
    assert after.returncode == 0, after.stdout + after.stderr
    assert "left by a killed run: removed guest web-0" in after.stderr
    assert cli.qemu() == []
    assert cli.left() == []
    assert "nothing to recover" in cli("recover").stdout


def test_a_guest_that_dies_while_frozen_ends_the_run(
    cli: Cli, tmp_path: Path, eventually: Eventually
) -> None:
    """The run learns of it when the hold is over."""
    playbook = tmp_path / "dies.yaml"
    playbook.write_text(LONG.replace("60s", "5s"))
    process = cli.start("run", str(playbook))
    eventually(frozen(cli))
    (qemu,) = cli.qemu()
    qemu.kill()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 4, said
    assert "ended while it was frozen" in said
    assert "Traceback" not in said
    assert cli.left() == []


def test_the_negative_control_fails_as_it_must_and_says_why(cli: Cli) -> None:
    done = cli("run", "no-resync", "--junit", str(cli.home / "junit.xml"))
    assert done.returncode == 0, done.stderr
    assert "behind" in done.stdout
    run_json = next(cli.home.glob("runs/*/run.json"))
    run = json.loads(run_json.read_text())
    assert run["outcome"] == "passed"
    assert {f["metric"] for f in run["findings"] if f["failed_as_expected"]} == {"in time", "final offset"}
    assert "<failure" not in (cli.home / "junit.xml").read_text()
    assert cli.qemu() == []
    assert cli.left() == []

    # Judged again from its history alone, the same comes out.
    again = cli("report", "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout) == run


def test_a_run_over_budget_fails_and_the_patch_is_gone(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "over.yaml").write_text(
        "name: over\nresync: agent\ncycle:\n  before: 1s\n  patch: {command: [sleep, '47'], deadline: 50s}\n"
        f"  budget: {paced(2):.1f}s\n  watch: 2s\n"  # to stop the guest took 3 s in a lab host
    )
    done = cli("run", str(tmp_path / "over.yaml"))
    assert done.returncode == 1, done.stderr
    assert "sleep" in done.stdout
    assert not [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "47"]]


def test_chrony_brings_the_guest_back(cli: Cli) -> None:
    done = cli("run", "chrony", "--json")
    run = json.loads(done.stdout)
    assert done.returncode == 0, (done.stderr, [f for f in run["findings"] if f["outcome"] != "passed"])
    resync = run["guests"][0]["cycles"][0]["resync"]
    assert resync["outcome"] == "synced"
    assert "chronyd claims" in resync["said"]


def test_a_guest_that_does_not_boot_in_time(cli: Cli) -> None:
    done = cli("run", "--cold", "--boot", "1s")
    assert done.returncode == 4
    assert "no answer to SSH" in done.stderr
    assert "console" in done.stderr
    assert len(done.stderr.strip().splitlines()) < 15
    assert cli.qemu() == []
    assert cli.left() == []
