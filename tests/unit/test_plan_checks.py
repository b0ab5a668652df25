"""What `plan` and `check` see of the machine before anything is started."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from typer.testing import CliRunner

from lab.cli.main import app
from lab.host import emulators
from lab.hypervisor.accelerators import boots_unsurely
from lab.image.store import ImageStore
from lab.playbook import parse
from lab.session.plan_checks import obstacles

GOOD = "resync: none\ncycle: {patch: {hold: 1s}}"
LANES = "cycle: {patch: {hold: 1s}}\nmatrix: {resync: [none, agent, push, hwclock], side_by_side: "


def found(text: str, folder: Path) -> list[str]:
    return [str(error) for error in obstacles(parse(text.encode(), "a.yaml", folder))]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 2 GiB free."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2 << 30))


BAD = {
    "an image that nobody knows": (
        "resync: none\nguests: [{name: b, image: nosuch}]\ncycle: {patch: {hold: 1s}}",
        ["no image named 'nosuch'"],
    ),
    "guests that do not fit together": (
        "resync: none\nguests: [{name: b, count: 4}]\ncycle: {patch: {hold: 1s}}",
        ["4 guests need"],
    ),
    "lanes that do not fit together": (
        LANES + "4}",
        ["4 guests need"],
    ),
    "a bridge that is not there": (
        GOOD + "\nguests: [{name: b, network: {bridge: nosuchbr, address: 10.7.0.10/24}}]",
        ["nosuchbr"],
    ),
    "a command that is not there": (
        "resync: none\ncycle: {patch: {command: [/no/such], deadline: 1s}}",
        ["/no/such: no such program"],
    ),
    "a guest's emulator that is not there": (
        GOOD + "\nguests: [{name: b, emulator: /no/such}]",
        ["/no/such"],
    ),
    "an emulator that is not there": (
        "resync: none\ncycle: {patch: {replace-hypervisor: /no/such}}",
        ["/no/such"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_there(free: None, tmp_path: Path, name: str) -> None:
    text, expected = BAD[name]
    told = found(f"name: a\n{text}\n", tmp_path)
    assert len(told) == len(expected), told
    for one, part in zip(told, expected, strict=True):
        assert part in one


def test_nothing_is_in_the_way(free: None, tmp_path: Path) -> None:
    assert found(f"name: a\n{LANES}2}}\n", tmp_path) == []


def checked(tmp_path: Path, **files: str) -> tuple[int, str, str]:
    names = []
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\n{text}\n")
        names.append(str(tmp_path / f"{name}.yaml"))
    done = CliRunner().invoke(app, ["check", *names])
    return done.exit_code, done.stdout, done.stderr


def test_check_tells_a_mistake_from_a_lack(free: None, tmp_path: Path) -> None:
    lack = BAD["a command that is not there"][0]
    assert checked(tmp_path, good=GOOD)[0] == 0
    code, out, err = checked(tmp_path, lack=lack, good=GOOD)
    assert code == 4
    assert "lack.yaml: missing here: /no/such: no such program" in err
    assert "good.yaml: valid (good)" in out
    assert "lack.yaml: valid" not in out
    assert checked(tmp_path, lack=lack, wrong="resync: nothing")[0] == 2


def test_check_tells_of_a_hold_beyond_the_budget(free: None, tmp_path: Path) -> None:
    code, out, _ = checked(tmp_path, long="resync: none\ncycle: {patch: {hold: 60s}}")
    assert code == 0, "an overrun may be what is rehearsed"
    assert "long.yaml: note: the budget of 30 s ends the hold of 1 min" in out


def test_check_finds_a_handler_that_is_not_there(free: None, tmp_path: Path) -> None:
    code, _, err = checked(tmp_path, deaf=f"{GOOD}\nannounce: {{handler: [./nosuch.py]}}")
    assert code == 2
    assert "no file './nosuch.py'" in err


def test_plan_needs_no_name(free: None) -> None:
    done = CliRunner().invoke(app, ["plan"])
    assert done.exit_code == 0
    assert done.stdout.startswith("first-freeze\n")


@pytest.mark.parametrize(
    ("kernel", "qemu", "unsure"),
    [
        ("6.12.48+deb13-cloud-amd64", "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", True),
        ("7.3.4+deb14-amd64", "7.2.22", True),
        ("6.1.0-56-cloud-amd64", "7.2.22", False),
        ("6.12.48+deb13-cloud-amd64", "10.0.2 (Debian 1:10.0.2+ds-2)", False),
        ("6.12.48+deb13-cloud-amd64", "11.1.3", False),
        ("", "7.2.22", False),
        ("?", "7.2.22", False),
    ],
)
def test_a_kernel_that_boots_when_it_likes(kernel: str, qemu: str, unsure: bool) -> None:
    assert bool(boots_unsurely(kernel, qemu)) is unsure


def test_check_tells_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = SimpleNamespace(info={"kernel_version": "6.12.48+deb13-cloud-amd64"}, imported=False)
    monkeypatch.setattr(ImageStore, "find", lambda _self, _name, _packages: image)
    monkeypatch.setattr(emulators, "system", lambda: Path("/usr/bin/qemu-system-x86_64"))
    monkeypatch.setattr(emulators, "version", lambda _path: "7.2.22 (Debian 1:7.2)")
    code, out, _err = checked(tmp_path, good=GOOD)
    assert code == 0
    assert "image debian: without KVM: Linux 6.12 does not boot every time on the TCG of QEMU 7.2" in out
    assert "write emulator: trixie" in out


def test_the_qemu_that_a_guest_is_started_with_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = tmp_path / "qemu"
    newer.write_text("#!/bin/sh\necho QEMU emulator version 11.1.3\n")
    newer.chmod(0o755)
    image = SimpleNamespace(info={"kernel_version": "6.12.48+deb13-cloud-amd64"}, imported=False)
    monkeypatch.setattr(ImageStore, "find", lambda _self, _name, _packages: image)
    code, out, _err = checked(tmp_path, good=f"{GOOD}\nguests: [{{name: web-0, emulator: {newer}}}]")
    assert code == 0
    assert "does not boot every time" not in out
