"""The manual page, made from the texts of `--help`:

.venv/bin/python -m tests.manual docs/freezelab.1
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from lab import __version__
from lab.cli.main import app

DATE = "2026-11-29"
"""The page's, which man shows at its foot."""

WIDTH = 72
"""Lines of text in the source are at most this long before - is escaped. mandoc -T lint asks for 80."""

EXIT_STATUS = re.compile(r"(\d+) ([^,.(]+(?:\([^)]*\))?)")
NOTES = (
    "In a clone the command is ./freezelab. There ./freezelab test runs the tests, and ./freezelab uninstall "
    "removes what set-up and runs made."
)
ENVIRONMENT = {
    "FREEZELAB_HOME": "The state folder: runs, kept guests. By default the XDG state folder "
    "~/.local/state/freezelab.",
    "FREEZELAB_CACHE": "The cache: images, golden guests, other QEMUs. By default ~/.cache/freezelab.",
    "FREEZELAB_CONNECT": "The default of --connect.",
}
FILES = {
    "~/.local/state/freezelab/runs/ID": "A run: its history events.jsonl, its record run.json, and each "
    "guest's console.",
    "~/.local/state/freezelab/nights/ID": "A night: its record night.json, junit.xml, and what each run "
    "printed. nights.html beside it is the page of the last nights.",
    "~/.local/state/freezelab/kept/NAME.json": "How to access a kept guest.",
    "~/.cache/freezelab/images": "Built images.",
}


def page() -> str:
    """The page in groff's man macros."""
    command: Any = typer.main.get_command(app)
    context = command.context_class(command, info_name="freezelab")
    lines = [
        '.\\" Made by tests/manual.py from the texts of --help.',
        f'.TH FREEZELAB 1 {DATE} "freezelab {__version__}" "User Commands"',
        ".nh",  # a path in two parts could not be copied
        ".SH NAME",
        *paragraph(f"freezelab - {summary(command)}"),
        ".SH SYNOPSIS",
        *synopsis(command, context),
        ".SH DESCRIPTION",
        *paragraph(command.help),
        ".SH OPTIONS",
        *parameters(command, context),
        ".SH COMMANDS",
        *(line for name, one, inner in commands(command, context) for line in section(name, one, inner)),
        ".SH EXIT STATUS",
        *(line for code, meaning in EXIT_STATUS.findall(command.epilog) for line in item(code, meaning)),
        ".SH ENVIRONMENT",
        *(line for name, text in ENVIRONMENT.items() for line in item(name, text)),
        ".SH FILES",
        *(line for name, text in FILES.items() for line in item(name, text)),
        ".SH NOTES",
        *paragraph(NOTES),
    ]
    return "\n".join(lines) + "\n"


def commands(group: Any, context: Any) -> Iterator[tuple[str, Any, Any]]:
    """(full name, command, context) of each command that is shown, groups resolved."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = command.context_class(command, info_name=name, parent=context)
        if command.hidden:
            continue
        is_group = hasattr(command, "list_commands")
        if not is_group or command.invoke_without_command:
            yield inner.command_path, command, inner
        if is_group:
            yield from commands(command, inner)


def section(name: str, command: Any, context: Any) -> list[str]:
    return [
        f".SS {escaped(name)}",
        *synopsis(command, context),
        ".PP",
        *paragraph(command.help),
        *parameters(command, context),
    ]


def synopsis(command: Any, context: Any) -> list[str]:
    pieces = " ".join(command.collect_usage_pieces(context))
    return [f".B {escaped(context.command_path)}", escaped(pieces)]


def parameters(command: Any, context: Any) -> list[str]:
    """An item for each argument and option that has a text; --help is every command's."""
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    return [
        line for record in records if record is not None and record[0] != "--help" for line in item(*record)
    ]


def item(name: str, text: str) -> list[str]:
    return [".TP", f".B {escaped(re.sub(' <.*>$', '', name))}", *(paragraph(text) or ["\\&"])]


def summary(command: Any) -> str:
    text: str = command.help
    return text[:1].lower() + text[1:].rstrip(".")


def paragraph(text: str) -> list[str]:
    """A text as lines of roff."""
    return [escaped(line) for line in textwrap.wrap(" ".join(text.split()), WIDTH, break_on_hyphens=False)]


def escaped(text: str) -> str:
    """A text as one line of roff, without requests in it."""
    text = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    text = "".join(one if one.isascii() else f"\\[u{ord(one):04X}]" for one in text)
    return f"\\&{text}" if text.startswith((".", "'")) else text


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="ascii")
