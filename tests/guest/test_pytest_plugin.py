"""The pytest plugin, as a session of its own starts it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.guest.conftest import Cli
from tests.unit.installed_wheel import InstalledWheel

EXAMPLE = Path(__file__).parents[2] / "examples" / "pytest"

TESTS = """
import time

import pytest

from lab.errors import GuestError
from lab.process.pace import paced

@pytest.mark.freezelab(playbook="strict.yaml")
def test_strict():
    raise AssertionError("not reached")

@pytest.mark.freezelab(playbook="unknown.yaml")
def test_unknown_playbook():
    raise AssertionError("not reached")

@pytest.mark.freezelab(playbok="strict.yaml")
def test_unknown_word():
    raise AssertionError("not reached")

@pytest.mark.freezelab(connect="qemu:///session")
def test_no_playbook():
    raise AssertionError("not reached")

@pytest.mark.freezelab(playbook="own.yaml", connect="test:///default")
def test_connection():
    raise AssertionError("not reached")

def test_frozen(freezelab_guests, freeze):
    assert freezelab_guests["web-0"].run("hostname; cat /root/word") == "web-0\\nhidden"
    with freeze(for_="20s", watch="1s") as frozen:
        frozen.resume()
    assert frozen.pause.high_ns < 15e9
    assert frozen.cycle().frozen

def test_raises(freeze):
    with freeze("web-0", for_="20s", watch="1s"):
        raise ValueError("in the block")

def test_runs_again(freezelab_guests):
    assert freezelab_guests["web-0"].run("echo awake") == "awake\\n"

def test_asked_while_frozen(freezelab_guests, freeze):
    guest = freezelab_guests["web-0"]
    guest.put(__file__, "/root/copy")
    with freeze(for_="40s", watch="1s") as frozen:
        begun = time.monotonic()
        with pytest.raises(GuestError, match=f"true: no.* {paced(2):.0f} s"):
            guest.run("true", timeout_s=2)
        assert time.monotonic() - begun < 15
        with pytest.raises(pytest.fail.Exception, match="the guests are frozen"):
            frozen.pause
        frozen.resume()
    assert frozen.pause.low_ns > 1.9e9
    assert "test_asked" in guest.run("cat /root/copy")

@pytest.mark.parametrize(("given", "text"), [
    ({"for_": "nonsense"}, "not a duration: 'nonsense'"),
    ({"for_": 3}, "duration without a unit: '3'"),
    ({"for_": "25h"}, "at most 59 min"),
    ({"for_": "1s", "watch": "-1s"}, "duration is negative"),
    ({"for_": "1s", "method": "foo"}, "no method 'foo'\\nknown: suspend"),
])
def test_wrong(freeze, given, text):
    with pytest.raises(pytest.fail.Exception, match=text), freeze(**given):
        raise AssertionError("not reached")

def test_without_with(freeze):
    freeze("web-0", for_="1s")

def test_unknown_guest(freeze):
    with freeze("web-9", for_="1s"):
        raise AssertionError("not reached")

def test_refused(freeze):
    with freeze("web-0", for_="1s", method="in-place"):
        raise AssertionError("not reached")
"""

GUESTS = """
name: guests
resync: agent
cycle: {patch: {hold: 1s}}
setup:
  secrets: {WORD: {file: ./word}}
  run: ['printf %s "$WORD" >/root/word']
"""

STRICT = """
name: strict
resync: none
cycle: {patch: {hold: 200ms}, settle: 0s, before: 1s, watch: 2s}
expect: {in_time: {within: 1s, tolerance: 1ms, hold: 1s}}
"""

INTERRUPTED = """
import os
import signal
import threading

import pytest

@pytest.fixture
def impatient(freeze):
    yield
    raise KeyboardInterrupt("the second Ctrl-C")

def test_interrupted(FIXTURES):
    with freeze(for_="1s", watch="50min") as frozen:
        pass
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    frozen.pause
    raise AssertionError("not reached")
"""

MATRIX = """
name: matrix
matrix: {resync: [agent, none]}
cycle: {patch: {hold: 1s}}
"""

OWN = """
name: own
guests: [{name: web-0, domain: my-vm, ssh: my-vm-host}]
resync: none
cycle: {method: suspend, patch: {hold: 1s}}
"""


def run_pytest(cli: Cli, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = cli.environment | {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": f"{EXAMPLE.parents[1]}:{os.environ.get('PYTHONPATH', '')}",
    }
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "-p", "lab.pytest_plugin", "-p", "no:cacheprovider", "-rA"]
    return subprocess.run(
        [*command, *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.mark.timeout(600)
def test_a_session(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "strict.yaml").write_text(STRICT)
    (tmp_path / "guests.yaml").write_text(GUESTS)
    (tmp_path / "own.yaml").write_text(OWN)
    (tmp_path / "word").write_text("hidden")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfreezelab_playbook = guests.yaml\n")
    done = run_pytest(cli, tmp_path, "--freezelab-keep", f"--rootdir={tmp_path}")
    assert done.stdout.count("PASSED test_it.py::test_wrong[") == 5, done.stdout
    for name in ("test_frozen", "test_asked_while_frozen", "test_runs_again"):
        assert f"PASSED test_it.py::{name}" in done.stdout, done.stdout
    for name in (
        "test_strict",
        "test_unknown_playbook",
        "test_unknown_word",
        "test_no_playbook",
        "test_connection",
        "test_raises",
        "test_unknown_guest",
        "test_refused",
    ):
        assert f"FAILED test_it.py::{name}" in done.stdout, done.stdout
    assert "During handling" not in done.stdout
    assert "not reached" not in done.stdout.partition("short test summary")[2]
    assert "playbook strict.yaml: failed\nfailed: web-0: in time" in done.stdout, done.stdout
    assert "no playbook 'unknown.yaml'" in done.stdout
    shown = re.sub("__+", "____", done.stdout)
    assert "____ test_no_playbook ____\nthe mark" in shown, done.stdout
    assert (
        "____ test_unknown_word ____\nthe mark freezelab has playbook and connect, not 'playbok'\n" in shown
    )
    assert "playbook own.yaml: domain my-vm: there is no such domain on this connection\n" in shown, shown
    assert (
        "____ ERROR at teardown of test_without_with ____\n"
        "freeze('web-0', for_='1s') froze nothing: it has to be the context of a with statement\n"
    ) in shown
    assert "ValueError: in the block" in done.stdout
    assert "there is no guest 'web-9'\nknown: web-0" in done.stdout
    assert "its RAM is not a shared file" in done.stdout
    assert len(cli.qemu()) == 1, "kept, and the playbook's removed"
    home = cli.home / "pytest" / "main"
    kept = Cli(home)
    assert f"FREEZELAB_HOME={home} freezelab down --all" in done.stdout
    assert kept("down", "--all").stdout == "removed guest web-0\n"
    assert not cli.qemu()
    assert not kept.left()
    assert "test-frozen" in cli("history").stdout


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("freezelab_playbook=nope.yaml", "no playbook 'nope.yaml'"),
        (
            "freezelab_playbook=matrix.yaml",
            "matrix.yaml is a matrix; the tests' guests need a playbook without one",
        ),
        (
            "freezelab_playbook=own.yaml",
            "own.yaml: domain my-vm is your own; the tests' guests are those that",
        ),
        ("freezelab_guests=Foo_Bar", "not a guest name: 'Foo_Bar'"),
    ],
)
def test_a_session_without_guests(cli: Cli, tmp_path: Path, option: str, text: str) -> None:
    (tmp_path / "test_it.py").write_text("def test_guest(freezelab_guests): ...")
    (tmp_path / "matrix.yaml").write_text(MATRIX)
    (tmp_path / "own.yaml").write_text(OWN)
    done = run_pytest(cli, tmp_path, f"--rootdir={tmp_path}", "-o", option)
    assert done.returncode == 1, done.stdout
    assert f"test_guest ____\n{text}" in re.sub("__+", "____", done.stdout), done.stdout
    assert "pytest_plugin.py" not in done.stdout, done.stdout


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("fixtures", "last"), [("freeze", "KeyboardInterrupt"), ("impatient, freeze", "the second Ctrl-C")]
)
def test_an_interrupt_leaves_no_guest(cli: Cli, tmp_path: Path, fixtures: str, last: str) -> None:
    """Nor does anybody wait for the watch of 50 minutes."""
    (tmp_path / "test_it.py").write_text(INTERRUPTED.replace("FIXTURES", fixtures))
    done = run_pytest(cli, tmp_path, f"--rootdir={tmp_path}")
    assert "not reached" not in done.stdout
    assert last in done.stdout + done.stderr, done.stdout + done.stderr
    assert not cli.qemu()
    assert "interrupted" in cli("history").stdout


@pytest.mark.timeout(600)
def test_the_example(cli: Cli, tmp_path: Path) -> None:
    """From the wheel, elsewhere. One client has the bug, which its mark excuses; here it is not excused."""
    wheel = InstalledWheel(tmp_path)
    shutil.copytree(EXAMPLE, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [wheel.python, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "--runxfail"],
        cwd=tmp_path / "copy",
        env={name: value for name, value in cli.environment.items() if not name.startswith(("PY", "VIRT"))},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert "1 failed, 6 passed" in done.stdout, done.stdout + done.stderr
    frozen = "test_counter.py::test_adds_once_when_the_server_is_frozen"
    assert f"FAILED {frozen}[HastyClient]" in done.stdout, done.stdout
    assert re.search(r"assert client.total\(\) == 1\nE +assert [2-9] == 1\n", done.stdout), done.stdout
    assert f"PASSED {frozen}[CarefulClient]" in done.stdout
    assert not cli.qemu()
