"""The programs for guests as text: whole, for an old Python, and short enough to be sent."""

from __future__ import annotations

import ast
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from lab.guest import inside, program

FOLDER = Path(inside.__file__).parent
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.sh"))
PROGRAMS = [name for name in MODULES if "def main(" in (FOLDER / f"{name}.py").read_text()]


def names(tree: ast.AST) -> Iterator[str]:
    """What a module defines at its top level, imports aside."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name))
        elif isinstance(node, ast.If):
            yield from set(names(node))  # of two branches one is taken


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_is_whole(name: str) -> None:
    text = program.source(name)
    compile(text, name, "exec", dont_inherit=True)
    assert not any(line.lstrip().startswith((b"#", b'"', b"'")) for line in text.splitlines())
    assert text.count(b"\ndef main(") == 1


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_needs_nothing_but_pythons_library(name: str) -> None:
    nodes = list(ast.walk(ast.parse(program.source(name))))
    wanted = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    wanted |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    assert "os" in wanted
    assert {module.partition(".")[0] for module in wanted} <= sys.stdlib_module_names


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_parses_as_python_3_6(name: str) -> None:
    ast.parse(program.source(name), feature_version=(3, 6))


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_part_of_a_program_hides_another_ones_name(name: str) -> None:
    found = list(names(ast.parse(program.source(name))))
    assert "main" in found
    assert not {one for one in found if found.count(one) > 1}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_programs_command_line_fits(name: str) -> None:
    # One argument of a Linux program is limited to 128 KiB (execve(2), MAX_ARG_STRLEN).
    assert len(program.start_command(name, "chronyc,timedatectl", str(1 << 40), "0.5", "64")) < 64 * 1024


def test_a_part_that_two_others_import_is_sent_once() -> None:
    assert program.source("pause_watcher").count(b"\ndef look(") == 1


def test_the_map_names_every_module() -> None:
    assert inside.__doc__ is not None
    rows = [line.split()[0] for line in inside.__doc__.splitlines() if line.startswith("    ")]
    assert sorted(rows) == sorted([*MODULES, *SCRIPTS, "program", "part"])


def run(text: bytes, *arguments: str) -> bytes:
    command = program.command(text, *arguments)
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, timeout=60, check=True)
    return done.stdout


def test_time_keepers_prints_the_kernels_clock_and_all_processes() -> None:
    state, status, freq, tick, maxerror, found = json.loads(run(program.source("time_keepers")))
    assert state >= 0 and status >= 0 and maxerror >= 0
    assert 9000 <= tick <= 11000 and abs(freq) <= 500 << 16  # parts per million in 16 bits' fractions
    assert "pytest" in found or any(name.startswith("python") for name in found)


class Filler:
    """A memory filler of this host's. Its command has ended, so it goes on in the background."""

    def __init__(self, text: bytes, size: int) -> None:
        answer = run(text, str(size), "0")
        assert answer.startswith(b"R ")
        self.path: str = json.loads(answer[2:])["path"]
        self.process = psutil.Process(int(self.path.split("/")[2]))

    def connect(self) -> socket.socket:
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(30)
        peer.connect(self.path)
        return peer

    def ask(self, what: bytes) -> bytes:
        """The last line of the answer."""
        with self.connect() as peer:
            peer.sendall(what + b"\n")
            return peer.makefile("rb").read().splitlines()[-1]


@pytest.fixture
def fill() -> Iterator[Callable[[bytes], Filler]]:
    started = []

    def start(text: bytes) -> Filler:
        started.append(Filler(text, 64 * 4096))
        return started[-1]

    yield start
    for filler in started:
        if filler.process.is_running():
            filler.process.kill()


def test_the_memory_filler_fills_verifies_and_ends(fill: Callable[[bytes], Filler]) -> None:
    filler = fill(program.source("memory_filler"))
    assert json.loads(filler.ask(b"wait")[2:]) == {"bytes": 64 * 4096}
    assert json.loads(filler.ask(b"verify")[2:]) == {"pages": 64, "differ": 0, "differing": []}
    assert filler.ask(b"stop") == b"E"
    psutil.wait_procs([filler.process], timeout=20)
    assert not filler.process.is_running()


def test_who_connects_and_asks_nothing_delays_the_others_for_a_moment(
    fill: Callable[[bytes], Filler],
) -> None:
    text = program.source("memory_filler")
    filler = fill(text.replace(b"PATIENCE_S = 5.0", b"PATIENCE_S = 0.3"))
    began = time.monotonic()
    with filler.connect() as silent:
        assert filler.ask(b"wait").startswith(b"D ")
        assert time.monotonic() - began > 0.29
        assert silent.recv(1) == b"", "its connection is closed"
