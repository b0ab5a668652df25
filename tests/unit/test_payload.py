"""The payload on its own: it has to run where the lab does not."""

from __future__ import annotations

import ast
import json
import subprocess

import pytest

from lab.guest.probe import payload_source, start_command

COMMANDS = b"c\nr 1\nr 2\ns\nf\n"


def test_it_parses_as_python_3_6() -> None:
    ast.parse(payload_source(), feature_version=(3, 6))


def test_its_command_line_fits() -> None:
    # One argument of a Linux program is limited to 128 KiB (execve(2), MAX_ARG_STRLEN).
    assert len(start_command()) < 64 * 1024


@pytest.fixture(scope="module")
def answers() -> list[str]:
    argv = ["/bin/sh", "-c", start_command()]
    done = subprocess.run(argv, input=COMMANDS, capture_output=True, timeout=60, check=True)
    return [line for line in done.stdout.decode().splitlines() if not line.startswith("B ")]


def test_it_answers_in_order_and_ends_with_its_input(answers: list[str]) -> None:
    assert [line[0] for line in answers] == list("HCRRSF")


def test_a_reading_reads_raw_first_and_last(answers: list[str]) -> None:
    """core.offsets.apart relies on it."""
    _, number, *clocks = answers[2].split()
    raw, real, mono, boot, boot2, mono2, real2, raw2 = map(int, clocks)
    assert number == "1"
    assert (raw <= raw2, real <= real2, mono <= mono2, boot <= boot2) == (True,) * 4


def test_it_tells_what_the_probe_needs(answers: list[str]) -> None:
    facts, sampler = json.loads(answers[0][2:]), json.loads(answers[4][2:])
    assert facts["boot_id"] and facts["clocksource"] and facts["resolution_ns"] == 1
    assert sampler["count"] >= 1
    assert sampler["first_raw_ns"] <= sampler["last_raw_ns"]


def test_a_guest_without_python_says_so() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", start_command().replace("/usr/", "/nowhere/")],
        env={"PATH": "/nonexistent"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 127
    assert b"no python3" in done.stderr
