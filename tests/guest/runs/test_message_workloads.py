"""A workload of the lab's own with a real broker, as people run it: its clients give it up while it stands
still, whatever its own clocks do, and their wills are published when it wakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.guest.conftest import Cli

PLAYBOOK = """\
name: broker
network: lab
workload: {name: mosquitto, settle: 5s, options: {keepalive: 4s}, expect: {lost: 0, prediction: any}}
resync: agent
matrix: {method: [suspend, sigstop]}
cycle: {settle: 500ms, patch: {hold: 7s}, watch: 6s, budget: 60s}
"""


@pytest.mark.timeout(900)  # the image may have to be built
def test_clients_give_up_a_broker_that_stands_still_and_nothing_is_lost(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "broker.yaml").write_text(PLAYBOOK)
    done = cli("run", str(tmp_path / "broker.yaml"), timeout=500)
    (path,) = cli.home.glob("runs/*/run.json")
    run: dict[str, Any] = json.loads(path.read_text())
    cycles = {one["cell"]: one["cycles"][0] for one in run["workloads"]}
    assert set(cycles) == {"suspend", "sigstop"}, done.stderr
    for cycle in cycles.values():
        assert cycle["events"]["gave up"] > 0
        assert cycle["events"]["will"] > 0
        assert cycle["ledger"]["acknowledged"] > 100
        assert cycle["ledger"]["lost"] == 0
        assert cycle["outage"]["low_ns"] > 6_000_000_000
    assert cycles["suspend"]["events"].get("dropped", 0) == 0
