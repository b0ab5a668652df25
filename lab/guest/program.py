"""Sends Python programs to a guest as text on the starting shell's command line, so that standard input
belongs to the program from the first byte."""

from __future__ import annotations

import ast
import shlex
import zlib
from base64 import b64encode
from collections.abc import Iterator
from functools import cache
from importlib import resources

NO_PYTHON = "freezelab: no python3"

_INSIDE = "lab.guest.inside"


@cache
def source(name: str) -> bytes:
    """The text of the program lab/guest/inside/NAME.py, preceded once by each part that it imports from
    there. Comments and docstrings are left out, because the guest has to unpack and compile every byte."""
    body = list(_statements(name, set()))
    return ast.unparse(ast.Module(body, [])).encode() + b"\n"


def _statements(name: str, sent: set[str]) -> Iterator[ast.stmt]:
    """The statements of the parts that `name` imports and of `name` itself, without parts in `sent`."""
    if name in sent:
        return
    sent.add(name)
    tree = ast.parse(resources.files(_INSIDE).joinpath(f"{name}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body[:1] = [] if node.body[1:] else [ast.Pass()]
    for statement in tree.body:
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith(_INSIDE):
            yield from _statements((statement.module or "").rpartition(".")[2], sent)
        else:
            yield statement


def _notable() -> str:
    """The pattern of clock_probe.NOTABLE, an extended regular expression in POSIX as well."""
    for statement in _statements("clock_probe", set()):
        match statement:
            case ast.Assign(targets=[ast.Name("NOTABLE")], value=ast.Call(args=[pattern])):
                return str(ast.literal_eval(pattern))
    raise AssertionError("clock_probe has no NOTABLE")


@cache
def shell_program(name: str = "shell_probe") -> str:
    """The text of lab/guest/inside/NAME.sh, after the part that all share, without comments."""
    folder = resources.files(_INSIDE)
    parts = [folder.joinpath(f"{part}.sh") for part in ("shell_clock", name)]
    text = "".join(part.read_text(encoding="utf-8") for part in parts)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return "\n".join(lines).replace("@NOTABLE@", _notable())


@cache
def shell_command(name: str = "shell_probe") -> str:
    """The shell command that executes lab/guest/inside/NAME.sh, by bash where there is one. It is one
    line without "!", because the login shell may be a csh, which cannot quote the two."""
    start = 'p=$(printf %b "$1"); if command -v bash >/dev/null; then exec bash -c "$p"; fi; exec sh -c "$p"'
    return f"exec sh -c {shlex.join([start, 'sh', _escaped(shell_program(name))])}"


_ESCAPES = {"\\": r"\\", "\n": r"\n", "!": r"\0041", "'": r"\0047"}


def _escaped(text: str) -> str:
    """`text` for %b of printf(1)."""
    return "".join(_ESCAPES.get(letter, letter) for letter in text)


def command(text: bytes, *arguments: str, otherwise: str = "") -> str:
    """The shell command that executes the program `text` with a Python 3.6 or later. otherwise: the shell
    command where there is none, or one without json (Debian's python3-minimal); "" is an error."""
    packed = b64encode(zlib.compress(text, 9)).decode()
    # Not base64, which imports re; that takes as long as Python's own start.
    program = (
        f"import binascii,zlib;exec(compile(zlib.decompress(binascii.a2b_base64('{packed}')),'probe','exec'))"
    )
    run = f'exec "$p" -I -S -u -c {shlex.join([program, *arguments])}'
    needed = "sys, json" if otherwise else "sys"
    return (
        "for p in python3 /usr/bin/python3 /usr/libexec/platform-python; do "
        f'if "$p" -I -S -c "import {needed}; sys.exit(sys.version_info < (3, 6))" 2>/dev/null; then '
        f"{run}; fi; done; " + (otherwise or f"echo {NO_PYTHON} >&2; exit 127")
    )


def start_command(name: str, *arguments: str, otherwise: str = "") -> str:
    """The shell command that executes lab/guest/inside/NAME.py. otherwise: see command()."""
    return command(source(name), *arguments, otherwise=otherwise)
