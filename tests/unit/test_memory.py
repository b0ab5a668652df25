"""RAM as a file: what a digest sees of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import MachineError
from lab.hypervisor import memory
from lab.hypervisor.memory import PAGE, Digest, compare, take
from lab.hypervisor.shm import released, reserve

PAGES = 64


def ram(folder: Path, written: dict[int, bytes]) -> Path:
    """A sparse file of PAGES pages, some of them written."""
    path = folder / "ram"
    with path.open("wb") as file:
        file.truncate(PAGES * PAGE)
        for page, data in written.items():
            file.seek(page * PAGE)
            file.write(data)
    return path


@pytest.fixture(scope="module")
def shm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("home")
    folder = memory.folder(home)
    yield folder
    memory.drop(home)
    assert not folder.exists()


@given(
    first=st.dictionaries(st.integers(0, PAGES - 1), st.sampled_from([b"a", b"b", bytes(PAGE)])),
    second=st.dictionaries(st.integers(0, PAGES - 1), st.sampled_from([b"a", b"b", bytes(PAGE)])),
)
def test_exactly_the_pages_that_differ(shm: Path, first: dict[int, bytes], second: dict[int, bytes]) -> None:
    before, after = take(ram(shm, first)), take(ram(shm, second))
    one, two = ({page: data.rstrip(b"\0") for page, data in given.items()} for given in (first, second))
    differ = [page for page in range(PAGES) if one.get(page, b"") != two.get(page, b"")]
    proof = compare(before, after, 5)
    assert proof.differ == len(differ)
    assert proof.differing == tuple(differ[: len(proof.differing)])
    assert (proof.before == proof.after) == (not differ)
    assert (proof.pages, proof.page_bytes, proof.cost_ns) == (PAGES, PAGE, 5)
    # A page that is held though it is zero makes no difference, and holes are not read.
    assert proof.held <= PAGES
    os.unlink(shm / "ram")  # noqa: PTH108


def test_the_page_that_kvm_rewrites_may_differ_and_no_other(shm: Path) -> None:
    before, after = take(ram(shm, {3: b"a", 5: b"a"})), take(ram(shm, {3: b"b", 5: b"a"}))
    proof = compare(before, after, 0)
    allowed = proof.allowing(3)
    assert (allowed.differ, allowed.differing, allowed.rewritten) == (0, (), 3)
    assert allowed.before == allowed.after == before.total()
    assert proof.allowing(5) == proof.allowing(None) == proof
    both = compare(before, take(ram(shm, {3: b"b", 5: b"b"})), 0).allowing(3)
    assert (both.differ, both.differing, both.rewritten) == (1, (5,), 3)
    assert both.before != both.after
    (shm / "ram").unlink()


def test_a_digest_is_called_off(shm: Path) -> None:
    path = ram(shm, {3: b"x"})
    with pytest.raises(memory.DigestCalledOff):
        take(path, lambda: True)
    path.unlink()


def test_the_total_is_of_all_pages_in_order() -> None:
    sums = bytes(range(64))
    here, there = Digest(8, (range(2),), sums), Digest(8, (range(1, 3),), sums)
    assert here.total() != there.total()
    assert here.total() == Digest(8, (range(1), range(1, 2)), sums).total()


def test_a_folder_that_is_not_ours_alone(tmp_path: Path) -> None:
    path = memory.folder(tmp_path)
    path.chmod(0o755)
    try:
        with pytest.raises(MachineError, match="not a folder that only this user can access"):
            memory.folder(tmp_path)
    finally:
        path.rmdir()


def test_no_room(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"has .* free, but the guests' RAM is 1 TiB"):
        memory.check_room(tmp_path, 1 << 40)


def test_what_is_allocated_is_there_and_in_no_digest(shm: Path) -> None:
    path = shm / "ram"
    memory.allocate(path, PAGES * PAGE)
    facts = path.stat()
    assert facts.st_blocks * 512 == facts.st_size == PAGES * PAGE
    assert facts.st_mode & 0o777 == 0o600
    assert take(path).count == 0
    memory.allocate(path, PAGES * PAGE)
    assert path.stat().st_ino == facts.st_ino  # nobody has written to it
    with path.open("r+b") as file:
        file.seek(5 * PAGE)
        file.write(b"x")
    assert take(path).allocated == (range(5, 6),)
    memory.allocate(path, PAGES * PAGE)
    assert path.read_bytes() == bytes(PAGES * PAGE)
    path.unlink()


def test_more_than_there_is_is_not_allocated(shm: Path) -> None:
    with pytest.raises(MachineError, match=r"has .* free, but the guests' RAM is"):
        memory.allocate(shm / "ram", 1 << 50)
    assert not list(shm.iterdir())


def test_the_same_path_in_another_container(tmp_path: Path) -> None:
    """Two that share /dev/shm and nothing else, with state folders of one path."""
    home = tmp_path / "home"
    home.mkdir()
    one = memory.folder(home)
    home.rename(tmp_path / "of the other container")
    home.mkdir()
    two = memory.folder(home)
    try:
        assert one != two
        assert memory.folder(home) == two
        memory.drop(home)
        assert not two.exists()
        assert memory.folder(home) == two  # files in it were named already
    finally:
        one.rmdir()
        two.rmdir()


def test_a_copy_of_a_state_folder(tmp_path: Path) -> None:
    home, copy = tmp_path / "home", tmp_path / "copy"
    home.mkdir()
    one = memory.folder(home)
    shutil.copytree(home, copy, symlinks=True)
    two = memory.folder(copy)
    try:
        assert one != two
        assert memory.folder(home) == one
    finally:
        one.rmdir()
        two.rmdir()


def test_room_is_kept_for_what_a_start_writes(tmp_path: Path) -> None:
    reserve(tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_blocks * 512 == 1 << 20
    with released(tmp_path):
        assert not list(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == [file]
