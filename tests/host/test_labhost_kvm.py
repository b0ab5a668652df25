"""A lab host from the command line: a run on real KVM in it, and its record here.

It takes some minutes, and more the first time, so it is asked for by FREEZELAB_LAB_HOST=1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(3600)
def test_a_run_on_kvm_in_a_lab_host(tmp_path_factory: pytest.TempPathFactory) -> None:
    if os.environ.get("FREEZELAB_LAB_HOST") != "1":
        pytest.skip("minutes long: asked for by FREEZELAB_LAB_HOST=1")
    home = tmp_path_factory.mktemp("home")  # a short path: sockets are below it
    environment = {**os.environ, "FREEZELAB_HOME": str(home), "PYTHONPATH": str(ROOT)}

    def freezelab(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "lab.cli.main", *arguments]
        return subprocess.run(
            argv, capture_output=True, text=True, env=environment, timeout=1800, check=False
        )

    started = freezelab("labhost", "up")
    assert started.returncode == 0, started.stderr
    try:
        inside = freezelab(
            "labhost", "ssh", "cat /sys/devices/system/clocksource/clocksource0/current_clocksource"
        )
        assert inside.stdout.strip() == "tsc"
        done = freezelab("--on", "labhost", "run", "first-freeze", "--tag", "here", "--json")
        assert done.returncode in (0, 3), done.stderr  # 3: a busy machine may leave it undecided
        run = json.loads(done.stdout)
        assert run["host"]["accelerator"] == "kvm"
        assert run["host"]["details"]["lab_host"]["name"] == "labhost"
        assert "here" in run["tags"]
        (cycle,) = (cycle for guest in run["guests"] for cycle in guest["cycles"])
        assert cycle["regime"] == "resumed"
        assert cycle["clocksource"]["before"] == "kvm-clock"
        crossed = cycle["cross_timestamps"]
        assert crossed["readings"] > 10
        assert crossed["contradicting"] == 0
        assert crossed["bound_ns"] < 1_000_000
        assert [path.name for path in (home / "runs").iterdir()] == [run["id"]]
        assert freezelab("report", run["id"]).returncode == done.returncode
    finally:
        gone = freezelab("labhost", "down")
    assert "removed guest labhost" in gone.stdout
    assert freezelab("labhost", "ssh", "true").returncode == 2
