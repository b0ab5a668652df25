"""The wheel has all that a run needs, and works without a clone. guest/runs/test_wheel.py runs it."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from lab.image.recipe import folder_digest, overlay_tar
from tests.unit.installed_wheel import ROOT, InstalledWheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> InstalledWheel:
    return InstalledWheel(tmp_path_factory.mktemp("installed"))


def test_the_images_are_the_clones(installed: InstalledWheel) -> None:
    """Names, executable bits and links as well: otherwise a wheel would build an image of its own."""
    data = installed.site_packages / "lab/data/images"
    assert {path.name for path in data.iterdir()} == {path.name for path in (ROOT / "images").iterdir()}
    for there in data.iterdir():
        here = ROOT / "images" / there.name
        assert folder_digest(there) == folder_digest(here)
        assert overlay_tar(there / "files") == overlay_tar(here / "files")
    found = installed.evaluate("from lab.session.paths import RECIPES; print(RECIPES)")
    assert Path(found.strip()) == data


def test_no_file_of_an_image_is_one_that_a_wheel_cannot_contain() -> None:
    assert [path for path in (ROOT / "images").rglob("*") if path.is_symlink()] == []


def test_playbooks_and_schemas_are_there(installed: InstalledWheel) -> None:
    data = installed.site_packages / "lab/data"
    for name, folder, pattern in (("playbooks", "playbooks", "*"), ("schemas", "docs", "*.schema.json")):
        here = {path.name: path.read_bytes() for path in (ROOT / folder).glob(pattern)}
        assert {path.name: path.read_bytes() for path in (data / name).iterdir()} == here
        assert here
    page = installed.prefix / "share/man/man1/freezelab.1"
    assert page.read_bytes() == (ROOT / "docs/freezelab.1").read_bytes()


def test_only_the_extra_for_guests_needs_a_compiler(installed: InstalledWheel) -> None:
    needs = installed.evaluate("import importlib.metadata as m; print('\\n'.join(m.requires('freezelab')))")
    assert [line for line in needs.splitlines() if "libvirt" in line] == [
        "libvirt-python>=9.0; extra == 'guests'"
    ]


def test_commands_work_without_a_clone(installed: InstalledWheel, tmp_path: Path) -> None:
    places = {"FREEZELAB_HOME": str(tmp_path / "home"), "FREEZELAB_CACHE": str(tmp_path / "cache")}
    names = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yaml"))
    for arguments, shown in (
        (["--version"], "freezelab "),
        (["--help"], "Exit codes"),
        (["plan", "first-freeze"], "first-freeze"),
        (["history"], ""),
        (["image", "list"], "not built"),
    ):
        done = installed.freezelab(*arguments, environment=places)
        assert done.returncode == 0, done.stderr
        assert shown in done.stdout
    for launchers, instead in (
        ("test", "in a clone: ./freezelab test"),
        ("uninstall", "pipx uninstall freezelab"),
    ):
        done = installed.freezelab(launchers, "--yes", "-k", "x", environment=places)
        assert done.returncode == 2
        assert instead in done.stderr
        assert len(done.stderr.splitlines()) == 2
    checked = installed.freezelab("check", *names, environment=places)
    assert "first-freeze: valid (first-freeze)" in checked.stdout, checked.stderr
    assert "there is no playbook" not in checked.stderr
    assert "in the playbook's folder" not in checked.stderr  # where their handlers are
    for what in ("playbook", "run"):
        printed = installed.freezelab("schema", what)
        assert json.loads(printed.stdout) == json.loads((ROOT / f"docs/{what}.schema.json").read_text())


def test_the_containerfile_copies_what_the_wheel_is_made_of(
    installed: InstalledWheel, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lines = (ROOT / "Containerfile").read_text(encoding="utf-8").splitlines()
    copied = [line.split()[1:] for line in lines if line.startswith("COPY ") and "--from" not in line]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert ignored[0] == "*"
    for *names, _ in copied:
        for name in names:
            assert f"!{name}" in ignored
            where = ROOT / name
            if where.is_dir():
                shutil.copytree(where, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(where, tmp_path / name)
    again = InstalledWheel(tmp_path_factory.mktemp("again"), tmp_path)
    assert zipfile.ZipFile(again.wheel).namelist() == zipfile.ZipFile(installed.wheel).namelist()
