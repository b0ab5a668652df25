"""A fetch from an archive that the test makes: real apt, dpkg and signatures, and the system's own QEMU
packed again as what the archive offers. Nothing leaves the machine. The real archive is in tests/host."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lab.errors import MachineError, UsageError
from lab.host import emulators, emulators_fetch
from lab.host.emulators_sources import Archive, SourceEntry
from tests.unit.package_archive import Mirror, make_key

SYSTEM = emulators.system()
TOOLS = ("apt-get", "dpkg-deb", "gpg", "ldd")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None] + ([] if SYSTEM else [emulators.PROGRAM])
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def short() -> Iterator[Path]:
    """A folder with a short path, for gpg-agent's socket; open to apt's own user."""
    path = Path(tempfile.mkdtemp(prefix="fl-"))
    path.chmod(0o755)
    yield path
    for home in ("k", "o"):
        subprocess.run(["gpgconf", "--homedir", str(path / home), "--kill", "all"], check=False)
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def keys(short: Path) -> tuple[Path, Path]:
    """The archive's key, and somebody else's."""
    return make_key(short / "k", "archive"), make_key(short / "o", "other")


@pytest.fixture(scope="module")
def workshop(short: Path, keys: tuple[Path, Path]) -> Mirror:
    (short / "built").mkdir()
    return Mirror(short / "mirror", keys[0], short / "k", short / "built")


@pytest.fixture
def mirror(workshop: Mirror) -> Mirror:
    """It offers the system's own QEMU, properly signed."""
    workshop.publish("1:7.0+lab-1~x1", genuine())
    return workshop


def genuine() -> Path:
    assert SYSTEM is not None
    return SYSTEM.resolve()


def left(cache: Path) -> list[str]:
    return sorted(path.name for path in emulators.store(cache).iterdir())


def test_fetched_proven_and_found(mirror: Mirror, tmp_path: Path) -> None:
    said: list[str] = []
    made = emulators_fetch.fetch("lab", tmp_path, said.append, mirror.archive())
    assert (made.name, made.suite, made.build) == ("lab", "lab", "1:7.0+lab-1~x1")
    assert made.label == "lab-7.0+lab-1-x1"
    assert left(tmp_path) == [".lock", made.label]
    assert sorted(path.name for path in made.folder.iterdir()) == [
        emulators.MANIFEST,
        emulators.PROGRAM,
        "root",
    ]
    assert emulators.find("lab", tmp_path) == made.path
    assert emulators.version(made.path) == emulators.version(genuine())
    assert emulators.machines(made.path) == emulators.machines(genuine())
    assert emulators.load(made.folder) == made
    debs = {path.name.partition("_")[0]: path for path in (mirror.folder / "pool").iterdir()}
    assert {one.name for one in made.packages} == set(debs)  # the recommended one of its own version too
    for one in made.packages:
        assert one.sha256 == hashlib.sha256(debs[one.name].read_bytes()).hexdigest()
        assert one.size_bytes == debs[one.name].stat().st_size
    total = sum(one.size_bytes for one in made.packages)
    assert f"downloading 5 packages, {total / 1e6:.0f} MB" in said
    assert not made.own_libraries


def test_it_uses_its_own_modules_and_firmware(mirror: Mirror, tmp_path: Path) -> None:
    """Through a link, as somebody may start it."""
    made = emulators_fetch.fetch("lab", tmp_path, print, mirror.archive())
    link = tmp_path / "my-qemu"
    link.symlink_to(made.path)
    said = subprocess.run([link, "-L", "help"], capture_output=True, text=True, check=True).stdout
    own = [line for line in said.splitlines() if line.startswith(str(tmp_path))]
    assert own[:2] == [f"{made.folder}/root/usr/share/seabios", f"{made.folder}/root/usr/share/qemu"]
    for module in (made.folder / "root").glob("usr/lib/*/qemu/*.so"):
        module.write_bytes(b"not a module")
    asked = ["-machine", "none", "-nodefaults", "-display", "none", "-device", "help"]
    noise = subprocess.run([made.path, *asked], capture_output=True, text=True, check=False).stderr
    tried = re.findall(r"(/\S+\.so)\b", noise)
    assert tried
    assert all(path.startswith(f"{made.folder}/root/") for path in tried)


def test_a_cache_of_any_name(mirror: Mirror, tmp_path: Path) -> None:
    made = emulators_fetch.fetch("lab", tmp_path / "ü, it's 100%", print, mirror.archive())
    assert emulators.find("lab", tmp_path / "ü, it's 100%") == made.path
    with pytest.raises(MachineError, match="apt takes no folder with a colon") as caught:
        emulators_fetch.fetch("lab", tmp_path / "a:b", print, mirror.archive())
    assert "FREEZELAB_CACHE" in caught.value.hint


def test_twice_is_once_and_newer_is_another(mirror: Mirror, tmp_path: Path) -> None:
    first = emulators_fetch.fetch("lab", tmp_path, print, mirror.archive())
    said: list[str] = []
    assert emulators_fetch.fetch("lab", tmp_path, said.append, mirror.archive()) == first
    assert not any("downloading" in line for line in said)
    assert said[-1] == f"{first.label} is the newest, and here already"
    mirror.publish("1:7.0+lab-2", genuine())
    second = emulators_fetch.fetch("lab", tmp_path, print, mirror.archive())
    assert left(tmp_path) == [".lock", first.label, second.label]


def test_the_system_notices_nothing(mirror: Mirror, tmp_path: Path) -> None:
    """Not its lists, not its caches, and none of its hooks."""
    watched = [Path(path) for path in ("/var/lib/apt/lists", "/var/cache/apt", "/var/lib/dpkg/status")]
    before = [path.stat().st_mtime_ns for path in watched if path.exists()]
    hook, marker = tmp_path / "hook.conf", tmp_path / "hooked"
    hook.write_text(
        f'APT::Update::Post-Invoke {{"touch {marker}";}};\nAPT::Update::Pre-Invoke {{"touch {marker}";}};\n'
    )
    os.environ["APT_CONFIG"] = str(hook)
    try:
        emulators_fetch.fetch("lab", tmp_path, print, mirror.archive())
    finally:
        del os.environ["APT_CONFIG"]
    assert [path.stat().st_mtime_ns for path in watched if path.exists()] == before
    assert not marker.exists()


@pytest.mark.parametrize(
    "careless", ["", "APT::Get::AllowUnauthenticated", "Acquire::AllowInsecureRepositories"]
)
def test_unsigned_is_refused_whatever_the_machine_allows(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, careless: str
) -> None:
    if careless:
        (tmp_path / "apt.conf").write_text(f'{careless} "true";\n')
        monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    mirror.publish("1:7.0", genuine(), signed=False)
    with pytest.raises(MachineError, match="the signature of lab cannot be checked"):
        emulators_fetch.fetch("lab", tmp_path, print, mirror.archive())
    assert left(tmp_path) == [".lock"]


def test_another_key_is_refused(mirror: Mirror, keys: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="the signature of lab cannot be checked"):
        emulators_fetch.fetch("lab", tmp_path, print, mirror.archive(keys[1]))
    assert left(tmp_path) == [".lock"]


def test_a_package_that_was_changed_is_refused(mirror: Mirror, tmp_path: Path) -> None:
    (deb,) = (mirror.folder / "pool").glob("seabios_*")
    content = bytearray(deb.read_bytes())
    content[-1] ^= 1
    deb.unlink()  # it is a link
    deb.write_bytes(content)
    with pytest.raises(MachineError, match=r"apt-get failed for lab: .*(?i:hash sum mismatch|fetch)"):
        emulators_fetch.fetch("lab", tmp_path, print, mirror.archive())
    assert left(tmp_path) == [".lock"]


def test_one_that_does_not_work_is_not_kept(mirror: Mirror, tmp_path: Path) -> None:
    mirror.publish("1:7.0", Path("/bin/true"))
    with pytest.raises(MachineError, match="is no QEMU: --version printed"):
        emulators_fetch.fetch("lab", tmp_path, print, mirror.archive())
    assert left(tmp_path) == [".lock"]


@pytest.mark.parametrize(
    ("leave_out", "why"), [("qemu-system-x86", "lab has no qemu-system-x86"), ("seabios", "seabios")]
)
def test_a_suite_without_it(mirror: Mirror, tmp_path: Path, leave_out: str, why: str) -> None:
    mirror.publish("1:7.0", genuine(), leave_out=leave_out)
    with pytest.raises(MachineError, match=why):
        emulators_fetch.fetch("lab", tmp_path, print, mirror.archive())
    assert left(tmp_path) == [".lock"]


def test_no_such_suite(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="this machine's package archive has no suite nosuch"):
        emulators_fetch.fetch("nosuch", tmp_path, print, mirror.archive())
    assert left(tmp_path) == [".lock"]


def test_offline(mirror: Mirror, tmp_path: Path) -> None:
    """A port of this machine where nobody listens."""
    entry = SourceEntry(("http://127.0.0.1:9/debian",), ("lab",), ("main",), str(mirror.key))
    offline = Archive("lab", entry, (entry,))
    with pytest.raises(MachineError, match="does not answer for lab"):
        emulators_fetch.fetch("lab", tmp_path, print, offline)
    made = emulators_fetch.fetch("lab", tmp_path, print, mirror.archive())
    said: list[str] = []
    assert emulators_fetch.fetch("lab", tmp_path, said.append, offline) == made
    assert "does not answer" in said[-1]


def test_a_cache_that_cannot_be_written(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot be written") as caught:
        emulators_fetch.fetch("lab", tmp_path / "file", print, mirror.archive())
    assert "FREEZELAB_CACHE" in caught.value.hint


FETCHER = """
import sys, signal
from pathlib import Path
from lab.process.signals import Signals
from lab.errors import Interrupted
from lab.host import emulators_fetch
from lab.host.emulators_sources import Archive, SourceEntry
entry = SourceEntry((sys.argv[1],), ("lab",), ("main",), sys.argv[2])
with Signals():
    try:
        made = emulators_fetch.fetch("lab", Path(sys.argv[3]), lambda text: print(text, flush=True),
                                     Archive("lab", entry, (entry,)))
    except Interrupted:
        sys.exit(130)
print("have", made.label, flush=True)
"""


def fetcher(mirror: Mirror, cache: Path) -> subprocess.Popen[str]:
    argv = [
        sys.executable,
        "-c",
        textwrap.dedent(FETCHER),
        f"file:{mirror.folder}",
        str(mirror.key),
        str(cache),
    ]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_several_at_once_fetch_once(mirror: Mirror, tmp_path: Path) -> None:
    running = [fetcher(mirror, tmp_path) for _ in range(3)]
    said = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert sum("downloading" in text for text in said) == 1
    assert len({text.splitlines()[-1] for text in said}) == 1
    assert len(left(tmp_path)) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_fetch_leaves_nothing(mirror: Mirror, tmp_path: Path, number: signal.Signals) -> None:
    process = fetcher(mirror, tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if "downloading" in line:
            break
    process.send_signal(number)
    rest = process.communicate(timeout=60)[0]
    assert "have" not in rest
    assert not any(name.startswith("lab-") for name in left(tmp_path))
    if number is signal.SIGKILL:
        assert any(name.startswith(".fetch-") for name in left(tmp_path))
        with pytest.raises(UsageError, match="no fetched emulator"):
            emulators_fetch.remove("lab", tmp_path)  # touches nothing that is not there
        emulators_fetch.fetch("lab", tmp_path, print, mirror.archive())
        assert len(left(tmp_path)) == 2
    else:
        assert process.returncode == 130
        assert left(tmp_path) == [".lock"]
    # apt is told of its parent's death by the kernel, and then has to die itself.
    working = [one for one in psutil.process_iter(["cwd"]) if str(tmp_path) in (one.info["cwd"] or "")]
    assert not psutil.wait_procs(working, 30)[1]


def test_remove(mirror: Mirror, tmp_path: Path) -> None:
    made = emulators_fetch.fetch("lab", tmp_path, print, mirror.archive())
    user = subprocess.Popen([made.path, "-machine", "none", "-nodefaults", "-display", "none", "-S"])
    try:
        end = time.monotonic() + 30
        while emulators.PROGRAM not in psutil.Process(user.pid).exe():
            assert time.monotonic() < end
            time.sleep(0.01)
        with pytest.raises(MachineError, match=f"in use by process {user.pid}"):
            emulators_fetch.remove("lab", tmp_path)
    finally:
        user.kill()
        user.wait()
    assert emulators_fetch.remove("lab", tmp_path) == [made]
    assert left(tmp_path) == [".lock"]
    with pytest.raises(UsageError, match="no fetched emulator named 'lab'"):
        emulators_fetch.remove("lab", tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_no_root_is_needed(mirror: Mirror, short: Path) -> None:
    cache = short / "nobody"
    cache.mkdir()
    os.chown(cache, 65534, 65534)
    fall = "import os\nos.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    program = FETCHER.replace("entry = ", f"{fall}entry = ", 1)
    argv = [sys.executable, "-c", program, f"file:{mirror.folder}", str(mirror.key), str(cache)]
    said = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)
    assert said.stdout.splitlines()[-1:] == ["have lab-7.0+lab-1-x1"], said.stdout + said.stderr
    (made,) = emulators.listing(cache)
    assert made.path.stat().st_uid == 65534
