"""Ways into a kept guest: the command lines, and a console's log. tests/guest/test_keeping.py uses them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from lab.errors import GuestGone, MachineError, UsageError
from lab.process.clock import HostClock
from lab.report.text import without_escapes
from lab.session import kept_guest_access as access
from tests.unit.kept_guest import GUEST, keep

ROOT = Path(__file__).parents[2]


def test_ssh_reads_the_options_as_they_are_meant(tmp_path: Path) -> None:
    """ssh -G prints what it would use. Names with blanks and % are the difficult ones."""
    folder = tmp_path / "a 100% folder"
    folder.mkdir()
    (folder / "key").touch()
    guest = replace(GUEST, key=str(folder / "key"), known_hosts=str(folder / "known"))
    argv = access.login(guest, [])
    assert argv[0] == "ssh"
    used = subprocess.run(["ssh", "-G", *argv[1:]], capture_output=True, text=True, check=True).stdout
    lines = set(used.splitlines())
    assert {"user root", "hostname 127.0.0.1", "port 40000", "stricthostkeychecking true"} <= lines
    assert {f"identityfile {folder}/key".replace("%", "%%"), f"userknownhostsfile {folder}/known"} <= lines
    assert "proxyjump" not in used


def test_arguments_are_a_command_or_options_of_ssh() -> None:
    assert access.login(GUEST, ["-v", "ls", "-l"])[-4:] == ["root@127.0.0.1", "-v", "ls", "-l"]


@pytest.mark.parametrize(
    ("source", "target", "places"),
    [
        ("web-0:/etc/x", ".", ["root@127.0.0.1:/etc/x", "."]),
        ("a b", "web-0:", ["a b", "root@127.0.0.1:"]),
        ("./web-0:a", "web-0:a:b", ["./web-0:a", "root@127.0.0.1:a:b"]),
        ("-x", "web-0:x", ["-x", "root@127.0.0.1:x"]),
    ],
)
def test_one_side_of_a_copy_is_in_the_guest(
    tmp_path: Path, source: str, target: str, places: list[str]
) -> None:
    keep(tmp_path)
    guest, argv = access.copy(tmp_path, source, target)
    assert guest.name == "web-0"
    assert argv[argv.index("--") + 1 :] == places
    assert argv[argv.index("-P") + 1] == "40000"


@pytest.mark.parametrize(
    ("source", "target", "why"),
    [("a", "b", "neither"), ("web-0:a", "web-0:b", "both"), ("web-7:a", "b", "no kept guest 'web-7'")],
)
def test_a_copy_that_is_none_is_refused(tmp_path: Path, source: str, target: str, why: str) -> None:
    keep(tmp_path)
    with pytest.raises(UsageError, match=why):
        access.copy(tmp_path, source, target)


def test_a_guest_that_has_ended_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(GuestGone, match="it has ended") as caught:
        access.check_running(tmp_path, keep(tmp_path))
    assert "freezelab down web-0" in caught.value.hint


def test_a_console_is_read_to_its_end(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes("one\r\ntwo €".encode() + b"\xff\nno end")
    guest = replace(GUEST, console=str(log))
    for follow in (False, True):  # the guest is gone: there is nothing to wait for
        assert list(access.console_lines(tmp_path, guest, HostClock(), follow=follow)) == [
            "one\r",
            "two €\ufffd",
            "no end",
        ]
    with pytest.raises(MachineError, match="the console cannot be read: No such file"):
        list(access.console_lines(tmp_path, GUEST, HostClock(), follow=False))


def test_a_console_is_followed_while_the_guest_is_there(tmp_path: Path) -> None:
    """Its process here is one that has the guest's name and uuid on its command line, as QEMU has."""
    log = tmp_path / "console.log"
    log.write_text("one\n")
    uuid = "3e3fce45-4f53-4fa7-bb32-11f34168b82b"
    guest = replace(GUEST, console=str(log), uuid=uuid)
    script = "import sys; print('up', flush=True); sys.stdin.read()"
    words = ["-name", f"guest={guest.domain},debug-threads=on", "-uuid", uuid]
    stand_in = subprocess.Popen(
        ["qemu-system-stand-in", "-c", script, *words],
        executable=sys.executable,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with stand_in:
        assert stand_in.stdout is not None
        stand_in.stdout.readline()
        lines = access.console_lines(tmp_path, guest, HostClock(), follow=True)
        assert next(lines) == "one"
        with log.open("a") as file:
            file.write("two\nthr")
        assert next(lines) == "two"
        with log.open("a") as file:
            file.write("ee\n")
        assert next(lines) == "three"
        threading.Timer(0.2, stand_in.communicate).start()
        assert list(lines) == []


def test_a_line_is_shown_without_what_moves_the_cursor() -> None:
    line = "\x1b[0;1;32m  OK  \x1b[0m Started \x1b]0;title\x07x\x1b(B.\r"
    shown = without_escapes(line)
    assert "\x1b" not in shown
    assert shown.startswith("  OK   Started ")
    assert without_escapes("\x1b[2J\x1b[Hplain\r") == "plain"


@pytest.mark.parametrize(
    "arguments", [("ssh", "web-9"), ("console", "web-9"), ("cp", "web-9:x", "."), ("cp", "x", "y")]
)
def test_no_such_guest_is_a_usage_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from lab.cli.entry import main; main()", *arguments],
        env={**os.environ, "FREEZELAB_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
