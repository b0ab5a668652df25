"""The program that fills a guest's memory, as text: tests/guest/test_fill.py runs it where it belongs."""

from __future__ import annotations

import ast

from lab.guest import program


def test_it_parses_as_python_3_6() -> None:
    text = program.source("memory_filler")
    ast.parse(text, feature_version=(3, 6))
    assert b"from lab." not in text


def test_its_command_line_fits() -> None:
    assert len(program.command(program.source("memory_filler"), str(1 << 40), str(1 << 30))) < 64 * 1024
