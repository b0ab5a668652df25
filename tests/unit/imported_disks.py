"""Disks of the user's own, and their import without a guest. `pytest_plugins` of a test module names it for
its fixtures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.image.store import Image
from lab.ports import NullView
from lab.session.image_import import ImportOptions, import_image
from tests.unit.disks import efi_system, write_dos_table, write_gpt

MIB = 1 << 20


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FREEZELAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.write_bytes(bytes(MIB) + b"system" + bytes(MIB - 6))
    return path


@pytest.fixture
def bios(tmp_path: Path, root: Path) -> Path:
    """A raw disk that BIOS boots."""
    write_dos_table(tmp_path / "bios.raw", b"\xeb" + bytes(511), b"core", root)
    return tmp_path / "bios.raw"


@pytest.fixture
def uefi(tmp_path: Path, root: Path) -> Path:
    """A raw disk that UEFI boots."""
    write_gpt(tmp_path / "uefi.raw", efi_system("BOOTX64.EFI"), root)
    return tmp_path / "uefi.raw"


def take(file: Path, name: str = "mine", **options: Any) -> Image:
    made = ImportOptions(name, file, attempt=False, **options)
    return import_image(made, NullView(), lambda _stage, _fraction: None)
