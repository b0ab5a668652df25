"""keepalived in two guests, of which the master is frozen: who answers for the address, by the lab's own
network and client."""

from __future__ import annotations

import json

import pytest

from tests.guest.conftest import Cli

PLAYBOOK = """
name: address
workload: {name: keepalived, expect: {prediction: as-predicted}}
resync: agent
cycle: {patch: {hold: 7s}, settle: 500ms, before: 2s, watch: 5s}
expect: {kernel_log: any}
"""


@pytest.mark.timeout(900)  # the image may have to be built
def test_the_backup_takes_the_address_and_the_woken_master_has_it_as_well(cli: Cli) -> None:
    path = cli.home / "playbook.yaml"
    path.write_text(PLAYBOOK)
    done = cli("run", str(path), "--json", timeout=500)
    assert done.stdout.startswith("{"), done.stderr
    (workload,) = json.loads(done.stdout)["workloads"]
    (cycle,) = workload["cycles"]
    assert ("vip-0", "vip-1") in [(change["before"], change["after"]) for change in cycle["changes"]]
    assert {overlap["name"] for overlap in cycle["overlaps"]} == {"master", "address"}
    assert cycle["events"]["gratuitous-arp"] >= 5
    assert {held["what"]: held["agrees"] for held in cycle["predictions"]} == dict.fromkeys(
        ("holder", "two master", "two address"), True
    )
    assert done.returncode == 0, done.stderr
    assert not cli.left()
