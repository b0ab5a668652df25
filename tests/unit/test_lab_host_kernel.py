"""Another kernel for the lab host, out of an image with a file system like its own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lab.errors import UsageError
from lab.image.store import Image
from lab.session import lab_host_kernel
from lab.session.lab_host_kernel import with_kernel

pytestmark = pytest.mark.skipif(
    not shutil.which("debugfs") or not shutil.which("mke2fs"), reason="e2fsprogs is not installed"
)
RELEASES = ("6.12.95+deb12-cloud-amd64", "6.1.0-57-cloud-amd64", "6.9.7-cloud-amd64")


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image:
    tree, disk = tmp_path / "tree", tmp_path / "disk.img"
    for release in RELEASES:
        folder = tree / lab_host_kernel.KERNELS.lstrip("/") / release
        folder.mkdir(parents=True)
        for file in ("vmlinuz", "initrd"):
            (folder / file).write_text(f"{file} of {release}")
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(disk), "4M"], check=True)
    monkeypatch.setattr(lab_host_kernel, "default_cache", lambda: tmp_path / "cache")
    folder = tmp_path / "labhost-0123456789ab"
    return Image("labhost", "00", folder, disk, "raw", Path("first"), Path("its"), "root=/dev/vda", {})


@pytest.mark.parametrize(
    ("asked", "release"),
    [("6.12", RELEASES[0]), ("6.1", RELEASES[1]), ("6", RELEASES[0]), (RELEASES[1], RELEASES[1])],
)
def test_a_kernel_is_found_by_the_numbers_of_its_release(image: Image, asked: str, release: str) -> None:
    for _ in range(2):  # the second time it is there
        found = with_kernel(image, asked)
        assert found.kernel is not None
        assert found.initrd is not None
        assert found.kernel.read_text() == f"vmlinuz of {release}"
        assert found.initrd.read_text() == f"initrd of {release}"
        assert (found.disk, found.cmdline) == (image.disk, image.cmdline)


@pytest.mark.parametrize("asked", ["7.3", "6.", "6.12.9", "../6.1", "6.1.0-57-cloud", "*"])
def test_a_kernel_that_is_not_there_is_refused_with_those_that_are(image: Image, asked: str) -> None:
    with pytest.raises(UsageError, match="has no kernel") as refused:
        with_kernel(image, asked)
    assert str(refused.value.hint) == (
        f"known: {RELEASES[1]}, {RELEASES[2]}, {RELEASES[0]}; --image labhost-newer has another"
    )
