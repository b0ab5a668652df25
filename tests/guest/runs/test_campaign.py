"""Some cases of the campaign of faults. FREEZELAB_CAMPAIGN=200 runs more, as the nightly tier does; all that
there are, and the table: `python -m tests.campaign --help`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaign.__main__ import NOTHING_WORKS
from tests.guest.conftest import slow_host
from tests.mounts import need_namespaces

CASES = int(os.environ.get("FREEZELAB_CAMPAIGN", "20"))
SEED = os.environ.get("FREEZELAB_CAMPAIGN_SEED", "1")
ROOT = Path(__file__).parents[3]
CASE_S = 60
"""What a case is given on a busy machine; 10 s is usual, and two run side by side."""


@pytest.mark.timeout(300 + CASE_S * CASES)
def test_no_fault_loses_a_guest_or_makes_a_verdict_wrong(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("the campaign needs root, for namespaces")
        pytest.skip("needs root, for namespaces")
    need_namespaces()
    command = [sys.executable, "-m", "tests.campaign", "--cases", str(CASES), "--seed", SEED, "--jobs", "2"]
    done = subprocess.run(
        [*command, "--work", str(tmp_path / "work"), str(tmp_path / "results.jsonl")],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    if slow_host() and NOTHING_WORKS in done.stderr:
        pytest.skip(f"too slow a host for the cases' budgets: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{CASES} cases, 0 wrong" in done.stderr
