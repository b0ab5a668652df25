"""Lines that are drawn in place: what stays on a terminal, whatever happens to it."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from lab.report.live import StderrConsole
from lab.report.screen import SETTLING, Screen
from tests.unit.screens import ScreenFile

PATIENCE_S = 30.0
LINE = st.text("ab ", max_size=100)


def on(width: int) -> tuple[Screen, ScreenFile, Console]:
    file = ScreenFile(width)
    console = StderrConsole(
        file=file, force_terminal=True, width=width, height=20, color_system=None, _environ={"TERM": "xterm"}
    )
    return Screen(console), file, console


def texts(*lines: str) -> list[Text]:
    return [Text(line) for line in lines]


@given(st.lists(st.tuples(st.lists(LINE, max_size=6), st.lists(st.text("xy", max_size=30), max_size=2))))
def test_only_the_last_picture_and_the_notes_are_there(given: list[tuple[list[str], list[str]]]) -> None:
    screen, file, _ = on(40)
    notes: list[str] = []
    for lines, new in given:
        screen.draw(texts(*lines), new)
        notes += new
        whole = [*notes, *(line[:39].rstrip() for line in lines)]
        while whole and not whole[-1]:
            whole.pop()
        assert file.shown() == whole
    screen.erase(["the end"])
    assert file.shown() == [*notes, "the end"]


def test_a_picture_is_one_write_and_the_same_one_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, file, _ = on(40)
    writes: list[str] = []
    monkeypatch.setattr(file, "write", writes.append)
    for number in range(3):
        screen.draw(texts("a", f"b {number}"))
        screen.draw(texts("a", f"b {number}"))
    assert len([text for text in writes if text]) == 3
    assert not any("\x1b[2K" in text for text in writes), "no line is emptied before it is written"


def test_a_terminal_that_has_become_narrower_has_no_left_overs() -> None:
    screen, file, console = on(80)
    screen.draw(texts("x" * 79, "y" * 20, "z" * 79, "last"), ["a note"])
    file.narrow(50)
    console.width = 50
    for _ in range(SETTLING):
        screen.draw(texts("new", "lines"), ["another"])
    assert file.shown() == ["a note", *["another"] * SETTLING, "new", "lines"]
    screen.erase()
    assert file.shown() == ["a note", *["another"] * SETTLING]


def test_what_a_terminal_echoes_moves_nothing() -> None:
    screen, file, _ = on(20)
    screen.draw(texts("x" * 19, "y" * 19))
    file.write("^C")
    screen.draw(texts("x" * 19, "z" * 19))
    assert file.shown() == ["x" * 19, "z" * 19]


PROGRAM = """
import sys, time
from lab.process.clock import HostClock
from lab.report.live import view
with view(HostClock(), ["web-0"]) as v:
    v.progress("watching the clocks", 0.5)  # two lines
    end = time.monotonic() + 60
    while time.monotonic() < end and sys.stdin.readline() != "end\\n":
        pass
sys.exit(3)
"""


def read_until(fd: int, text: bytes, so_far: bytes = b"") -> bytes:
    end = time.monotonic() + PATIENCE_S
    while text not in so_far:
        assert time.monotonic() < end, so_far[-300:]
        so_far += os.read(fd, 4096)
    return so_far


@pytest.mark.parametrize("how", [signal.SIGTSTP, signal.SIGSTOP])
def test_stopped_and_continued(tmp_path: Path, how: signal.Signals) -> None:
    """SIGTSTP erases the display; after either of them it is drawn anew where the cursor is."""
    program = tmp_path / "view.py"
    program.write_text(PROGRAM)
    ours, theirs = pty.openpty()
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, program],
        stdin=subprocess.PIPE, stderr=theirs, env=env | {"LANG": "C.UTF-8"},
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        read_until(ours, b"watching the clocks")
        process.send_signal(how)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        if how is signal.SIGTSTP:
            os.set_blocking(ours, False)
            said = b""
            while True:
                try:
                    said += os.read(ours, 4096)
                except BlockingIOError:
                    break
            os.set_blocking(ours, True)
            assert said.endswith(b"\r\x1b[1A\x1b[J"), said[-80:]
        process.send_signal(signal.SIGCONT)
        again = read_until(ours, b"watching the clocks")
        if how is signal.SIGTSTP:
            assert not re.search(rb"\x1b\[\d*A", again.split(b"image ")[0]), "it is drawn where the cursor is"
            while again.count(b"watching the clocks") < 5:
                again = read_until(ours, b"watching the clocks", again + os.read(ours, 4096))
            screen = ScreenFile(80)
            screen.write(re.sub(r"\x1b\[[\d;]*m", "", again.decode(errors="ignore")))
            assert "\n".join(screen.shown()).count("watching the clocks") == 1, "a picture is left above"
        process.communicate(b"end\n", timeout=PATIENCE_S)
        assert process.returncode == 3
    finally:
        process.kill()
        process.wait()
        os.close(ours)
