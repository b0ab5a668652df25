"""A domain of a user's own that is migrated to another real libvirt daemon and back."""

from __future__ import annotations

from typing import Any

import pytest

from tests.host.libvirtd import longer, namespaced
from tests.host.own_lab import in_a_line, works

HERE, THERE = ["here runs"], ["there runs"]


def is_where_it_was(one: dict[str, Any]) -> None:
    assert (one["differs"], one["left"]) == ({}, []), one
    assert not any("differs" in line for line in one["said"])


@pytest.mark.timeout(300)
def test_it_goes_there_and_comes_back() -> None:
    seen = namespaced("own_peers.py", "moves")
    one = seen["moved"]
    is_where_it_was(one)
    assert one["status"] in (0, 3), one  # 3: a busy host
    assert seen["places"] == HERE
    [cycle] = one["cycles"]
    report = cycle["migration"]
    assert (report["status"], cycle["boot_id_unchanged"]) == ("completed", True)
    assert report["passes"] > 0
    assert cycle["pause"]["high_ns"] >= (report["downtime_ns"] - 1_000_000) / 2
    assert "libvirt's downtime" in in_a_line(seen["report"])
    assert "live-migrate" in works(in_a_line(seen["plan"]))


@longer
@pytest.mark.timeout(400)
def test_what_cannot_be_done_is_refused_or_called_off() -> None:
    seen = namespaced("own_peers.py", "refused", timeout_s=350)
    never = seen["never"]
    is_where_it_was(never)
    assert never["status"] == 1
    [cycle] = never["cycles"]
    assert cycle["migration"]["status"] == "cancelled"
    assert cycle["pause"]["high_ns"] == 0
    assert seen["downtime"] == 300
    for name, words in (
        ("unsafe", "unsafe"),
        ("nobody", "the daemon of migrate_to cannot be reached"),
        ("itself", "has this domain as well"),
    ):
        is_where_it_was(seen[name])
        assert seen[name]["status"] == 4, seen[name]
        assert words in "".join(seen[name]["said"][-2:]), seen[name]
    assert seen["held"]["status"] == 2
    stopped = seen["interrupted"]
    assert (stopped["status"], stopped["places"], stopped["left"]) == (130, HERE, []), stopped
    assert seen["places"] == HERE
    assert not any("monitor" in text for text in seen["tainted"])


@longer
@pytest.mark.timeout(400)
def test_a_killed_controller_leaves_one_running_domain() -> None:
    seen = namespaced("own_peers.py", "killed", timeout_s=350)
    assert seen["differs"] == {}
    for name, places in (
        ("going", [HERE]),
        ("going, alone", [THERE]),
        ("there", [THERE]),
        ("coming", [HERE]),
    ):
        one = seen[name]
        assert one["places"] in places, (name, one)
        assert (one["recover"]["status"], one["then"], one["left"]) == (0, HERE, []), (name, one)
        if one["places"] == THERE:
            assert "domain my-vm runs again (it was at qemu+unix" in in_a_line(one["recover"])
