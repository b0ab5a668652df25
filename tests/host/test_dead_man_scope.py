"""The dead-man where a user's systemd is: it outlives the controller's cgroup."""

from __future__ import annotations

from pathlib import Path

from tests.host.systemd_lab import outcome_of


def test_the_dead_man_outlives_the_controllers_cgroup(tmp_path: Path) -> None:
    seen = outcome_of("user", Path(__file__).with_name("dead_man_scope_inside.py"), tmp_path)
    assert seen["cgroup"].endswith(".scope")
    assert "controller.service" not in seen["cgroup"]
    assert seen["outlived"] == "T", "it was killed with the controller's service"
