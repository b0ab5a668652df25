"""Disks of the user's own: what is refused, and what a copy in the cache is worth. No guest is booted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.errors import FreezelabError, ImageError, MachineError, UsageError
from lab.image import firmware, staging
from lab.image.store import ImageStore, overlay
from lab.ports import NullView
from lab.session import paths
from lab.session.image_import import Firmware, ImportOptions, import_image
from tests.mounts import need_namespaces
from tests.unit.disks import START, write_dos_table
from tests.unit.imported_disks import MIB, take

pytest_plugins = ["tests.unit.imported_disks"]
pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")


@pytest.fixture
def descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of firmware descriptors in place of the machine's."""
    folder = tmp_path / "firmware"
    folder.mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(firmware, "FOLDERS", (folder,))
    return folder


def describe(folder: Path, name: str, *features: str, machines: str = "pc-q35-*", **files: str) -> None:
    """A descriptor of firmware for flash, and its files."""
    for part, content in files.items():
        (folder / f"{name}.{part}").write_text(content)
    parts = {"executable": "code", "nvram-template": "variables"}
    mapping = {
        key: {"filename": str(folder / f"{name}.{part}"), "format": "raw"} for key, part in parts.items()
    }
    text = {
        "interface-types": ["uefi"],
        "mapping": {"device": "flash", **mapping},
        "targets": [{"architecture": "x86_64", "machines": [machines]}],
        "features": list(features),
    }
    (folder / f"{name}.json").write_text(json.dumps(text))


def qcow2(disk: Path, *options: str) -> Path:
    made = disk.with_suffix(".qcow2")
    subprocess.run(
        ["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", *options, str(disk), str(made)], check=True
    )
    return made


def refusal(cache: Path, file: Path, **options: Any) -> str:
    """The one line of a refusal, which leaves nothing in the cache."""
    with pytest.raises(FreezelabError) as caught:
        take(file, **options)
    assert not [path for path in cache.rglob("*") if not path.name.startswith(".lock")] or (
        list(cache.iterdir()) == [cache / "images"] and not list((cache / "images").glob("[!.]*"))
    )
    assert not list(cache.glob("images/.build*"))
    return caught.value.what


@pytest.mark.parametrize("packed", [False, True])
def test_a_disk_is_copied_and_boots_by_what_it_has(
    cache: Path, bios: Path, uefi: Path, packed: bool, descriptors: Path
) -> None:
    describe(descriptors, "50-plain", code="C", variables="V")
    for disk, rom in ((bios, None), (uefi, "VC")):
        file = qcow2(disk) if packed else disk
        before = file.read_bytes()
        image = take(file)
        assert file.read_bytes() == before
        assert image.disk.read_bytes() == disk.read_bytes()
        assert (image.firmware.read_text() if image.firmware else None) == rom
        assert image.imported
        assert image.info["source"]["sha256"] == hashlib.sha256(before).hexdigest()
        file.unlink()
        assert subprocess.run(
            ["qemu-img", "check", "-q", str(overlay(image, file.with_name(f"over-{file.name}")))], check=False
        ).returncode == 0  # fmt: skip


def test_the_copy_has_no_room_for_zeros(cache: Path, bios: Path) -> None:
    with bios.open("r+b") as file:
        file.truncate(bios.stat().st_size + 64 * MIB)
        file.seek(bios.stat().st_size - 32 * MIB)
        file.write(bytes(32 * MIB))
    assert bios.stat().st_blocks * 512 > 32 * MIB
    assert take(bios).disk.stat().st_blocks * 512 < 2 * MIB


def test_the_store_finds_it_lists_it_and_removes_it(cache: Path, bios: Path, uefi: Path) -> None:
    store = ImageStore(paths.RECIPES, cache)
    first = take(bios)
    assert store.find("mine") == first
    with bios.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    second = take(bios)
    assert second.digest != first.digest
    assert store.find("mine") == second, "it takes the other's place"
    assert [(item.image, item.current) for item in store.listing()] == [(second, True)]
    with pytest.raises(FreezelabError):
        take(bios.parent / "nothing")
    assert store.find("mine") == second
    store.remove("mine")
    assert not list(store.images.glob("[!.]*"))
    with pytest.raises(UsageError, match="no image named 'mine'"):
        store.find("mine")


def test_the_same_disk_with_another_user_or_firmware_is_another_image(cache: Path, bios: Path) -> None:
    assert len({take(bios).digest, take(bios, user="admin").digest, take(bios).digest}) == 2


def _text(path: Path) -> None:
    path.write_text("no disk at all\n" * 100)


def _gzip(path: Path) -> None:
    path.write_bytes(b"\x1f\x8b" + bytes(2000))


def _iso(path: Path) -> None:
    path.write_bytes((bytes(510) + b"\x55\xaa").ljust(32769, b"\0") + b"CD001".ljust(9000, b"\0"))


def _no_partitions(path: Path) -> None:
    path.write_bytes((b"\xeb".ljust(510, b"\0") + b"\x55\xaa").ljust(MIB, b"\0"))


def _damaged_gpt(path: Path) -> None:
    entry = b"\0\0\0\0\xee\0\0\0\1\0\0\0\xff\xff\0\0"
    path.write_bytes((bytes(446) + entry + bytes(48) + b"\x55\xaa").ljust(MIB, b"\0"))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_text, "it is no disk image: neither qcow2, nor a disk with a partition table"),
        (_gzip, "it is packed with gzip"),
        (_iso, "it is an ISO image, which installs a system, and not a disk with one"),
        (_no_partitions, "it has no partitions"),
        (_damaged_gpt, "its partition table is damaged"),
        (Path.touch, "it is empty"),
        (Path.mkdir, "it is neither a file nor a block device"),
        (os.mkfifo, "it is neither a file nor a block device"),
        (lambda _path: None, "it cannot be read: No such file or directory"),
    ],
)
def test_what_is_no_disk_is_refused(
    cache: Path, tmp_path: Path, make: Callable[[Path], object], why: str
) -> None:
    make(tmp_path / "file")
    assert refusal(cache, tmp_path / "file") == why


def test_a_disk_without_a_boot_loader_is_refused(cache: Path, tmp_path: Path, root: Path) -> None:
    write_dos_table(tmp_path / "data.raw", bytes(512), b"", root)
    assert refusal(cache, tmp_path / "data.raw") == (
        "it has no boot loader: no code in its first sector, no EFI system partition"
    )


def test_a_disk_that_is_cut_off_is_refused(cache: Path, bios: Path, uefi: Path) -> None:
    whole = qcow2(uefi)
    os.truncate(bios, (START + 100) * 512)
    assert refusal(cache, bios) == "it is cut off: its partitions end at 3 MiB, the disk at 1 MiB"
    os.truncate(whole, whole.stat().st_size // 2)
    assert refusal(cache, whole).startswith("it is damaged or cut off: qemu-img check finds ")


def test_a_disk_that_is_written_meanwhile_is_refused(cache: Path, bios: Path) -> None:
    def meanwhile(stage: str, _fraction: float | None) -> None:
        if stage == "copying":
            os.utime(bios, ns=(0, 0))

    with pytest.raises(ImageError, match="it was written while it was read"):
        import_image(ImportOptions("mine", bios, attempt=False), NullView(), meanwhile)
    assert not list(cache.glob("images/*mine*-*"))


def test_an_overlay_and_other_formats_are_refused(cache: Path, bios: Path) -> None:
    create = ["qemu-img", "create", "-q", "-f", "qcow2"]
    over, vmdk = bios.with_name("over.qcow2"), bios.with_name("disk.vmdk")
    subprocess.run([*create, "-b", str(bios), "-F", "raw", str(over)], check=True)
    assert refusal(cache, over) == f"it is an overlay over {bios}"
    subprocess.run(["qemu-img", "convert", "-O", "vmdk", str(bios), str(vmdk)], check=True)
    assert refusal(cache, vmdk) == "it is vmdk; qcow2 and raw are supported"


def test_an_encrypted_disk_is_refused(cache: Path, bios: Path) -> None:
    options = ["-o", "encrypt.format=aes,encrypt.key-secret=key"]  # LUKS measures how busy the machine is
    assert refusal(cache, qcow2(bios, "--object", "secret,id=key,data=0123456789abcdef", *options)) == (
        "it is encrypted"
    )


def test_its_checksum_is_checked(cache: Path, bios: Path) -> None:
    right = hashlib.sha256(bios.read_bytes()).hexdigest()
    assert take(bios, sha256=right.upper()).name == "mine"
    shutil.rmtree(cache)
    assert refusal(cache, bios, sha256="0" * 64) == f"its SHA-256 is {right}, not {'0' * 64}"
    assert refusal(cache, bios, sha256="abc") == "not a SHA-256: 'abc'"


def test_firmware_that_the_disk_cannot_be_booted_by_is_refused(cache: Path, bios: Path, uefi: Path) -> None:
    assert refusal(cache, bios, firmware=Firmware.UEFI) == "it has no EFI system partition"
    assert refusal(cache, uefi, firmware=Firmware.BIOS) == "it has no code in its first sector"


def test_names_that_mean_something_else_are_refused(cache: Path, bios: Path) -> None:
    assert refusal(cache, bios, name="debian") == "debian is the name of an image that is built"
    assert refusal(cache, bios, name="../x") == "not a name for an image: '../x'"


def test_firmware_is_found_by_its_descriptors(descriptors: Path) -> None:
    with pytest.raises(MachineError, match="there is no UEFI firmware on this machine"):
        firmware.uefi()
    (descriptors / "10-none.json").write_text("{")
    describe(descriptors, "20-secure", "requires-smm", code="S", variables="S")
    describe(descriptors, "30-other", machines="virt-*", code="A", variables="A")
    describe(descriptors, "40-lost", code="L")
    describe(descriptors, "50-plain", "acpi-s3", code="C", variables="V")
    describe(descriptors, "60-later", code="X", variables="X")
    assert firmware.uefi() == b"VC"


COMMAND = f"{sys.executable} -m lab.cli.main image"


def in_namespace(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A shell script in mounts of its own."""
    need_namespaces()
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        cwd=Path(__file__).parents[2], env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_disk_leaves_nothing(tmp_path: Path, bios: Path) -> None:
    with bios.open("r+b") as file:
        file.seek(0, 2)
        file.write(os.urandom(4 * MIB))
    small = tmp_path / "small"
    small.mkdir()
    command = f"{COMMAND} import mine {bios} --no-try"
    script = (
        f"mount -t tmpfs -o size=2m small {small} && {command}; code=$?; find {small} -type f; exit $code"
    )
    done = in_namespace(script, FREEZELAB_CACHE=str(small))
    assert done.returncode == 4
    last = [line for line in done.stderr.splitlines() if "image:" not in line]
    assert last[0].startswith(f"freezelab: no space left on {small}/images")
    assert len(last) == 2
    assert done.stdout.splitlines() == [f"{small}/images/.lock-mine"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_disk_that_becomes_full_at_any_step_leaves_nothing(tmp_path: Path, bios: Path) -> None:
    """Full of files, of which no room that was measured before says anything."""
    small = tmp_path / "small"
    small.mkdir()
    # Room for its root alone; for the folder, the lock, the work folder, the copy, and its manifest as well.
    script = "; ".join(
        f"mount -t tmpfs -o size=64m,nr_inodes={count} small {small}; {COMMAND} import mine {bios} --no-try; "
        f"echo code $? $(find {small} -mindepth 2 ! -name '.lock*'); umount {small}"
        for count in range(1, 7)
    )
    done = in_namespace(script, FREEZELAB_CACHE=str(small))
    *full, complete = [line for line in done.stdout.splitlines() if line.startswith("code ")]
    assert full == ["code 4"] * 5, done
    assert complete.startswith("code 0 ")
    assert done.stderr.count("no space left on ") == 5
    assert done.stderr.count("it can have no more files\nmake room there, ") == 5
    assert "Traceback" not in done.stderr


# -- in use, and killed ----------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_a_disk_that_a_guest_may_write_is_refused(cache: Path, bios: Path, packed: bool) -> None:
    file, form = (qcow2(bios), "qcow2") if packed else (bios, "raw")
    write = ["stdbuf", "-oL", "qemu-io", "-f", form, "-c", "read 0 512", "-c", "sleep 60000", str(file)]
    with subprocess.Popen(write, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            assert "read 512/512" in writer.stdout.readline()
            assert refusal(cache, file) == "the disk is in use"
        finally:
            writer.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has block devices")
def test_a_block_device_that_is_mounted_is_refused(cache: Path, tmp_path: Path, bios: Path) -> None:
    found = subprocess.run(["losetup", "-f"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        pytest.skip(f"no loop devices here: {found.stderr.strip()}")
    (tmp_path / "there").mkdir()
    subprocess.run(["mke2fs", "-q", "-F", str(tmp_path / "ext4"), "4M"], check=True)
    script = (
        f"set -e; d=$(losetup -f --show {bios}); trap 'losetup -d $d' EXIT; "
        f"{COMMAND} import mine --no-try --from-disk $d; {COMMAND} remove mine; "
        f"e=$(losetup -f --show {tmp_path}/ext4); trap 'losetup -d $d $e' EXIT; "
        f"mount $e {tmp_path}/there; {COMMAND} import mine --no-try --from-disk $e || code=$?; "
        f"umount {tmp_path}/there; exit $code"
    )
    done = in_namespace(script)
    assert done.returncode == 4, done.stderr
    assert done.stderr.splitlines()[-2:] == [
        done.stderr.splitlines()[-2].partition(": the disk")[0] + ": the disk is in use",
        "unmount it, or shut its guest down; or import a snapshot of it",
    ]
    assert done.stderr.splitlines()[-2].startswith("freezelab: /dev/loop")
    assert not list(cache.glob("images/*mine*-*"))


def test_what_a_killed_import_leaves_is_removed_by_the_next_of_any_name(
    cache: Path, tmp_path: Path, bios: Path
) -> None:
    large = tmp_path / "large.raw"
    shutil.copyfile(bios, large)
    piece = os.urandom(8 * MIB)
    with large.open("ab") as file:
        for _ in range(40):
            file.write(piece)

    def killed() -> Path:
        command = [sys.executable, "-m", "lab.cli.main", "image", "import", "other", str(large), "--no-try"]
        with subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 60
            while not (copied := list(cache.glob("images/.build-other+*/disk-*"))):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.001)
            assert not staging.left(cache / "images"), "it is at work"
            process.kill()
        while not staging.left(cache / "images"):  # until its qemu-img has ended, too
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return copied[0].parent

    left = killed()
    stages: list[str] = []
    import_image(ImportOptions("mine", bios, attempt=False), NullView(), lambda what, _: stages.append(what))
    assert f"removed {left.name}, which a killed import or build has left" in stages
    assert not list(cache.glob("images/.build*"))
