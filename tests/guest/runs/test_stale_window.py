"""A guest that wakes behind refuses a certificate that was made a moment ago, until its clock is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.guest.conftest import Cli

# The first handshakes take over a second each in an emulated lab host.
PLAYBOOK = """\
name: stale-window
workload: tls
resync: none
cycle: {settle: 4s, patch: {hold: 4s}, watch: 6s}
"""


@pytest.mark.timeout(900)  # the image may have to be built
def test_a_guest_that_wakes_behind_refuses_new_certificates(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "stale.yaml").write_text(PLAYBOOK)
    done = cli("run", str(tmp_path / "stale.yaml"), timeout=400)
    (path,) = cli.home.glob("runs/*/run.json")
    run: dict[str, Any] = json.loads(path.read_text())
    (workload,) = run["workloads"]
    (cycle,) = workload["cycles"]
    assert cycle["ok"], done.stderr
    assert cycle["events"]["not yet valid"] == cycle["errors"]["certificate is not yet valid"] > 3
    (predicted,) = cycle["predictions"]
    # Nothing in the client's configuration says when its clock is set: it may be refused, and was.
    assert predicted["happens"] is None
    assert predicted["happened"] is True
