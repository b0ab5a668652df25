"""Some cases of the campaign of faults. FREEZELAB_CAMPAIGN=200 runs more, as the nightly tier does; all that
there are, and the table: `python -m tests.campaign --help`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.process.pace import PACE
from tests.mounts import need_namespaces
from tests.regimes import slow_host

CASES = int(os.environ.get("FREEZELAB_CAMPAIGN", "20"))
SEED = os.environ.get("FREEZELAB_CAMPAIGN_SEED", "1")
ROOT = Path(__file__).parents[3]
CASE_S = 180
"""What a case is given. 10 s is usual, beside another one; on a busy machine it is 60 s, and on emulated KVM,
where cases run one by one, 35 to 143 s. One that hangs is ended earlier, by the campaign itself."""


@pytest.mark.timeout(300 + CASE_S * CASES)
def test_no_fault_loses_a_guest_or_makes_a_verdict_wrong(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("the campaign needs root, for namespaces")
        pytest.skip("needs root, for namespaces")
    need_namespaces()
    command = [
        *(sys.executable, "-m", "tests.campaign", "--cases", str(CASES), "--seed", SEED),
        *("--jobs", "1" if slow_host() else "2", "--pace", f"{PACE.factor:g}"),
    ]
    done = subprocess.run(
        [*command, "--work", str(tmp_path / "work"), str(tmp_path / "results.jsonl")],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{CASES} cases, 0 wrong" in done.stderr
