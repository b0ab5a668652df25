"""What a disk says of how it boots, and for which processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import ImageError
from lab.image.partitions import boot_ways
from tests.unit.disks import EFI_SYSTEM, POWER_BOOT, efi_system, write_dos_table, write_gpt

X64 = "BOOTX64.EFI"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.write_bytes(bytes(1 << 20))
    return path


@pytest.mark.parametrize("kind", [12, 16, 32])
def test_the_boot_loader_is_found_in_each_kind_of_fat(tmp_path: Path, root: Path, kind: int) -> None:
    write_gpt(tmp_path / "disk", efi_system(X64, kind), root)
    ways = boot_ways(tmp_path / "disk")
    assert (ways.bios, ways.uefi) == (False, True)


@pytest.mark.parametrize("kind", [12, 16, 32])
@pytest.mark.parametrize(
    ("loader", "processor"),
    [("BOOTAA64.EFI", "arm64"), ("BOOTRI~1.EFI", "RISC-V"), ("BOOTIA32.EFI", "32-bit x86")],
)
def test_a_disk_for_another_processor_is_refused(
    tmp_path: Path, root: Path, loader: str, processor: str, kind: int
) -> None:
    write_gpt(tmp_path / "disk", efi_system(loader, kind), root)
    with pytest.raises(ImageError, match=f"^it is for {processor}") as caught:
        boot_ways(tmp_path / "disk")
    assert caught.value.what.endswith(", and has no boot loader for x86-64")


def test_a_disk_for_power_is_refused(tmp_path: Path, root: Path) -> None:
    write_gpt(tmp_path / "disk", bytes(1 << 20), root, POWER_BOOT)
    with pytest.raises(ImageError, match="it is for POWER"):
        boot_ways(tmp_path / "disk")


@pytest.mark.parametrize(
    "esp", [bytes(1 << 20), efi_system("GRUB.EFI"), efi_system(X64)[:512].ljust(1 << 20, b"\0")]
)
def test_an_efi_system_partition_without_a_boot_loader_boots_nothing(
    tmp_path: Path, root: Path, esp: bytes
) -> None:
    write_gpt(tmp_path / "disk", esp, root, EFI_SYSTEM)
    with pytest.raises(ImageError) as caught:
        boot_ways(tmp_path / "disk")
    assert caught.value.what == (
        "it has no boot loader: no code in its first sector, "
        "no \\EFI\\BOOT\\BOOTX64.EFI in its EFI system partition"
    )


def test_a_disk_that_bios_boots_says_what_uefi_would_need(tmp_path: Path, root: Path) -> None:
    write_dos_table(tmp_path / "disk", b"\xeb" + bytes(511), b"core", root)
    ways = boot_ways(tmp_path / "disk")
    assert (ways.bios, ways.uefi, ways.lacks_uefi) == (True, False, "EFI system partition")


@pytest.mark.parametrize("at", [72, 79, 85, 87])
def test_a_table_that_points_anywhere_is_damaged(tmp_path: Path, root: Path, at: int) -> None:
    write_gpt(tmp_path / "disk", efi_system(X64), root)
    with (tmp_path / "disk").open("r+b") as file:
        file.seek(512 + at)
        file.write(b"\xff")
    with pytest.raises(ImageError, match=r"damaged|cut off|no partitions|no boot loader"):
        boot_ways(tmp_path / "disk")


def test_every_chain_of_clusters_ends(tmp_path: Path, root: Path) -> None:
    esp = bytearray(efi_system("OTHER.EFI"))
    esp[512:520] = b"\3\x30\0\3\x30\0\3\x30"  # each is followed by cluster 3
    write_gpt(tmp_path / "disk", bytes(esp), root)
    with pytest.raises(ImageError, match="no boot loader"):
        boot_ways(tmp_path / "disk")
