"""The views: they show what happens, and nothing that happens waits for them."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from lab import ports
from lab.core.clock import Stamp
from lab.core.units import NS_PER_S
from lab.errors import Interrupted
from lab.ports import NullView
from lab.report import live
from lab.report.live import LiveView, PlainView, StderrConsole

PATIENCE_S = 30.0
CURSOR = "\x1b[?25"  # hides it or shows it


class FakeClock:
    """Stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.raw_ns = 1000 * NS_PER_S

    def now(self) -> Stamp:
        return Stamp(self.raw_ns, self.raw_ns)

    def sleep_until(self, raw_ns: int) -> None:
        self.raw_ns = max(self.raw_ns, raw_ns)


class Terminal(io.StringIO):
    """Takes what is written, or blocks it for as long as `held` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.open.set()
        self.waiting = threading.Event()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not self.open.is_set():
            self.waiting.set()
            self.open.wait(PATIENCE_S)
        return super().write(text)


def console(file: io.StringIO, tty: bool = True, width: int = 80) -> Console:
    return StderrConsole(
        file=file, force_terminal=tty, width=width, color_system=None, _environ={"TERM": "xterm"}
    )


def wait_for(file: io.StringIO, text: str) -> None:
    """Wait until `text` was shown."""
    end = time.monotonic() + PATIENCE_S
    while text not in file.getvalue():
        assert time.monotonic() < end, file.getvalue()[-300:]
        time.sleep(0.01)


def everything(view: NullView, clock: FakeClock) -> None:
    """All that can be told to a view."""
    view.progress("downloading packages", 0.1)
    view.phase("boot", guest="web-0")
    view.note("KVM opens here but boots no guest")
    view.cycle(1, 3)
    for name in ("settle", "measure", "freeze"):
        view.phase(name, length_ns=NS_PER_S)
    view.frozen(clock.raw_ns, 30 * NS_PER_S)
    view.resumed()
    view.phase("watch", length_ns=8 * NS_PER_S)
    for number in range(1, 21):
        for name in ("web", "db", "cache", "queue", "mail", "auth", "a set with quite a long name"):
            view.domain(f"{name} UD {number - 1}", "waiting", number=number, of=20)
    for state in ("announced", "started", "frozen", "resyncing", "gate", "done"):
        for name in ("web", "db"):
            view.domain(f"{name} UD 0", state, number=1, of=20)


@pytest.mark.parametrize("kind", [LiveView, PlainView])
def test_a_stopped_terminal_holds_nobody_up(
    kind: Callable[..., NullView], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "GRACE_S", 0.2)
    clock, file = FakeClock(), Terminal()
    view = kind(clock, console(file), ["web-0"])
    told = threading.Event()

    def controller() -> None:
        with view:
            view.phase("measure")
            file.open.clear()
            view.note("something to write")
            assert file.waiting.wait(PATIENCE_S), "the view never drew"
            for _ in range(1000):
                everything(view, clock)
        told.set()

    thread = threading.Thread(target=controller, daemon=True)
    try:
        thread.start()
        thread.join(PATIENCE_S)
        assert told.is_set(), "the controller waits for the terminal"
    finally:
        file.open.set()
    wait_for(file, "something to write")


@contextmanager
def shown(width: int = 80) -> Iterator[tuple[LiveView, FakeClock, Terminal]]:
    clock, file = FakeClock(), Terminal()
    with LiveView(clock, console(file, width=width), ["web-0", "web-1"]) as view:
        yield view, clock, file


def test_live_shows_the_phase_and_the_time() -> None:
    with shown(100) as (view, clock, file):
        view.cycle(2, 20)
        view.phase("measure", length_ns=4 * NS_PER_S)
        clock.raw_ns += 2_100_000_000
        wait_for(file, "cycle 2 of 20 · web-0, web-1 · measuring offset and drift")
        wait_for(file, "2.1 s of 4 s")


def test_live_shows_the_budget() -> None:
    with shown() as (view, clock, file):
        view.phase("freeze")
        view.frozen(clock.raw_ns, 30 * NS_PER_S)
        view.phase("patch")
        clock.raw_ns += 5_200_000_000
        wait_for(file, "5.2 s used, 24.8 s left")
        clock.raw_ns += 25 * NS_PER_S
        wait_for(file, "30.2 s used, 0.2 s OVER")


def test_live_shows_how_far_an_image_is() -> None:
    with shown() as (view, _, file):
        view.progress("installing packages", 0.4)
        wait_for(file, "installing packages")
        wait_for(file, "40%")
        view.progress("waiting for another build of debian", None)
        wait_for(file, "waiting for another build of debian")


def test_live_shows_the_wave_at_hand() -> None:
    with shown(70) as (view, clock, file):
        for number in range(1, 5):
            view.domain(f"web UD {number - 1}", "waiting", number=number, of=4)
        view.domain("web UD 0", "done", number=1, of=4)
        view.domain("web UD 1", "resyncing", number=2, of=4)
        clock.raw_ns += 2_100_000_000
        wait_for(file, "wave 2 of 4, 1 done")
        wait_for(file, "  web UD 1     resyncing" + " " * 40 + "2.1 s")
        assert "web UD 2" not in file.getvalue()
        for name in "abcdefg":
            view.domain(f"{name} UD 1", "gate", number=2, of=4)
        wait_for(file, "and 4 more: 4 gate")


def test_a_note_stays_and_is_only_text() -> None:
    with shown() as (view, _, file):
        view.phase("boot", guest="[red]web[/red]\x1b[31m")
        view.note("[bold]one\x1b[31m\ntwo")
        wait_for(file, "[red]web[/red][31m · booting")
    assert "[bold]one[31m\x1b[K\n" in file.getvalue()
    assert "two\x1b[K\n" in file.getvalue()


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
def test_live_fits(width: int) -> None:
    with shown(width) as (view, clock, file):
        everything(view, clock)
        view.phase("a phase with quite a long name", guest="g" * 60, length_ns=1)
        view.frozen(clock.raw_ns, NS_PER_S)
        wait_for(file, "budget")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    assert all(
        len(part) <= width for line in text.splitlines() for part in line.split("\r") if "KVM" not in part
    )


@pytest.mark.parametrize("error", [None, Interrupted("SIGINT"), KeyboardInterrupt(), ValueError("a bug")])
def test_the_terminal_is_left_as_it_was(error: BaseException | None) -> None:
    clock, file = FakeClock(), Terminal()
    with (
        pytest.raises(type(error)) if error is not None else contextlib.nullcontext(),
        LiveView(clock, console(file)) as view,
    ):
        view.phase("watch")
        wait_for(file, "watching")
        if error is not None:
            raise error
    assert CURSOR not in file.getvalue()
    assert file.getvalue().endswith("\r\x1b[J"), "the display is taken away"


def test_plain_lines() -> None:
    clock, file = FakeClock(), io.StringIO()
    with PlainView(clock, console(file, tty=False)) as view:
        view.progress("downloading packages", 0.1)
        view.progress("downloading packages", 0.2)
        clock.raw_ns += 3 * NS_PER_S
        view.phase("boot", guest="web-0")
        view.cycle(1, 3)
        view.phase("settle", length_ns=NS_PER_S)
        view.phase("freeze")
        view.frozen(clock.raw_ns, 30 * NS_PER_S)
        view.note("a note\nof two lines")
        clock.raw_ns += 5_210_000_000
        view.resumed()
        view.phase("watch", length_ns=8 * NS_PER_S)
        view.phase("odd\x1b[31m[red]")
        for state in ("waiting", "announced", "announced", "frozen"):
            view.domain("web UD 0", state, number=1, of=4)
            view.domain("db UD 0\x07", state, number=1, of=4)
    assert file.getvalue().splitlines() == [
        "   0.0 s  image: downloading packages",
        "   3.0 s  boot web-0: booting, until the probe answers",
        "   3.0 s  cycle 1 of 3: settle: waiting for the guests to settle (1 s)",
        "   3.0 s  freeze: stopping the guests",
        "   3.0 s  frozen, budget 30 s",
        "a note",
        "of two lines",
        "   8.2 s  resumed after 5.21 s",
        "   8.2 s  watch: watching the clocks (8 s)",
        "   8.2 s  odd[31m[red]",
        "   8.2 s  web UD 0: announced (wave 1 of 4)",
        "   8.2 s  db UD 0: announced (wave 1 of 4)",
        "   8.2 s  web UD 0: frozen (wave 1 of 4)",
        "   8.2 s  db UD 0: frozen (wave 1 of 4)",
    ]


def test_the_null_view_accepts_every_call() -> None:
    with NullView() as view:
        everything(view, FakeClock())


def test_every_view_is_a_view() -> None:
    clock = FakeClock()
    views: list[ports.View] = [NullView(), LiveView(clock, Console()), PlainView(clock, Console())]
    assert len(views) == 3


PROGRAM = """
import signal, sys, time
from lab.core.clock import Stamp
from lab.report.live import view
class Clock:
    def now(self): return Stamp(time.monotonic_ns(), time.time_ns())
    def sleep_until(self, raw_ns): pass
with view(Clock(), ["web-0"], quiet="-q" in sys.argv) as v:
    print(type(v).__name__, flush=True)
    v.phase("watch")
    time.sleep(0.5)
    if "signal" in sys.argv: signal.raise_signal(signal.SIGINT)
sys.exit(3)
"""


def started(tmp_path: Path, stderr: int, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
    program = tmp_path / "watch.py"
    program.write_text(PROGRAM)
    known = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm"}
    return subprocess.Popen(
        [sys.executable, program, *arguments], stdout=subprocess.PIPE, stderr=stderr, env=known | env
    )


def test_on_a_real_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = started(tmp_path, theirs, "signal", LANG="C.UTF-8")
    os.close(theirs)
    assert process.communicate(timeout=PATIENCE_S)[0] == b"LiveView\n"
    said = os.read(ours, 65536)
    os.close(ours)
    assert b"watching the clocks" in said
    assert CURSOR.encode() not in said


def test_a_terminal_that_hangs_up(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = started(tmp_path, theirs)
    os.close(theirs)
    assert process.stdout is not None
    process.stdout.readline()
    os.close(ours)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 3


@pytest.mark.parametrize(
    ("arguments", "env", "kind"),
    [((), {}, b"PlainView\n"), (("-q",), {}, b"NullView\n")],
)
def test_without_a_terminal(
    tmp_path: Path, arguments: tuple[str, ...], env: dict[str, str], kind: bytes
) -> None:
    process = started(tmp_path, subprocess.PIPE, *arguments, **env)
    out, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (3, kind)
    assert errors == b"" if arguments else b"\x1b" not in errors


def test_nobody_reads_the_plain_lines(tmp_path: Path) -> None:
    process = started(tmp_path, subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.close()
    process.stderr = None
    assert process.communicate(timeout=PATIENCE_S)[0] == b"PlainView\n"
    assert process.returncode == 3
