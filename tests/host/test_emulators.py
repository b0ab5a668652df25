"""Other QEMU versions from this machine's real package archive, kept in the user's cache: the first time they
are downloaded (14 MB, and 38 MB for one with its own libraries), afterwards only asked after."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from lab.errors import MachineError
from lab.host import emulators, emulators_fetch
from lab.host.emulators import Fetched
from lab.host.emulators_apt import Unreachable
from lab.host.emulators_sources import Archive, read_archive
from lab.image.store import default_cache


@pytest.fixture(scope="module")
def archive() -> Archive:
    try:
        return read_archive()
    except MachineError as error:
        pytest.skip(error.what)


def get(name: str, archive: Archive) -> Fetched:
    """From the archive or, when it does not answer, as it was fetched before."""
    try:
        return emulators_fetch.fetch(name, default_cache(), print, archive)
    except Unreachable as error:
        pytest.skip(error.what)


@pytest.fixture(scope="module")
def backports(archive: Archive) -> Fetched:
    return get("backports", archive)


@pytest.fixture(scope="module")
def foreign(archive: Archive) -> Fetched:
    """Of another release: the system's libraries do not fit."""
    return get("bookworm" if archive.codename == "trixie" else "trixie", archive)


@pytest.fixture(params=["backports", "foreign"])
def fetched(request: pytest.FixtureRequest) -> Fetched:
    made: Fetched = request.getfixturevalue(request.param)
    return made


def dotted(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.partition(" ")[0].split("."))


def test_it_is_what_it_says(fetched: Fetched) -> None:
    assert emulators.find(fetched.name, default_cache()) == fetched.path
    said = emulators.version(fetched.path)
    assert said == f"{fetched.version} (Debian {fetched.build})"
    assert {one.name: one.version for one in fetched.packages}["qemu-system-x86"] == fetched.build


def test_it_can_go_on_with_the_systems_guests(backports: Fetched) -> None:
    """A later version knows the machine types of an earlier one; the earlier one not the later's."""
    system = emulators.system()
    if system is None:
        pytest.skip(f"{emulators.PROGRAM} is not installed")
    here, there = emulators.machines(system), emulators.machines(backports.path)
    own = {name: dotted(name.removeprefix("pc-q35-")) for name in here if name.startswith("pc-q35-")}
    assert dotted(backports.version) > dotted(emulators.version(system))
    assert max(own, key=lambda name: own[name]) in there
    assert any(name not in here for name in there if name.startswith("pc-q35-"))


def test_a_machine_starts_with_its_own_firmware(fetched: Fetched, tmp_path: Path) -> None:
    """SeaBIOS tells its package's version on its debug port (SeaBIOS, docs/Debugging.md), the processor
    emulated and a network card's boot ROM loaded."""
    log = tmp_path / "seabios"
    machine = ["-machine", "q35", "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none"]
    port = ["-chardev", f"file,id=log,path={log}", "-device", "isa-debugcon,iobase=0x402,chardev=log"]
    argv = [str(fetched.path), *machine, *port, "-device", "virtio-net-pci"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        try:
            end = time.monotonic() + 60
            while not (log.exists() and "\n" in log.read_text(errors="replace")):
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                assert time.monotonic() < end
                time.sleep(0.05)
            running = psutil.Process(process.pid)
            assert "qemu" in running.cmdline()[0]  # how the lab knows a QEMU's process
            assert Path(running.exe()).is_relative_to(fetched.folder.resolve())
            mapped = {one.path for one in running.memory_maps() if "/libc." in one.path}
            assert all(path.startswith(str(fetched.folder)) == fetched.own_libraries for path in mapped)
            assert mapped
        finally:
            process.kill()
    banner = re.search(r"SeaBIOS \(version (\S+)\)", log.read_text(errors="replace"))
    assert banner is not None
    assert banner[1].endswith({one.name: one.version for one in fetched.packages}["seabios"])


def test_another_release_brings_its_libraries(foreign: Fetched) -> None:
    assert foreign.own_libraries
    assert "libc6" in {one.name for one in foreign.packages}


def test_the_archive_has_no_such_suite(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(MachineError) as caught:
        emulators_fetch.fetch("nosuchsuite", tmp_path, print, archive)
    if isinstance(caught.value, Unreachable):
        pytest.skip(caught.value.what)
    assert caught.value.what == "this machine's package archive has no suite nosuchsuite"
    assert [path.name for path in emulators.store(tmp_path).iterdir()] == [".lock"]
