"""Services restarted by a real systemd, which runs in namespaces of its own: as init, and as a user's."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.core.patch import RestartServicePatch, UnitScope
from lab.errors import MachineError
from lab.host import patches
from lab.host.patches import systemd
from lab.ports import HostPatch
from lab.process.clock import HostClock
from tests.host.systemd_lab import outcome_of, service

PROGRAM = Path(__file__).with_name("restart_service_inside.py")


def units(flag: Path) -> dict[str, str]:
    sleeps = "ExecStart=/bin/sleep 1000\n"
    plain = {
        "steady": sleeps,
        "down": sleeps,
        "remains": "Type=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
        "slow": f"{sleeps}ExecStop=/bin/sleep 3\n",
        "fragile": f"ExecStartPre=/usr/bin/test -e {flag}\n{sleeps}",
    }
    made = {f"{name}.service": service(text) for name, text in plain.items()}
    return {**made, "locked.service": service(sleeps, "RefuseManualStop=yes\n")}


@pytest.fixture(scope="module", params=list(UnitScope))
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What restart_service_inside.py saw."""
    folder = tmp_path_factory.mktemp(request.param)
    flag = folder / "flag"
    flag.touch()
    return outcome_of(request.param, PROGRAM, folder, [str(flag)], units(flag), left=["down.service"])


def test_another_process_runs_the_service(seen: dict[str, Any]) -> None:
    for each in seen["steady"]:
        assert each["ok"], each
        assert each["steps"] == ["restart steady.service", "main process"]
        first, second = each["pids"]
        assert 0 != first != second != 0
        assert f"process {first}, " in each["facts"]["before"]
        assert f"process {second}, " in each["facts"]["after"]
        assert each["verdict"] == ""
        assert each["idle"].startswith(f"it still has the same main process: process {first}, ")


def test_what_cannot_be_restarted_is_refused_in_a_line(seen: dict[str, Any]) -> None:
    assert seen["refusals"] == {
        "steady": "",
        "nosuch": "no such service (not-found)",
        "down": "is inactive, not active (dead)",
        "remains": "has no main process (exited)",
        "locked": "its unit refuses a manual restart",
        "trial": "freezelab itself runs in it: a restart would end the run",
    }


def test_a_slow_restart_is_left_at_the_deadline(seen: dict[str, Any]) -> None:
    slow = seen["slow"]
    assert not slow["ok"]
    assert slow["why"].startswith("systemd has not finished after ")
    assert slow["took_ns"] < 2_000_000_000
    assert slow["undone"] == ""  # systemd went on with it
    assert slow["pids"][0] != slow["pids"][1] != 0


def test_a_service_that_stays_down_fails_and_is_started_again(seen: dict[str, Any]) -> None:
    fragile = seen["fragile"]
    assert not fragile["ok"]
    assert fragile["why"].startswith("systemctl restart: Job for fragile.service failed")
    assert fragile["verdict"] == "fragile.service is not active, or has no main process"
    assert fragile["refusal"] == "is failed, not active (failed)"
    assert fragile["not undone"].startswith(
        "restart-service fragile.service: not undone: systemctl start: Job for "
    )
    assert fragile["undone"].startswith("fragile.service: started again in ")
    assert fragile["runs"]
    assert fragile["undone twice"] == ""


def test_a_machine_without_systemd(refusal: Callable[[HostPatch], MachineError]) -> None:
    if systemd.booted() or not shutil.which("systemctl"):
        pytest.skip("systemd is this machine's init, or is not installed")
    patch = patches.make(RestartServicePatch("cron.service"), HostClock())
    assert refusal(patch).what == "systemd is not this machine's init: there is no service to restart"
    assert patch.version("") == ""
    assert not patch.apply(HostClock().now().raw_ns + 10**9).ok
    assert patch.undo() == ""


def test_a_user_without_a_systemd_of_their_own(
    refusal: Callable[[HostPatch], MachineError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shutil.which("systemctl"):
        pytest.skip("systemctl is not installed")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    error = refusal(patches.make(RestartServicePatch("cron.service", UnitScope.USER), HostClock()))
    assert error.what.startswith("systemd does not answer: ")
    assert "XDG_RUNTIME_DIR" in error.hint
