"""From a name to a file, and files that cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab.errors import MachineError, PlaybookError
from lab.playbook import load, resolve, shipped
from lab.playbook.source import MOST_BYTES
from lab.session.paths import playbook_folders

OK = "name: a\nresync: agent\ncycle: {patch: {hold: 5s}}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of playbooks; the current folder is another, empty one."""
    folder = tmp_path / "playbooks"
    folder.mkdir()
    for name in ("first-freeze.yaml", "no-resync.yaml", "other.yml", "README.md"):
        (folder / name).write_text(OK)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


@pytest.mark.parametrize("asked", ["first-freeze", "first-freeze.yaml"])
def test_by_name(folder: Path, asked: str) -> None:
    assert resolve(asked, [folder]) == folder / "first-freeze.yaml"


def test_by_path(folder: Path) -> None:
    assert resolve("../playbooks/other.yml", []) == Path("../playbooks/other.yml")
    assert resolve(str(folder / "README.md"), []) == folder / "README.md"


def test_a_file_here_goes_first_when_its_suffix_is_written(folder: Path) -> None:
    Path("first-freeze.yaml").write_text(OK)
    Path("no-resync").mkdir()
    assert resolve("first-freeze.yaml", [folder]) == Path("first-freeze.yaml")
    assert resolve("first-freeze", [folder]) == folder / "first-freeze.yaml"
    assert resolve("no-resync", [folder]) == folder / "no-resync.yaml"


def test_earlier_folders_go_first(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "first-freeze.yaml").write_text(OK)
    assert resolve("first-freeze", [mine, folder]) == mine / "first-freeze.yaml"
    assert [path.stem for path in shipped([mine, folder])] == ["first-freeze", "no-resync", "other"]
    assert shipped([tmp_path / "missing"]) == []


@pytest.mark.parametrize("asked", ["frist-freeze", "First-Freeze.yml", "./first-freez.yaml"])
def test_unknown_with_a_guess(folder: Path, asked: str) -> None:
    with pytest.raises(PlaybookError) as caught:
        resolve(asked, [folder])
    what, hint = str(caught.value).splitlines()
    assert what == f"no playbook {asked!r}; did you mean first-freeze?"
    assert hint == "There are: first-freeze, no-resync, other."


def test_unknown_path_without_its_suffix(folder: Path) -> None:
    (folder / "other.yaml").write_text(OK)
    with pytest.raises(PlaybookError, match=r"did you mean ../playbooks/other.yaml\?\n"):
        resolve("../playbooks/other", [folder])


@pytest.mark.parametrize(
    "asked", ["", "zzzzzz", "x\0y", "a" * 5000, "/", "no/such/file.yaml", "\x1b[2J", ".."]
)
def test_nonsense_is_answered_in_two_lines(folder: Path, asked: str) -> None:
    with pytest.raises(PlaybookError) as caught:
        load(resolve(asked, [folder]))
    assert len(str(caught.value).splitlines()) <= 2
    assert all(line.isprintable() for line in str(caught.value).splitlines())
    assert len(str(caught.value)) < 300


def test_nothing_known() -> None:
    with pytest.raises(PlaybookError, match=r"no playbook 'x'\nGive the path of a .yaml file\."):
        resolve("x", [])


def refusal(path: Path) -> str:
    with pytest.raises(PlaybookError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


def test_files_that_are_none(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "a folder; give the path of a .yaml file in it"
    assert refusal(tmp_path / "x") == "no such file; check the path"
    assert refusal(Path("/dev/zero")) == "not an ordinary file; give the path of a .yaml file"
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe") == "not an ordinary file; give the path of a .yaml file"
    (tmp_path / "loop").symlink_to("loop")
    assert refusal(tmp_path / "loop").startswith("cannot be read: ")
    assert refusal(tmp_path / ("a" * 300)).startswith("cannot be read: ")


@pytest.mark.parametrize("size", [MOST_BYTES + 1, 2 << 20])
def test_too_large(tmp_path: Path, size: int) -> None:
    (tmp_path / "p.yaml").write_text(OK + "#" * (size - len(OK)))
    assert refusal(tmp_path / "p.yaml") == "larger than 256 KiB; check that this is a playbook"


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "p.yaml").write_text(OK)
    monkeypatch.setattr(os, "open", refused)  # root may read everything
    assert refusal(tmp_path / "p.yaml") == "permission denied; allow reading with chmod +r"


def test_mistakes_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(OK + "x: 1\n")
    with pytest.raises(PlaybookError) as caught:
        load(tmp_path / "p.yaml")
    assert str(caught.value).startswith(f"{tmp_path}/p.yaml:4:1: unknown key 'x'; known: ")


def test_a_current_folder_that_is_gone_is_an_error_of_the_machine(folder: Path) -> None:
    Path.cwd().rmdir()
    with pytest.raises(MachineError, match="the current folder does not exist any more"):
        playbook_folders()
