"""RAM as a file: what a digest sees of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import MachineError
from lab.hypervisor import memory
from lab.hypervisor.memory import PAGE, Digest, compare, take

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


def test_a_digest_is_called_off(shm: Path) -> None:
    path = ram(shm, {3: b"x"})
    with pytest.raises(memory.Stopped):
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
        with pytest.raises(MachineError, match="not a folder of ours alone"):
            memory.folder(tmp_path)
    finally:
        path.rmdir()


def test_no_room(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"has .* free, the guests' RAM is 1 TiB"):
        memory.check_room(tmp_path, 1 << 40)
