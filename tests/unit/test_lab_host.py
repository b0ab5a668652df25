"""The lab host, as far as none is needed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from lab.cli.lab_hosts import options_there
from lab.cli.main import app
from lab.errors import RecordError, Refused
from lab.hypervisor.accelerators import AcceleratorRequest, take_pace
from lab.hypervisor.domain import Accelerator
from lab.playbook import load
from lab.process.pace import MOST, PACE, USUAL_S, Pace
from lab.process.signals import Signals
from lab.session import guest_host, lab_host, lab_host_code, lab_host_run
from lab.session.lab_host_code import send_code
from lab.session.paths import CLONE, PLAYBOOKS
from tests.unit.here_shell import HereShell
from tests.unit.kept_guest import GUEST, keep

FIRST = PLAYBOOKS / "first-freeze.yaml"
LAB_HOST = replace(GUEST, name="labhost", image="labhost-0123456789ab")


def test_without_a_lab_host_the_commands_say_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FREEZELAB_HOME", str(tmp_path))
    keep(tmp_path)  # another kept guest is none
    for arguments in (["labhost", "ssh"], ["labhost", "down"], ["--on", "labhost", "run"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2
        assert "there is no lab host\nstart one: freezelab labhost up" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--on", "web-0", "run"], "nothing is run on 'web-0'"),
        (["--on", "labhost", "plan"], "only run can be on the lab host"),
        (["--on", "labhost", "run", "--resume", "x"], "--resume cannot be used with --on"),
        (["--on", "labhost", "run", "--connect", "qemu:///system"], "--connect cannot be used with --on"),
        (["--on", "labhost", "run", "--json-lines"], "--json-lines cannot be used with --on"),
        (["labhost", "up", "--memory", "1GiB"], "a lab host needs 1536 MiB"),
        (["labhost", "up", "--accelerator", "xen"], "unknown accelerator"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.setenv("FREEZELAB_HOME", str(tmp_path))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.stderr
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) <= 2


def test_options_of_a_run_go_to_the_lab_host_and_those_of_its_output_do_not() -> None:
    given = {
        "playbook": "x", "repeat": 3, "control": 0, "golden": False, "wait": True, "tag": ["a", "b"],
        "accelerator": "kvm", "boot": None, "connect": None, "junit": Path("j"), "as_json": True,
        "quiet": True, "run_id": "",
    }  # fmt: skip
    assert options_there(given) == [
        *("--repeat", "3", "--control", "0", "--cold", "--wait", "--tag", "a", "--tag", "b"),
        *("--accelerator", "kvm"),
    ]
    assert options_there({"tag": (), "golden": None, "wait": False}) == []


def test_a_lab_host_that_has_ended_is_not_used(tmp_path: Path) -> None:
    keep(tmp_path, LAB_HOST)
    assert lab_host.known(tmp_path).name == "labhost"
    with pytest.raises(Exception, match="it has ended") as ended:
        lab_host.find(tmp_path)
    assert "freezelab down labhost" in str(ended.value)


def test_why_there_is_no_kvm() -> None:
    assert "no /dev/kvm" in lab_host.no_kvm("flags : fpu svm npt")
    assert "neither svm nor vmx" in lab_host.no_kvm("flags : fpu svmx avmx")


def test_the_packages_are_those_of_the_lock_without_what_only_other_tests_need() -> None:
    assert CLONE is not None
    lock = (CLONE / "requirements.lock").read_text()
    sent = lab_host.sent_packages(lock)
    names = {line.partition("==")[0] for line in sent.splitlines() if "==" in line.partition(" ")[0]}
    assert {"typer", "rich", "paramiko", "psutil", "pydantic", "pytest", "jinja2"} <= names
    assert not {"libvirt-python", "mypy", "ruff", "scipy"} & names
    assert sent.count("--hash=") > len(names)


def test_freezelab_is_sent_once_and_then_what_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone, shell = tmp_path / "clone", HereShell(tmp_path)
    for name in ("lab/a.py", "lab/__pycache__/a.pyc", "tests/b.py", "pyproject.toml"):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text(name)
    monkeypatch.setattr(lab_host_code, "CLONE", clone)
    (tmp_path / "srv/freezelab").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    code = tmp_path / "srv/freezelab/code"

    def there() -> dict[str, str]:
        files = [path for path in code.rglob("*") if path.is_file()]
        return {str(path.relative_to(code)): path.read_text() for path in files}

    def time_of(name: str) -> float:
        return (code / name).stat().st_mtime

    send_code(shell)
    assert there() == {"lab/a.py": "lab/a.py", "tests/b.py": "tests/b.py", "pyproject.toml": "pyproject.toml"}
    before = len(shell.sent)
    send_code(shell)
    assert len(shell.sent) == before + 1  # it only looked
    (tmp_path / "run/freezelab-1.pid").write_text(str(os.getpid()))  # one that goes on
    (tmp_path / "run/freezelab-2.pid").write_text("")  # one that was cut off
    send_code(shell)
    (clone / "lab/a.py").write_text("lab/A.py")
    (clone / "lab/c d.py").write_text("new")
    (clone / "tests/b.py").unlink()
    (code / "pyproject.toml").write_text("not sent again")
    with pytest.raises(Refused, match="a run goes on in it"):
        send_code(shell)
    (tmp_path / "run/freezelab-1.pid").unlink()
    old = time_of("lab/a.py")
    send_code(shell)
    assert there() == {"lab/a.py": "lab/A.py", "lab/c d.py": "new", "pyproject.toml": "not sent again"}
    assert time_of("lab/a.py") != old  # of the same size, and maybe the same second: compiled again
    (code / "lab/left").touch()
    (tmp_path / "srv/freezelab/code.files").unlink()  # an earlier one was cut off
    send_code(shell)
    assert there() == {"lab/a.py": "lab/A.py", "lab/c d.py": "new", "pyproject.toml": "pyproject.toml"}


def test_an_image_is_sent_with_its_holes_and_once(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "debian-1"
    folder.mkdir(parents=True)
    with (folder / "disk.img").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(1 << 20)
        file.write(b"x")
    image: Any = SimpleNamespace(folder=folder, label="debian-1")
    shell, notes = HereShell(tmp_path), list[str]()
    (tmp_path / "root/.cache/freezelab/images").mkdir(parents=True)
    for _ in range(2):
        lab_host.send_image(shell, image, notes.append)
    there = tmp_path / "root/.cache/freezelab/images/debian-1/disk.img"
    assert there.read_bytes() == (folder / "disk.img").read_bytes()
    assert there.stat().st_blocks * 512 < 1 << 20
    assert notes == ["lab host: sending image debian-1"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{name: db, domain: my-vm, ssh: {host: db}}", "a domain of your own"),
        ("{name: db, setup: {secrets: {token: {env: TOKEN}}}}", "secrets are not sent"),
    ],
)
def test_plans_that_need_this_host_are_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(f"name: p\nguests: [{text}]\nresync: none\ncycle: {{patch: {{hold: 1s}}}}\n")
    with pytest.raises(Refused, match=said):
        lab_host_run.check(load(file), "a lab host")


def test_a_record_names_the_lab_host_and_is_of_the_same_machine_as_those_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert guest_host.of_lab_host() == {}
    machines = []
    for below in (
        {"machine": "1", "load": 0.1},
        {"machine": "1", "load": 2.0},
        {"machine": "2", "load": 2.0},
    ):
        monkeypatch.setenv(guest_host.LAB_HOST, json.dumps({"name": "labhost", **below}))
        inside = guest_host.of_lab_host()
        assert inside["lab_host"] == {"name": "labhost", **below}
        machines.append(inside["machine"])
    assert machines[0] == machines[1] != machines[2]


@pytest.mark.parametrize(("first_line_s", "factor"), [(0.3, 1), (USUAL_S, 1), (6 * USUAL_S, 6), (1000, MOST)])
def test_limits_are_multiples_of_the_measured_boot(first_line_s: float, factor: float) -> None:
    pace = Pace()
    pace.measured(first_line_s)
    assert pace.factor == pytest.approx(factor)


def test_limits_of_a_run_over_a_lab_host_follow_from_its_measured_boot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PACE, "factor", 1.0)
    take_pace(json.dumps({"kvm_boots": True, "first_line_s": 6 * USUAL_S}))
    assert PACE.factor == pytest.approx(6)
    for stored in ("", "[]", "{}", '{"first_line_s": null}'):
        take_pace(stored)
        assert PACE.factor == pytest.approx(6)


def test_a_folder_with_much_else_in_it_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = HereShell(tmp_path)
    plan = load(FIRST)
    folder = tmp_path / "mine"
    folder.mkdir()
    with (folder / "big").open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(Refused, match="has more than 64 MiB"):
        lab_host_run.RunInLabHost(shell, plan, folder / "p.yaml", [])
    (folder / "big").unlink()
    monkeypatch.setenv("HOME", str(folder))
    with pytest.raises(Refused, match="would be sent"):
        lab_host_run.RunInLabHost(shell, plan, folder / "p.yaml", [])
    assert shell.sent == []


@pytest.mark.parametrize(
    ("accelerator", "system", "emulator"),
    [
        (Accelerator.TCG, "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", "trixie"),
        (Accelerator.TCG, "10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)", "system"),
        (Accelerator.TCG, "11.1.3", "system"),
        (Accelerator.KVM, "7.2.22", "system"),
    ],
)
def test_an_emulated_lab_host_runs_on_a_qemu_that_does_not_hang_it(
    accelerator: Accelerator, system: str, emulator: str
) -> None:
    notes = list[str]()
    assert lab_host.emulator_for(accelerator, system, notes.append) == emulator
    assert len(notes) == (emulator != "system")


def test_a_lab_host_in_place_of_another_has_its_options(tmp_path: Path) -> None:
    failed = replace(LAB_HOST, console=str(tmp_path / "console-labhost.log"))
    with pytest.raises(RecordError, match="No such file"):
        lab_host.LabHostOptions.read(failed)
    options = lab_host.LabHostOptions(
        "6GiB", 4, AcceleratorRequest.TCG, None, False, "1GiB", "6.12", "labhost-newer", "/opt/qemu"
    )
    options.write(failed)
    assert lab_host.LabHostOptions.read(failed) == options
    (tmp_path / "options.json").write_text('{"vcpus": "many"}')
    with pytest.raises(RecordError, match="cannot be read"):
        lab_host.LabHostOptions.read(failed)


@pytest.mark.parametrize(("value", "nests"), [("1", True), ("Y", True), ("0", False), ("N", False)])
def test_a_kvm_that_does_not_nest_is_not_used(tmp_path: Path, value: str, nests: bool) -> None:
    notes = list[str]()
    auto, kvm, tcg = AcceleratorRequest.AUTO, AcceleratorRequest.KVM, AcceleratorRequest.TCG
    assert lab_host.request_for(auto, notes.append, tmp_path) is auto  # KVM is no module, or not there
    file = tmp_path / "kvm_amd/parameters/nested"
    file.parent.mkdir(parents=True)
    file.write_text(f"{value}\n")
    assert lab_host.request_for(auto, notes.append, tmp_path) is (auto if nests else tcg)
    assert lab_host.request_for(tcg, notes.append, tmp_path) is tcg
    assert len(notes) == (0 if nests else 1)
    if nests:
        assert lab_host.request_for(kvm, notes.append, tmp_path) is kvm
    else:
        with pytest.raises(Refused, match="does not nest"):
            lab_host.request_for(kvm, notes.append, tmp_path)


FAKE = """#!/bin/sh
# freezelab in the lab host: it makes a record, and ends when it is asked to.
while [ "$1" != --run-id ]; do shift; done
mkdir -p "$RUNS/$2"
trap 'echo ended >>"$RUNS/$2/events.jsonl"; exit 130' TERM
echo begun >"$RUNS/$2/events.jsonl"
while :; do sleep 0.1; done
"""


def test_an_interrupt_ends_the_run_there_and_its_record_is_brought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, home = tmp_path / "there", tmp_path / "home"
    for name in ("bin", "run"):
        (there / name).mkdir(parents=True)
    (there / "bin/freezelab").write_text(FAKE)
    (there / "bin/freezelab").chmod(0o755)
    runs = there / "root/.local/state/freezelab/runs"
    monkeypatch.setenv("RUNS", str(runs))
    monkeypatch.setenv("PATH", f"{there}/bin", prepend=":")
    run = lab_host_run.RunInLabHost(HereShell(there), load(FIRST), FIRST, [])
    started = runs / run.run_id / "events.jsonl"
    with Signals():
        while not started.exists():
            time.sleep(0.02)
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        status, folder = run.finished(home)
    assert (status, folder) == (130, home / "runs" / run.run_id)
    assert folder is not None
    assert (folder / "events.jsonl").read_text() == "begun\nended\n"
