"""A workload of the lab's own with a real broker, as people run it: it drops no client where its clocks have
stood still, and loses nothing. Whether it drops any where they ran on depends on the phase of their pings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.guest.conftest import Cli

PLAYBOOK = """\
name: broker
network: lab
workload: {name: mosquitto, options: {keepalive: 8s}, expect: {lost: 0, prediction: any}}
resync: agent
matrix: {method: [suspend, sigstop]}
cycle: {settle: 500ms, patch: {hold: 8s}, watch: 6s, budget: 60s}
"""


def test_a_broker_whose_clocks_stood_still_drops_no_client(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "broker.yaml").write_text(PLAYBOOK)
    done = cli("run", str(tmp_path / "broker.yaml"), timeout=500)
    (path,) = cli.home.glob("runs/*/run.json")
    run: dict[str, Any] = json.loads(path.read_text())
    cycles = {one["cell"]: one["cycles"][0] for one in run["workloads"]}
    assert set(cycles) == {"suspend", "sigstop"}, done.stderr
    assert cycles["suspend"]["events"].get("dropped", 0) == 0
    for cycle in cycles.values():
        assert cycle["ledger"]["acknowledged"] > 100
        assert cycle["ledger"]["lost"] == 0
