"""The shell command that starts what looks into a guest."""

from __future__ import annotations

import shlex

from lab.core.depth import Depth
from lab.guest import program

PROGRAM = "plain_probe"

LOAD_PTP_KVM = "modprobe -q ptp_kvm"
"""The module fails where KVM cannot give its clock: when the host's own clocksource is not tsc."""


def start_command(depth: Depth = Depth.PYTHON) -> str:
    """The command that starts the program, or a shell in its place: for SHELL, and for AUTO where there is no
    Python."""
    if depth is Depth.SHELL:
        return program.shell_command()
    if depth is Depth.AUTO:  # the login shell may be a csh
        command = program.start_command(PROGRAM, otherwise=program.shell_command())
        return f"exec sh -c {shlex.quote(command)}"
    return program.start_command(PROGRAM)
