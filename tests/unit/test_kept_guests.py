"""Kept guests, as far as no guest is needed."""

from __future__ import annotations

import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from lab.cli.main import app
from lab.errors import HypervisorError, RecordError, Refused, UsageError
from lab.hypervisor.accelerators import RESULT
from lab.hypervisor.domain_status import domain_status
from lab.ports import NullView
from lab.process.clock import HostClock
from lab.process.pace import PACE, USUAL_S
from lab.record.journal import NullJournal
from lab.report.listings import render_kept_guests
from lab.session import drift_study, kept_guests
from lab.session.guests import Guests
from lab.session.kept_guest_start import UpOptions, up
from tests.unit.kept_guest import console_of, keep, no_view


def test_a_kept_guest_is_found_again_and_leaves_nothing(tmp_path: Path) -> None:
    made = keep(tmp_path)
    path = tmp_path / "kept" / "web-0.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert kept_guests.read_all(tmp_path) == [made]
    assert kept_guests.find(tmp_path, "web-0") == made
    assert Path(made.known_hosts).read_text() == "[127.0.0.1]:40000 ssh-ed25519 AAAA\n"
    (row,) = kept_guests.listing(tmp_path)
    assert row["state"] == "gone"
    assert row["login"].endswith("-p 40000 root@127.0.0.1")
    kept_guests.remove_files(tmp_path, made)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    assert kept_guests.read_all(tmp_path) == []


def test_limits_of_a_command_on_a_kept_guest_follow_from_the_measured_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where KVM is emulated: freezelab drift gave up there."""
    monkeypatch.setattr(PACE, "factor", 1.0)
    keep(tmp_path)
    kept_guests.find(tmp_path, "web-0")
    assert PACE.factor == 1.0
    (tmp_path / RESULT).write_text('{"kvm_boots": true, "first_line_s": 6.0}')
    kept_guests.find(tmp_path, "web-0")
    assert PACE.factor == pytest.approx(6.0 / USUAL_S)


def test_an_unknown_kept_guest_is_refused_and_the_known_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no kept guest 'db-0'") as none:
        kept_guests.find(tmp_path, "db-0")
    assert "freezelab up" in none.value.hint
    with pytest.raises(UsageError, match="there is no kept guest"):
        drift_study.which(tmp_path, None)
    keep(tmp_path)
    with pytest.raises(UsageError, match="which guest") as some:
        drift_study.which(tmp_path, None)
    assert "web-0" in str(some.value)
    assert drift_study.which(tmp_path, "web-0").name == "web-0"
    with pytest.raises(UsageError, match="a kept guest of this name"):
        up(tmp_path, UpOptions("web-0"), no_view)
    for names, everything in ((["web-0"], True), ([], False)):
        with pytest.raises(UsageError, match="name the guests, or"):
            list(kept_guests.down(tmp_path, names, everything=everything))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "other"}', '{"schema": "freezelab.kept/1"}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "web-0.json").write_text(text)
    with pytest.raises(RecordError) as told:
        kept_guests.read_all(tmp_path)
    assert "web-0.json" in str(told.value)
    assert len(str(told.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        (UpOptions("web-0", resync="what"), UsageError, "unknown mechanism 'what'"),
        (UpOptions("web-0", resync="chrony"), Refused, "the host's time server"),
        (UpOptions("web-0", resync="push"), Refused, "an action at the resume"),
        (UpOptions("web-0", memory="12"), UsageError, "without a unit"),
        (UpOptions("web-0", memory="1MiB"), UsageError, "too little"),
    ],
)
def test_a_guest_that_cannot_be_kept_is_refused_before_anything_is_started(
    tmp_path: Path, options: UpOptions, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        up(tmp_path, options, no_view)
    assert list(tmp_path.iterdir()) == []


def test_an_accelerator_that_is_none_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    home = {"FREEZELAB_HOME": str(tmp_path / "home")}
    done = CliRunner().invoke(app, ["up", "--accelerator", "fast"], env=home)
    assert done.exit_code == 2
    assert done.stderr == "freezelab: unknown accelerator 'fast'\nknown: auto, kvm, tcg\n"
    assert list(tmp_path.iterdir()) == []


def test_the_state_of_a_process_that_is_not_there(tmp_path: Path) -> None:
    assert domain_status(tmp_path, "freezelab-x", "no-such-uuid") == "gone"


def test_the_list_can_be_copied_from(tmp_path: Path) -> None:
    keep(tmp_path)
    console, out = console_of(60)
    render_kept_guests(kept_guests.listing(tmp_path), console)
    assert "freezelab down web-0" in out.getvalue()
    alive = [{**row, "state": "running", "ended": False} for row in kept_guests.listing(tmp_path)]
    console, out = console_of(60)
    render_kept_guests(alive, console)
    assert str(alive[0]["login"]) in out.getvalue().replace("\n", "")


def test_what_is_left_to_live_on_is_not_removed(tmp_path: Path) -> None:
    """What `up` ends with."""
    settings: Any = SimpleNamespace(home=tmp_path, folder=tmp_path, run="r1", secrets={})
    nobody: Any = SimpleNamespace(drop_logs=lambda *_: None, recover_command="")
    for leave in (True, False):
        folder = tmp_path / "guests" / "r1"
        folder.mkdir(parents=True, exist_ok=True)
        with Guests(nobody, settings, HostClock(), NullView(), NullJournal()) as guests:
            if leave:
                guests.leave()
        assert folder.exists() is leave


def test_a_guest_that_cannot_be_removed_is_no_clean_end(tmp_path: Path) -> None:
    def destroy(name: str) -> None:
        raise HypervisorError("cannot be destroyed", where=name)

    notes: list[str] = []
    settings: Any = SimpleNamespace(home=tmp_path, folder=tmp_path, run="r1", secrets={})
    stuck: Any = SimpleNamespace(
        drop_logs=lambda *_: None,
        destroy=destroy,
        spec=lambda _name: SimpleNamespace(run="r1"),
        recover_command="freezelab recover --connect qemu:///session",
    )
    view: Any = SimpleNamespace(note=notes.append, phase=lambda *_: None)
    guests = Guests(stuck, settings, HostClock(), view, NullJournal())
    guests._launched.append("web-0")
    guests._stack.callback(guests.remove, "web-0")
    with pytest.raises(HypervisorError, match="web-0: cannot be destroyed"):
        guests.__exit__(None, None, None)
    again = "freezelab recover --connect qemu:///session"
    assert notes == [f"not undone: web-0: cannot be destroyed\ntry again: {again}"]
