"""The shell command that starts what looks into a guest."""

from __future__ import annotations

import shlex

from lab.core.depth import Depth
from lab.guest import program

PROGRAM = "plain_probe"


def start_command(depth: Depth = Depth.PYTHON) -> str:
    """The command that starts the program, or a shell in its place: for SHELL, and for AUTO where there is no
    Python."""
    if depth is Depth.SHELL:
        return program.shell_command()
    if depth is Depth.AUTO:  # the login shell may be a csh
        command = program.start_command(PROGRAM, otherwise=program.shell_command())
        return f"exec sh -c {shlex.quote(command)}"
    return program.start_command(PROGRAM)
