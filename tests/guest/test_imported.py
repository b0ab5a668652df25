"""Disks that boot by their own boot loader, imported and frozen by the command, as a person does it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import MachineError
from lab.image import firmware
from lab.image.store import default_cache
from lab.process.pace import paced
from tests.guest.cloud_images import cloud_image
from tests.guest.conftest import FREEZELAB, Cli
from tests.unit.disks import START, write_dos_table

PLAYBOOK = """
name: imported
guests:
  - {{name: web-0, image: {image}, memory: {memory}}}
matrix:
  method: {methods}
  resync: {resyncs}
cycle: {{patch: {{hold: 2s}}, budget: 60s, watch: {watch}}}
"""
ALL = "[suspend, save-restore, in-place]"
BOOT = ("--boot", "15min")
LONG_S = 1200
USERS = default_cache()
"""The user's own cache, whatever FREEZELAB_CACHE is in a test: disks are made once."""

CONSOLE = "its console ends with: "

cloud = pytest.mark.skipif(
    "FREEZELAB_CLOUD" not in os.environ,
    reason="whole systems take minutes to boot under emulation; FREEZELAB_CLOUD=1 has them",
)


def disk(name: str) -> Path:
    return cloud_image(name, USERS)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image cache of these tests' own, with the images that are built."""
    made = tmp_path_factory.mktemp("cache")
    (made / "images").mkdir()
    for built in (default_cache() / "images").glob("debian-*"):
        (made / "images" / built.name).symlink_to(built)
    return made


@pytest.fixture
def own(cli: Cli, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command with that cache."""
    monkeypatch.setenv("FREEZELAB_CACHE", str(cache))
    return cli


@pytest.fixture
def playbook(tmp_path: Path) -> Callable[..., str]:
    def written(
        image: str, methods: str, resyncs: str, *, watch: str = "8s", memory: str = "512MiB", more: str = ""
    ) -> str:
        text = PLAYBOOK.format(image=image, methods=methods, resyncs=resyncs, watch=watch, memory=memory)
        (tmp_path / "imported.yaml").write_text(text + more)
        return str(tmp_path / "imported.yaml")

    return written


@pytest.fixture
def hangs(tmp_path: Path) -> Path:
    """A disk whose boot loader is a jump to itself."""
    (tmp_path / "root").write_bytes(bytes(1 << 20))
    disk = tmp_path / "hangs.raw"
    write_dos_table(disk, b"\xeb\xfe".ljust(512, b"\0"), b"", tmp_path / "root")
    return disk


def cycles_of(cli: Cli) -> list[dict[str, Any]]:
    """The cycles of the only run, after what all of them have in common was checked."""
    [record] = [json.loads(path.read_text()) for path in cli.home.glob("runs/*/run.json")]
    cycles = [cycle for guest in record["guests"] for cycle in guest["cycles"]]
    for cycle in cycles:
        assert cycle["pause"]["low_ns"] > 2000 * NS_PER_MS, cycle
        assert cycle["boot_id_unchanged"] or cycle["boot_id_unchanged"] is None, cycle
    assert not [finding for finding in record["findings"] if finding["outcome"] == "failed"]
    return cycles


def ways(cycles: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """The methods and mechanisms of cycles."""
    return {(cycle["method"], cycle["resync"]["mechanism"]) for cycle in cycles}


def test_a_disk_whose_guest_never_answers_is_not_kept(own: Cli, cache: Path, hangs: Path) -> None:
    done = own("image", "import", "hangs", str(hangs), "--boot", "5s")
    assert done.returncode == 4
    assert "a guest of it does not let the lab in: no answer to SSH at " in done.stderr
    assert "within 5 s: it has not booted, or has no address\n" in done.stderr
    agent = own("image", "import", "hangs", str(hangs), "--boot", "5s", "--probe", "agent")
    assert agent.returncode == 4
    assert "its agent does not answer within 5 s" in agent.stderr
    assert not list((cache / "images").glob("*hangs-*"))
    assert (own.left(), own.qemu()) == ([], [])


def test_what_an_import_leaves_that_was_killed_is_told_and_removed(
    own: Cli, cache: Path, hangs: Path
) -> None:
    process = own.start("image", "import", "killed", str(hangs), "--boot", "5min")
    deadline = time.monotonic() + paced(60)
    while not [guest for guest in own.qemu() if guest.cpu_times().user > 1]:  # it jumps to itself
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    [left] = (cache / "images").glob(".build-killed+*")
    doctor = own("doctor")
    assert f"in {left}" in doctor.stdout.replace("\n", " ") or str(left.name) in doctor.stdout
    assert "a killed run left 1 guests" in " ".join(doctor.stdout.split())
    done = own("image", "import", "other", str(hangs), "--boot", "3s")
    assert f"removed {left.name}, which a killed import or build has left" in done.stderr
    assert "left by a killed run: removed guest imported of run import-" in done.stderr
    assert not list((cache / "images").glob(".build-*"))
    assert (own.left(), own.qemu()) == ([], [])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a process namespace by itself")
def test_the_same_where_process_1_reaps_nobody() -> None:
    """As in many containers: the import's QEMU stays a zombie when it is ended. pytest is process 1."""
    same = f"{__file__}::{test_what_an_import_leaves_that_was_killed_is_told_and_removed.__name__}"
    inside = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    done = subprocess.run(
        [*inside, sys.executable, "-m", "pytest", "-q", same],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def of_tiny(cli: Cli, plan: str, methods: set[str]) -> None:
    """A run of bios's guests with chronyd, started by its script."""
    done = cli("run", plan, *BOOT, timeout=LONG_S)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    assert "shell (web-0" in done.stdout
    cycles = cycles_of(cli)
    assert ways(cycles) == {(method, "chrony") for method in methods}
    for cycle in cycles:
        assert cycle["resync"]["program"].startswith("chronyd")
        assert abs(cycle["offset"]["final"]["value_ns"]) < NS_PER_S, "it is no longer 2 s behind"
    assert (cli.left(), cli.qemu()) == ([], [])


@pytest.mark.timeout(LONG_S)
def test_a_guest_without_python_and_systemd_is_frozen(own: Cli, playbook: Callable[..., str]) -> None:
    """BIOS, sysvinit, and a seed that a shell script reads. Nothing is known of it before."""
    done = own("image", "import", "tiny", str(disk("bios")), "--no-try")
    assert done.returncode == 0, done.stderr
    of_tiny(own, playbook("tiny", "[in-place]", "[chrony]", watch="15s"), {"in-place"})


@cloud
@pytest.mark.timeout(3 * LONG_S)
def test_what_a_guest_lacks_is_told_and_the_rest_works(own: Cli, playbook: Callable[..., str]) -> None:
    done = own("image", "import", "tiny", str(disk("bios")), *BOOT, timeout=LONG_S)
    assert done.returncode == 0, done.stderr
    assert "  agent      no, so without: agent, agent-rtc, domtime-now" in done.stdout
    assert "its guests are looked into by shell: a shell reads the guest's clocks" in done.stdout
    refused = playbook("tiny", "[suspend]", "[timesyncd]")
    lacks = "timesyncd needs systemd, which image tiny does not have"
    assert lacks in own("plan", refused).stdout
    begun = time.monotonic()
    assert lacks in own("run", refused).stdout
    assert time.monotonic() < begun + 20, "no guest was booted for it"
    remove_runs(own)
    plan = playbook("tiny", "[suspend, save-restore]", "[chrony]", watch="15s")
    of_tiny(own, plan, {"suspend", "save-restore"})


def remove_runs(cli: Cli) -> None:
    shutil.rmtree(cli.home / "runs")


def changed(copy: Path, *commands: str) -> Path:
    """The disk of bios as a raw copy, with its root file system changed by commands of debugfs(8)."""
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(disk("bios")), str(copy)], check=True)
    root = f"{copy}?offset={START * 512}"
    for command in commands:
        subprocess.run(["debugfs", "-w", "-R", command, root], check=True, capture_output=True)
    return copy


@cloud
@pytest.mark.timeout(2 * LONG_S)
@pytest.mark.parametrize(
    ("command", "within", "why", "hint"),
    [
        ("rm /etc/network/interfaces", "3min", ": it has not booted, or has no address", CONSOLE),
        ("rm /usr/sbin/sshd", "3min", ": it has an address, and no sshd listens there", CONSOLE),
        ("write /dev/null /root/.ssh", "10min", "SSH login refused", "it does not take the NoCloud seed: "),
    ],
    ids=["no address", "no sshd", "refuses the key"],
)
def test_a_guest_that_lets_nobody_in_is_not_kept(
    own: Cli, cache: Path, tmp_path: Path, command: str, within: str, why: str, hint: str
) -> None:
    copy = changed(tmp_path / "changed.raw", command)
    done = own("image", "import", "shut", str(copy), "--boot", within, timeout=LONG_S)
    assert done.returncode == 4
    first, second = done.stderr.splitlines()[-2:]
    assert first.startswith(f"freezelab: {copy}: a guest of it does not let the lab in: ")
    assert why in first
    assert second.startswith(hint)
    assert not list((cache / "images").glob("*shut-*"))
    assert (own.left(), own.qemu()) == ([], [])


@cloud
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
@pytest.mark.timeout(2 * LONG_S)
def test_a_full_state_folder_ends_the_import(own: Cli, cache: Path) -> None:
    """The guest's disk is there, and QEMU stops the guest that writes to it."""
    for size in ("64k", "1m"):
        script = f'mount -t tmpfs -o size={size} small "$FREEZELAB_HOME" && shift && "$@"'
        command = [*FREEZELAB, "image", "import", "full", str(disk("bios")), "--boot", "5min"]
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", "-", *command],
            env=own.environment, capture_output=True, text=True, timeout=LONG_S, check=False,
        )  # fmt: skip
        assert done.returncode == 4, done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.partition("freezelab: ")[2].splitlines()) <= 2, done.stderr
        assert not list((cache / "images").glob("*full-*"))
        assert own.qemu() == []


@cloud
@pytest.mark.timeout(4 * LONG_S)
def test_a_guest_without_python_keeps_time_by_two_programs(own: Cli, playbook: Callable[..., str]) -> None:
    """BIOS, systemd, and a script that unpacks the seed's files.tar."""
    done = own("image", "import", "bare", str(disk("bare")), *BOOT, timeout=LONG_S)
    assert done.returncode == 0, done.stderr
    assert "  python3    no, so without: golden starts, effects" in done.stdout
    done = own("run", playbook("bare", ALL, "[chrony, timesyncd]"), *BOOT, timeout=2 * LONG_S)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    cycles = cycles_of(own)
    assert len(ways(cycles)) == 6
    for cycle in cycles:
        program = {"chrony": "chronyd", "timesyncd": "systemd-timesyncd"}[cycle["resync"]["mechanism"]]
        assert cycle["resync"]["program"].startswith(program)


@cloud
@pytest.mark.timeout(4 * LONG_S)
def test_a_cloud_image_is_frozen_by_all_methods(own: Cli, playbook: Callable[..., str]) -> None:
    """UEFI, systemd, cloud-init and netplan. Its guests begin with a golden guest's state, and what keeps
    their time is the system's own program."""
    needs_uefi()
    done = own("image", "import", "cloud", str(disk("uefi")), *BOOT, timeout=LONG_S)
    assert done.returncode == 0, done.stderr
    assert "Debian GNU/Linux 13" in done.stdout
    plan = playbook("cloud", ALL, "[timesyncd, chrony]", watch="5s", memory="1GiB")
    done = own("run", plan, "--golden", *BOOT, timeout=2 * LONG_S)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    [record] = [json.loads(path.read_text()) for path in own.home.glob("runs/*/run.json")]
    starts = [guest["boot"]["started"] for guest in record["guests"]]
    assert starts == ["golden"] * len(starts), record["guests"]
    cycles = cycles_of(own)
    assert len(ways(cycles)) == 6
    for cycle in cycles:
        assert cycle["boot_id_unchanged"]


@cloud
@pytest.mark.timeout(4 * LONG_S)
def test_a_guest_is_looked_into_by_its_agent_alone(own: Cli, playbook: Callable[..., str]) -> None:
    needs_uefi()
    done = own("image", "import", "alone", str(disk("uefi")), "--probe", "agent", *BOOT, timeout=LONG_S)
    assert done.returncode == 0, done.stderr
    assert "its guests are looked into by agent: the guest's REALTIME alone is read" in done.stdout
    assert "its guests are always booted: it is looked into by its agent alone" in done.stdout
    refused = own("plan", playbook("alone", "[suspend]", "[chrony]"))
    assert "is looked into by its agent alone, and chrony needs SSH" in refused.stdout
    kept = own("up", "--image", "alone")
    assert kept.returncode == 4
    assert "image alone has no SSH, which a kept guest needs" in kept.stderr
    plan = playbook("alone", ALL, "[agent]", memory="1GiB")
    done = own("run", plan, "--golden", *BOOT, timeout=2 * LONG_S)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    assert "agent (web-0" in done.stdout
    assert len(ways(cycles_of(own))) == 3


def needs_uefi() -> None:
    try:
        firmware.uefi()
    except MachineError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))
