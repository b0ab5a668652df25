"""The manual page is current, whole, and correct roff."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from lab.cli.main import app
from tests import manual

PAGE = Path(__file__).parents[2] / "docs/freezelab.1"


def test_the_published_page_is_current() -> None:
    made = manual.page()
    assert PAGE.read_text(encoding="ascii") == made, ".venv/bin/python -m tests.manual docs/freezelab.1"


@pytest.mark.parametrize(
    "formatter",
    [
        ["groff", "-man", "-ww", "-Tutf8"],
        ["groff", "-man", "-ww", "-Tutf8", "-rLL=60n"],
        ["mandoc", "-Wstyle"],
        ["man", "--warnings", "-l"],
    ],
)
def test_formatters_have_nothing_to_say(formatter: list[str]) -> None:
    if not shutil.which(formatter[0]):
        pytest.skip(f"{formatter[0]} is not installed")
    done = subprocess.run([*formatter, PAGE], capture_output=True, text=True, check=False, timeout=60)
    if "has been minimized" in done.stdout:
        pytest.skip("man is switched off on this machine")
    assert (done.returncode, done.stderr) == (0, "")
    assert "run" in done.stdout


def test_every_command_and_option_is_there() -> None:
    text = PAGE.read_text(encoding="ascii").replace("\\-", "-")
    for wanted in (".SS freezelab run\n", ".SS freezelab events announce\n", ".B --junit FILE\n", ".B 130\n"):
        assert wanted in text
    assert ".SS freezelab uninstall\n" not in text  # hidden: the launcher's


def test_help_names_arguments_as_the_page_does() -> None:
    command: Any = typer.main.get_command(app)
    context = command.context_class(command, info_name="freezelab")
    for name, one, inner in manual.commands(command, context):
        text = one.get_help(inner)
        usage = text.splitlines()[0]
        assert usage == f"Usage: {name} {' '.join(one.collect_usage_pieces(inner))}"
        assert " <" not in text and "{" not in text, text


@pytest.mark.parametrize(
    ("text", "roff"),
    [
        (".B is no request", "\\&.B is no request"),
        ("'quoted' a\\b", "\\&'quoted' a\\eb"),
        ("a - b … \"c\"", "a \\- b \\[u2026] \\(dqc\\(dq"),
        ("two\n  lines", "two lines"),
    ],
)  # fmt: skip
def test_a_text_is_no_request(text: str, roff: str) -> None:
    assert manual.escaped(text) == roff
