"""A workload of the lab's own and clients of one's own over the lab's network, in both regimes; a search."""

from __future__ import annotations

import json

from lab.core.units import NS_PER_S
from tests.guest.conftest import Cli
from tests.regimes import slow_host

CLIENT = """\
#!/usr/bin/env python3
# Asks the echo server ten times a second. With "die" it ends at the first echo that does not come.
import itertools, json, socket, sys, time
address, dies = sys.argv[1], "die" in sys.argv
print(json.dumps({"freezelab": 1, "period_ns": 100_000_000}), flush=True)
for seq in itertools.count():
    door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    door.settimeout(0.5)
    sent, ok = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW), True
    door.sendto(b"x", (address, 7007))
    try:
        door.recv(100)
    except OSError:
        ok = False
    if not ok and dies:
        sys.exit("no echo")
    print(json.dumps({"seq": seq, "sent": sent, "ok": ok}), flush=True)
    time.sleep(0.1)
"""

BOTH = """
name: both
workload:
  - {name: udp-echo, expect: {beyond_pause: 1s}}
  - {name: own, command: [./client.py, "{echo-0}"], expect: {beyond_pause: 3s}}
  - {name: dies, command: [./client.py, "{echo-0}", die], expect: {failed: 0}}
resync: none
matrix: {method: [suspend, sigstop]}
cycle: {patch: {hold: 2s}, settle: 0s, before: 2s, watch: 2s}
expect: {kernel_log: any}
"""

SEARCH = """
name: search
workload: {name: udp-echo, expect: {outage: 3500ms, beyond_pause: 1s}}
tolerance: {shortest: 1s, longest: 4s, tries: 1, precision: 100%}
resync: agent
cycle: {settle: 0s, before: 1s, watch: 2s}
expect: {kernel_log: any}
"""


SLOW = {
    "beyond_pause: 1s": "beyond_pause: 12s",
    "beyond_pause: 3s": "beyond_pause: 12s",
    "outage: 3500ms": "outage: 17500ms",
    "shortest: 1s, longest: 4s": "shortest: 5s, longest: 20s",
    "watch: 2s": "watch: 10s",
}
"""On a slow host, echoes come back seconds after the guest."""


def for_this_host(playbook: str) -> str:
    for usual, slow in SLOW.items() if slow_host() else ():
        playbook = playbook.replace(usual, slow)
    return playbook


def test_clients_in_both_regimes(cli: Cli) -> None:
    client, path = cli.home / "client.py", cli.home / "playbook.yaml"
    client.write_text(CLIENT)
    client.chmod(0o755)
    path.write_text(for_this_host(BOTH))
    done = cli("run", str(path), "--json")
    assert done.stdout.startswith("{"), done.stderr
    of = {(one["name"], one["cell"]): one for one in json.loads(done.stdout)["workloads"]}
    stamps = {}
    for cell in ("suspend", "sigstop"):
        own = of["own", cell]
        # On a slow host the cycle may end in another outage.
        assert own["outcome"] in {"passed", "inconclusive" if slow_host() else "passed"}, own["cycles"]
        assert own["cycles"][0]["outage"]["high_ns"] > 2_000_000_000
        (dead,) = of["dies", cell]["cycles"]
        assert dead["problems"] == ["its client has ended: exit status 1: no echo"]
        assert of["dies", cell]["outcome"] == "inconclusive"
        stamps[cell] = of["udp-echo", cell]["cycles"][0]["stale"]
    assert stamps["suspend"]["wrong"] > 20
    assert -2_500_000_000 < stamps["suspend"]["worst_ns"] < -1_500_000_000
    assert stamps["sigstop"]["stamped"] > 20
    assert stamps["sigstop"]["wrong"] == 0
    assert done.returncode == 3, done.stderr
    assert not cli.left()


def test_a_search_finds_the_pause_between_two(cli: Cli) -> None:
    path = cli.home / "playbook.yaml"
    path.write_text(for_this_host(SEARCH))
    unit = 5 if slow_host() else 1
    done = cli("run", str(path), "--json")
    assert done.stdout.startswith("{"), done.stderr
    (found,) = json.loads(done.stdout)["tolerances"]
    decided = [one for one in found["tries"] if one["outcome"] != "inconclusive"]  # others are made again
    assert [(one["pause_ns"] / NS_PER_S / unit, one["outcome"]) for one in decided] == [
        (1, "passed"),
        (2, "passed"),
        (4, "failed"),
    ]
    assert found["longest_passed_ns"] == 2 * unit * NS_PER_S
    assert found["shortest_failed_ns"] == 4 * unit * NS_PER_S
    assert found["complete"]
    # On a slow host a cycle's own bounds may decide nothing.
    assert done.returncode in ((0, 3) if slow_host() else (0,)), done.stderr
    assert not cli.left()
