"""libvirt's daemon is lost while a guest of its stands still: the dead-man has it run again."""

from __future__ import annotations

from tests.host.libvirtd import namespaced


def test_a_guest_whose_daemon_was_killed_runs_on() -> None:
    """Over the monitor that was the daemon's; another daemon finds the guest running."""
    seen = namespaced("daemon_lost_inside.py", "killed")
    assert seen["failure"]
    assert seen["before"] == []  # it was not released, though its cycle is over
    (act,) = seen["closed"]
    assert (act["act"], act["why"]) == ("resumed", "the controller could not resume it")
    assert seen["runs"]


def test_a_daemon_that_is_stopped_is_no_endless_wait() -> None:
    """Its monitor is taken then: the guest runs as soon as the daemon does, and that is written."""
    seen = namespaced("daemon_lost_inside.py", "stopped")
    assert seen["failure"]
    assert 15 < seen["waited_s"] < 35
    assert [act["act"] for act in seen["closed"]] == ["failed"]
    assert "libvirt does not answer" in seen["closed"][0]["text"]
    assert [act["act"] for act in seen["last"]] == ["failed", "resumed"]
    assert seen["runs"]
