"""The lab held against what others say: chronyd's own log, and a time server that is wrong on purpose."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lab.core.units import NS_PER_MS, NS_PER_S
from tests.guest.conftest import Cli

WRONG = """\
name: wrong
resync: chrony  # which claims milliseconds; chrony-frozen is modest and claims seconds
time_server: {off_by: 2s}
cycle: {patch: {hold: 3s}, settle: 0s, before: 2s, watch: 7s}
expect: {in_time: {within: 4s}, final_offset: {within: 100ms}}
"""


def test_a_guest_that_follows_a_wrong_server_fails_whatever_it_claims(cli: Cli, tmp_path: Path) -> None:
    playbook = tmp_path / "wrong.yaml"
    playbook.write_text(WRONG)
    done = cli("run", str(playbook), "--json")
    assert done.returncode == 1, done.stderr
    run = json.loads(done.stdout)
    failed = {finding["metric"] for finding in run["findings"] if finding["outcome"] == "failed"}
    assert failed == {"in time", "final offset"}

    cycle = run["guests"][0]["cycles"][0]
    off = 2 * NS_PER_S
    least = NS_PER_S  # makestep's: what is further from the server's time is stepped, what is nearer slewed
    for when in ("before", "final"):  # it was led astray before the freeze, and is so again
        seen = cycle["offset"][when]
        assert off - least <= seen["low_ns"] <= seen["high_ns"] <= off + least
    (tracking,) = (audit for audit in cycle["audits"] if audit["source"] == "chronyc tracking")
    assert tracking["wrong"] > 0
    assert tracking["worst_ns"] >= NS_PER_S

    # chronyd's log tells the steps as the lab has seen them.
    said = re.findall(r"was stepped by (-?[\d.]+) seconds", cycle["resync"]["said"])
    assert said, cycle["resync"]["said"]
    largest = max((round(float(one) * NS_PER_S) for one in said), key=abs)
    assert abs(largest - cycle["resync"]["step_ns"]) <= 50 * NS_PER_MS, cycle["resync"]["said"]
