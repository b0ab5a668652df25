"""Which emulators are here and whether they work, and where apt would get another: real programs, real apt
source files. The fetch from an archive of our own is in test_emulators_fetch.py."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab.errors import MachineError, UsageError
from lab.host import emulators
from lab.host.emulators import Fetched, Package
from lab.host.emulators_sources import Archive, SourceEntry, read_archive, read_entries

GREETING = '{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}}, "capabilities": []}}'
MACHINES = '{"return": [{"name": "pc-q35-10.0", "alias": "q35"}, {"name": "none"}]}'
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulators, "_ANSWER_S", 0.5)


def stored(cache: Path, name: str, version: str, fetched: str = "2026-01-01T00:00:00+00:00") -> Fetched:
    folder = emulators.store(cache) / f"{name}-{version}"
    folder.mkdir(parents=True)
    script(folder / emulators.PROGRAM, f"echo QEMU emulator version {version}")
    packages = (Package("qemu-system-x86", version, "0" * 64, 7),)
    made = Fetched(folder, name, f"sid-{name}", version, version, 4096, fetched, False, packages)
    (folder / emulators.MANIFEST).write_text(made.to_json())
    return made


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        (
            "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)",
            "10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)",
        ),
        ("QEMU emulator version 9.1.50", "9.1.50"),
        ("warning: something\nQEMU emulator version 8.2.0 (v8.2.0-dirty)", "8.2.0 (v8.2.0-dirty)"),
    ],
)
def test_version(tmp_path: Path, printed: str, version: str) -> None:
    path = script(tmp_path / "qemu", f"cat <<'END'\n{printed}\nCopyright\nEND")
    assert emulators.version(path) == version


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("echo Hello; echo world", "is no QEMU: --version printed 'Hello'"),
        ("head -c 300000 /dev/zero | tr '\\0' '\\377'", "is no QEMU: --version printed '\ufffd"),
        ("exit 0", "is no QEMU: --version printed nothing"),
        ("echo libfoo.so.1: not found >&2; exit 127", "exit status 127: libfoo.so.1: not found"),
        ("kill -SEGV $$", "ended by SIGSEGV"),
    ],
)
def test_no_version(tmp_path: Path, text: str, why: str) -> None:
    path = script(tmp_path / "qemu", text)
    with pytest.raises(MachineError) as caught:
        emulators.version(path)
    assert why in caught.value.what
    assert caught.value.where == str(path)
    assert "\n" not in caught.value.what
    assert len(caught.value.what) < 300


@pytest.mark.parametrize("ask", [emulators.version, emulators.machines])
def test_an_emulator_that_hangs(tmp_path: Path, impatient: None, ask: object) -> None:
    path = script(tmp_path / "qemu", "trap '' TERM; while :; do sleep 1; done")
    assert callable(ask)
    with pytest.raises(MachineError, match="still running after"):
        ask(path)


@pytest.mark.parametrize("ask", [emulators.version, emulators.machines])
def test_what_cannot_be_started(tmp_path: Path, ask: object) -> None:
    assert callable(ask)
    cases = {
        "missing": "no such emulator: No such file or directory",
        "folder": "not a file",
        "plain": "not executable",
        "foreign": "Exec format error",
    }
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    (tmp_path / "foreign").write_bytes(b"\x7fELF" + bytes(200))
    (tmp_path / "foreign").chmod(0o755)
    for name, why in cases.items():
        if name == "foreign" and ask is emulators.machines:
            why = "does not answer to QMP"  # the shell that opens its input says it
        with pytest.raises(MachineError) as caught:
            ask(tmp_path / name)
        assert why in caught.value.what
        assert caught.value.where == str(tmp_path / name)
        assert "\n" not in caught.value.what


def test_machines_of_a_stand_in(tmp_path: Path) -> None:
    """It answers line by line, as QEMU does, with an event in between."""
    event = '{"event": "SHUTDOWN", "data": {}}'
    lines = [GREETING, '{"return": {}}', '{"return": []}', event, MACHINES]
    answers = "\n".join(lines)
    path = script(
        tmp_path / "qemu",
        f"cat > {tmp_path}/asked; echo \"$@\" > {tmp_path}/argv; cat <<'END'\n{answers}\nEND",
    )
    assert emulators.machines(path) == {"pc-q35-10.0", "q35", "none"}
    asked = [json.loads(line)["execute"] for line in (tmp_path / "asked").read_text().splitlines()]
    assert asked == ["qmp_capabilities", "qom-list-types", "query-machines", "quit"]
    assert (tmp_path / "argv").read_text() == "-machine none -nodefaults -display none -qmp stdio\n"


@pytest.mark.parametrize(
    "answers",
    [
        ["Hello"],
        [GREETING],
        [GREETING, '{"return": {}}', '{"error": {"class": "GenericError", "desc": "no"}}'],
        [GREETING, '{"return": {}}', '{"return": []}', '{"return": {"name": "q35"}}'],
        [GREETING, '{"return": {}}', '{"return": []}', '{"return": ["q35"]}'],
        [GREETING, '{"return": {}}', '{"return": []}', MACHINES[:-4]],
        ["[]", "7", "null", '{"return"}'],
    ],
)
def test_no_machines(tmp_path: Path, answers: list[str]) -> None:
    path = script(tmp_path / "qemu", "cat >/dev/null; cat <<'END'\n" + "\n".join(answers) + "\nEND")
    with pytest.raises(MachineError, match="is no QEMU: to QMP it answered"):
        emulators.machines(path)


def test_one_that_dies_over_a_module(tmp_path: Path) -> None:
    path = script(
        tmp_path / "qemu", f"echo '{GREETING}'; echo 'Only modules from the same build' >&2; kill -ABRT $$"
    )
    with pytest.raises(MachineError, match="ended by SIGABRT: Only modules from the same build"):
        emulators.machines(path)


def test_the_systems_own() -> None:
    path = emulators.system()
    if path is None:
        pytest.skip(f"{emulators.PROGRAM} is not installed")
    assert emulators.version(path)[0].isdigit()
    known = emulators.machines(path)
    assert {"q35", "pc", "none"} <= known
    assert any(name.startswith("pc-q35-") for name in known)


def test_find_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = script(tmp_path / "qemu", "exit 1")
    assert emulators.find(str(path), tmp_path) == path
    monkeypatch.chdir(tmp_path)
    assert emulators.find("./qemu", tmp_path) == path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert emulators.find("~/qemu", tmp_path) == path
    path.chmod(0o644)
    with pytest.raises(MachineError, match="not executable"):
        emulators.find(str(path), tmp_path)
    with pytest.raises(MachineError, match="no such emulator"):
        emulators.find("/no/such/qemu", tmp_path)


def test_find_by_name_takes_the_newest(tmp_path: Path) -> None:
    stored(tmp_path, "backports", "9.2.0")
    newest = stored(tmp_path, "backports", "10.0.2")
    other = stored(tmp_path, "trixie", "11.0.0")
    assert emulators.find("backports", tmp_path) == newest.path
    assert emulators.find("sid-backports", tmp_path) == newest.path
    assert emulators.find("backports-9.2.0", tmp_path).parent.name == "backports-9.2.0"
    assert emulators.find("trixie", tmp_path) == other.path
    assert [one.version for one in emulators.listing(tmp_path)] == ["9.2.0", "10.0.2", "11.0.0"]


def test_a_rebuild_of_the_same_version_is_newer(tmp_path: Path) -> None:
    first = stored(tmp_path, "backports", "10.0.2", "2026-01-01T00:00:00+00:00")
    second = first.folder.with_name("backports-10.0.2+deb13u1")
    shutil.copytree(first.folder, second)
    manifest = json.loads((second / emulators.MANIFEST).read_text())
    (second / emulators.MANIFEST).write_text(json.dumps({**manifest, "fetched": "2026-02-01T00:00:00+00:00"}))
    assert emulators.find("backports", tmp_path).parent == second


def test_what_is_not_fetched(tmp_path: Path) -> None:
    stored(tmp_path, "trixie", "10.0.2")
    with pytest.raises(MachineError) as caught:
        emulators.find("backports", tmp_path)
    assert "freezelab emulator fetch backports" in caught.value.hint


def test_a_folder_that_is_no_emulator(tmp_path: Path) -> None:
    good = stored(tmp_path, "good", "1.2.3")
    assert emulators.load(good.folder) == good
    for name, text in {
        "cut": good.to_json()[:40],
        "list": "[]",
        "empty": "{}",
        "odd": '{"packages": 7}',
    }.items():
        folder = emulators.store(tmp_path) / name
        folder.mkdir()
        (folder / emulators.MANIFEST).write_text(text)
        with pytest.raises(MachineError, match="not an emulator of the lab"):
            emulators.load(folder)
    half = stored(tmp_path, "half", "1.2.3")
    half.path.unlink()
    with pytest.raises(MachineError, match="is missing"):
        emulators.load(half.folder)
    assert emulators.listing(tmp_path) == [good]


def test_the_command(tmp_path: Path) -> None:
    made = stored(tmp_path, "lab", "7.0.1")
    system = emulators.system()

    def emulator(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "lab.cli.main", "emulator", *arguments]
        env = {**os.environ, "FREEZELAB_CACHE": str(tmp_path)}
        root = Path(__file__).parents[2]
        return subprocess.run(argv, capture_output=True, text=True, cwd=root, env=env, check=False)

    heads, first, second = (re.split(" {2,}", line) for line in emulator("list").stdout.splitlines())
    assert heads == ["emulator", "version", "size", "fetched", "path"]
    assert first == (
        ["system", emulators.version(system), str(system)] if system else ["system", "not installed"]
    )
    assert second == ["lab", "7.0.1 (7.0.1)", "0 B", made.fetched[:10], str(made.path)]
    assert emulator("remove", "lab").stdout == "removed lab-7.0.1\n"
    again = emulator("remove", "lab")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == "freezelab: no fetched emulator named 'lab'\nknown: none\n"


# Where apt would get it from


def machine(
    folder: Path, files: dict[str, str], release: str = "ID=debian\nVERSION_CODENAME=bookworm\n"
) -> Archive:
    for name, text in files.items():
        path = folder / "apt" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "os-release").write_text(release)
    return read_archive(folder / "apt", folder / "os-release")


DEB822 = f"""\
# see sources.list(5)
Types: deb deb-src
# a comment inside
URIs: http://mirror.example/debian
  http://second.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: {KEYS}

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: {KEYS}
"""


def test_deb822(tmp_path: Path) -> None:
    archive = machine(tmp_path, {"sources.list.d/debian.sources": DEB822})
    assert archive.stanza(archive.suite("backports")) == (
        "Types: deb\n"
        "URIs: http://mirror.example/debian http://second.example/debian\n"
        "Suites: bookworm-backports\n"
        "Components: main\n"
        f"Signed-By: {KEYS}\n"
    )
    assert len(archive.entries) == 2


def test_one_line(tmp_path: Path) -> None:
    text = f"""\
# deb http://old.example/debian bookworm main
deb cdrom:[Debian 12]/ bookworm main
deb-src http://mirror.example/debian bookworm main
deb [ arch=amd64,i386 signed-by={KEYS} trusted=yes ] https://mirror.example/debian/ bookworm main # why
deb http://flat.example ./
"""
    archive = machine(tmp_path, {"sources.list": text})
    assert archive.entries == (
        SourceEntry(("https://mirror.example/debian/",), ("bookworm",), ("main",), KEYS, "amd64 i386"),
    )
    assert "trusted" not in archive.stanza("trixie").lower()
    assert "Suites: trixie\n" in archive.stanza("trixie")


def test_a_key_inside_the_entry_is_kept(tmp_path: Path) -> None:
    key = " -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEAAAA\n -----END PGP PUBLIC KEY BLOCK-----"
    text = (
        f"Types: deb\nURIs: http://m.example/debian\nSuites: bookworm\nComponents: main\nSigned-By:\n{key}\n"
    )
    archive = machine(tmp_path, {"sources.list.d/debian.sources": text})
    written = tmp_path / "again" / "sources.list.d" / "lab.sources"
    written.parent.mkdir(parents=True)
    written.write_text(archive.stanza("trixie"))
    (again,) = read_entries(tmp_path / "again")
    assert again.signed_by == archive.main.signed_by
    assert key in written.read_text()


def test_only_enabled_entries_of_files_that_apt_reads(tmp_path: Path) -> None:
    off = DEB822.replace("Types: deb\n", "Enabled: no\nTypes: deb\n").replace(
        "Types: deb deb", "Enabled: No\nTypes: deb deb"
    )
    files = {
        "sources.list.d/a.sources": off,
        "sources.list.d/b.sources.bak": DEB822,
        "sources.list.d/c.list.disabled": "deb http://x.example/debian bookworm main\n",
    }
    with pytest.raises(MachineError, match="no entry for bookworm's component main") as caught:
        machine(tmp_path, files)
    assert "/path/to/qemu-system-x86_64" in caught.value.hint


def test_others_with_a_suite_of_the_same_name_do_not_win(tmp_path: Path) -> None:
    files = {
        "sources.list.d/a-vendor.list": "deb [signed-by=/v.gpg] https://vendor.example/apt bookworm main\n",
        "sources.list.d/debian.sources": DEB822,
    }
    assert "mirror.example" in machine(tmp_path, files).main.uris[0]


def test_an_own_entry_for_the_suite_is_used(tmp_path: Path) -> None:
    files = {
        "sources.list.d/debian.sources": DEB822,
        "sources.list.d/z.list": "deb http://backports.example/debian bookworm-backports main\n",
    }
    archive = machine(tmp_path, files)
    assert "backports.example" in archive.stanza("bookworm-backports")
    assert "mirror.example" in archive.stanza("trixie")


def test_a_moving_suite(tmp_path: Path) -> None:
    archive = machine(tmp_path, {"sources.list": "deb http://mirror.example/debian stable main\n"})
    assert "Suites: bookworm-backports\n" in archive.stanza(archive.suite("backports"))
    assert archive.base("bookworm-backports") == "bookworm"
    assert archive.base("trixie") == "trixie"


@pytest.mark.parametrize("name", ["", "Trixie", "../x", "a b", "a\nb", "-t", ".", "x/y", "trixie;id", "ä"])
def test_what_no_suite_is_called(tmp_path: Path, name: str) -> None:
    archive = machine(tmp_path, {"sources.list": "deb http://mirror.example/debian bookworm main\n"})
    with pytest.raises(UsageError, match="cannot be the name of a suite"):
        archive.suite(name)


def test_other_distributions_are_refused(tmp_path: Path) -> None:
    files = {"sources.list": "deb http://mirror.example/debian bookworm main\n"}
    with pytest.raises(MachineError, match="on Debian only; this is Fedora Linux 42") as caught:
        machine(tmp_path, files, 'ID=fedora\nPRETTY_NAME="Fedora Linux 42"\n')
    assert "emulator: /path/to" in caught.value.hint
    with pytest.raises(MachineError, match="no codename"):
        machine(tmp_path, files, "ID=debian\n")
    with pytest.raises(MachineError, match="this system"):
        read_archive(tmp_path / "apt", tmp_path / "no-such-file")
