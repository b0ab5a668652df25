"""Snapshots of a user's own domain on a real libvirt daemon: its disks and its file systems are as they were,
whatever cuts them off."""

from __future__ import annotations

import pytest

from tests.host.killed_in_snapshot import ALONE, STAGES
from tests.host.libvirtd import longer, namespaced


@longer
@pytest.mark.timeout(400)
def test_a_domain_in_backups_and_on_a_host_that_sleeps_is_left_as_it_was() -> None:
    """Both of its disks are its own again, also when the controller was killed in the snapshot."""
    seen = namespaced("own_inside.py", "backups", timeout_s=350)
    for method in ("host-sleep", "snapshot", "snapshot-state"):
        one = seen[method]
        assert (one["status"] in (0, 3), one["differs"], one["left"]) == (True, {}, []), one
        [cycle] = one["cycles"]
        assert cycle["regime"] == {"host-sleep": "jumped", "snapshot": "running"}.get(method, "resumed")
        assert (cycle["stall"] is None) == (method == "host-sleep")
    assert seen["overlays"] == []
    [acted] = seen["killed"]["history"]
    assert (acted["act"], acted["text"]) == ("resumed", "its file systems were thawed")
    assert (seen["killed"]["differs"], seen["killed"]["overlays"]) == ({}, []), seen["killed"]


@longer
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stage", STAGES)
def test_a_snapshot_that_is_cut_off_at_any_moment_leaves_nothing(stage: str) -> None:
    """After a kill -9 of the controller, perhaps with its dead-man, and recover."""
    points = STAGES[stage]
    moments = [*points, *(f"{point} alone" for point in points if point in ALONE)]
    seen = namespaced("own_inside.py", "cut_off", *moments, timeout_s=880)
    assert list(seen) == moments
    for moment, one in seen.items():
        assert (one["status"], one["status of recover"]) == (-9, 0), (moment, one)
        assert (one["differs"], one["overlays"], one["apart"], one["left"]) == ({}, [], [], []), (moment, one)


@longer
@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", ["once", "twice"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_snapshot_that_is_interrupted_at_any_moment_leaves_nothing(stage: str, how: str) -> None:
    seen = namespaced("own_inside.py", "interrupted", how, *STAGES[stage], timeout_s=880)
    assert tuple(seen) == STAGES[stage]
    for point, one in seen.items():
        found = one["status"], one["differs"], one["overlays"], one["left"]
        assert found == (130, {}, [], []), (point, one)


@longer
@pytest.mark.timeout(700)
def test_file_systems_are_never_left_frozen_by_an_agent_that_fails() -> None:
    """Nor thawed when others have frozen them."""
    seen = namespaced("own_inside.py", "troubled", timeout_s=680)
    for name, one in seen.items():
        assert (one["differs"], one["overlays"], one["left"]) == ({}, [], []), (name, one)
    for name in ("hangs", "libvirt hangs"):
        found = seen[name]["status"], seen[name]["found"]
        assert found == (1, [["failed", "its agent did not thaw: the lab's writer in the guest did"]]), seen
    assert seen["ends"]["status"] in (0, 3), seen["ends"]
    assert seen["ends"]["found"] == [["passed", ""]]  # it does not end while they are frozen (qga/main.c)
    for name in ("hangs, shell", "ends, shell"):
        assert seen[name]["status"] == 3, seen[name]
    for name, words in (
        ("hung before", "is qemu-guest-agent installed and running in the guest?"),
        ("absent", "is qemu-guest-agent installed and running in the guest?"),
        ("frozen by its agent", "its file systems are frozen; thaw them first: virsh domfsthaw DOMAIN"),
        ("hangs as it is to freeze", "thaw them then: virsh domfsthaw my-vm"),
    ):
        assert (seen[name]["status"], seen[name]["said"][-1]) == (4, words), seen[name]
    assert seen["frozen by its agent"]["thawed"] == 1
