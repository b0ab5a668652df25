"""Disks that boot by their own boot loader, imported and frozen by the command, as a person does it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.core.units import NS_PER_MS
from lab.errors import MachineError
from lab.image import firmware
from lab.image.store import default_cache
from tests.guest.cloud_images import cloud_image as disk
from tests.guest.conftest import Cli
from tests.unit.disks import write_dos_table

PLAYBOOK = """
name: imported
guests:
  - {name: web-0, image: %s, memory: 1GiB}
matrix:
  method: [suspend, save-restore, in-place]
cycle: {patch: {hold: 2s}, budget: 60s, watch: 5s}
resync: timesyncd
"""
BOOT = ("--boot", "15min")
LONG_S = 1200


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
def playbook(tmp_path: Path) -> Callable[[str], str]:
    def written(image: str) -> str:
        (tmp_path / "imported.yaml").write_text(PLAYBOOK % image)
        return str(tmp_path / "imported.yaml")

    return written


def test_a_disk_whose_guest_never_answers_is_not_kept(own: Cli, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(bytes(1 << 20))
    write_dos_table(
        tmp_path / "hangs.raw", b"\xeb\xfe".ljust(512, b"\0"), b"", tmp_path / "root"
    )  # jmp to itself
    done = own("image", "import", "hangs", str(tmp_path / "hangs.raw"), "--boot", "5s")
    assert done.returncode == 4
    assert "a guest of it does not let the lab in: no answer to SSH at " in done.stderr
    assert not list((cache / "images").glob("*hangs-*"))
    assert (own.left(), own.qemu()) == ([], [])


@pytest.mark.timeout(2 * LONG_S)
def test_a_guest_without_python_boots_and_is_refused(own: Cli, playbook: Callable[[str], str]) -> None:
    """BIOS, sysvinit, and a seed that a shell script reads."""
    done = own("image", "import", "tiny", str(disk("bios")), *BOOT, timeout=LONG_S)
    assert done.returncode == 0, done.stderr
    assert "it lacks python3, agent, timesyncd" in done.stdout
    refused = own("run", playbook("tiny"))
    assert refused.returncode == 4
    assert "image tiny has no python3 of 3.6 or later, which the probe needs (Debian" in refused.stderr
    assert (own.left(), own.qemu()) == ([], [])


@pytest.mark.skipif(
    "FREEZELAB_CLOUD" not in os.environ,
    reason="a whole Debian takes a quarter of an hour under emulation; FREEZELAB_CLOUD=1 has it",
)
@pytest.mark.timeout(4 * LONG_S)
def test_a_cloud_image_is_frozen_by_all_methods(own: Cli, playbook: Callable[[str], str]) -> None:
    """UEFI, systemd, cloud-init and netplan. Its guests begin with a golden guest's state, and what keeps
    their time is the system's own program."""
    try:
        firmware.uefi()
    except MachineError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(str(error))
    done = own("image", "import", "cloud", str(disk("uefi")), *BOOT, timeout=LONG_S)
    assert done.returncode == 0, done.stderr
    assert "Debian GNU/Linux 13" in done.stdout
    done = own("run", playbook("cloud"), "--golden", *BOOT, timeout=2 * LONG_S)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    [record] = [json.loads(path.read_text()) for path in own.home.glob("runs/*/run.json")]
    starts = [guest["boot"]["started"] for guest in record["guests"]]
    assert starts == ["golden"] * len(starts), record["guests"]
    cycles = [cycle for guest in record["guests"] for cycle in guest["cycles"]]
    assert {cycle["method"] for cycle in cycles} == {"suspend", "save-restore", "in-place"}
    for cycle in cycles:
        assert cycle["pause"]["low_ns"] > 2000 * NS_PER_MS
        assert cycle["boot_id_unchanged"]
        assert cycle["resync"]["setup"]["program"].startswith("systemd-timesyncd")
    assert not [finding for finding in record["findings"] if finding["outcome"] == "failed"]
