"""Disks that boot by their own boot loader, as clouds offer them, made with Debian's tools: cloud/README.md.

    <cache>/cloud/<name>-<digest12>.qcow2     uefi: a GPT with an EFI system partition; bios: a DOS table

Nothing is mounted and no loop device is used: the file systems are written as files (mke2fs -d, mtools), the
boot loaders by grub-mkimage in the system itself, and the partition tables by tests/unit/disks.py.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

from lab.image.build import find_tools, mke2fs_argv, mmdebstrap_argv
from lab.image.program import run
from lab.image.recipe import Recipe, load_recipe, overlay_tar
from lab.image.store import default_cache
from tests.unit.disks import write_dos_table, write_gpt

FOLDER = Path(__file__).parent / "cloud"
_TIMEOUT_S = 1800


def cloud_image(name: str, cache: Path | None = None) -> Path:
    """The qcow2 of cloud/NAME, made if it is not in the cache, by default the user's."""
    recipe = load_recipe(FOLDER / name)
    final = (cache or default_cache()) / "cloud" / f"{name}-{recipe.short_digest}.qcow2"
    if not final.exists():
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=final.parent) as folder:
            made = _make(recipe, Path(folder))
            made.rename(final)
    return final


def _make(recipe: Recipe, work: Path) -> Path:
    tools, tarball, tree = find_tools(), work / "root.tar", work / "root"
    (work / "files.tar").write_bytes(_files(recipe))
    os.environ["TMPDIR"], before = str(work), os.environ.get("TMPDIR", "/tmp")
    try:
        mirror = os.environ.get("FREEZELAB_MIRROR")
        run(mmdebstrap_argv(recipe, tools, [work / "files.tar"], tarball, mirror), timeout_s=_TIMEOUT_S)
    finally:
        os.environ["TMPDIR"] = before
    tree.mkdir()
    owners = str(work / "owners")
    save = [*tools.fakeroot, "-s", owners, "--"] if tools.fakeroot else []
    load = [*tools.fakeroot, "-i", owners, "--"] if tools.fakeroot else []
    unpack = [tools.tar, "-C", str(tree), "--numeric-owner", "--exclude=./dev/*", "-xf", str(tarball)]
    run([*save, *unpack], timeout_s=_TIMEOUT_S)
    tarball.unlink()
    boot = {path.name: path.read_bytes() for path in tree.glob("*.img")}
    for path in tree.glob("*.img"):
        if not path.is_symlink():  # initrd.img
            path.unlink()
    root = work / "root.ext4"
    with root.open("xb") as file:
        file.truncate(recipe.disk_bytes)
    run(
        [
            *load,
            *mke2fs_argv(tools, tree, root),
        ],
        timeout_s=_TIMEOUT_S,
    )
    run(["e2label", str(root), "cloudimg-rootfs"], timeout_s=60)
    shutil.rmtree(tree)
    disk = work / "disk.raw"
    if "esp.img" in boot:
        write_gpt(disk, boot["esp.img"], root)
    else:
        write_dos_table(disk, boot["boot.img"], boot["core.img"], root)
    made = work / "disk.qcow2"
    run(["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", str(disk), str(made)], timeout_s=_TIMEOUT_S)
    return made


def _files(recipe: Recipe) -> bytes:
    buffer = io.BytesIO(overlay_tar(recipe.layers[0].folder / "files"))
    with tarfile.open(fileobj=buffer, mode="a", format=tarfile.GNU_FORMAT) as tar:
        entry = tarfile.TarInfo("cmdline")
        entry.size = len(recipe.cmdline)
        tar.addfile(entry, io.BytesIO(recipe.cmdline.encode()))
    return buffer.getvalue()


if __name__ == "__main__":
    import sys

    for wanted in sys.argv[1:]:
        sys.stdout.write(f"{cloud_image(wanted)}\n")
