"""A program in place of this process, for what a person does at a terminal."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from lab.errors import MachineError
from lab.process.runner import environment, find, quote


def become(argv: Sequence[str]) -> NoReturn:
    """Execute the program in this process: its exit code, terminal and signals are its own. MachineError when
    it cannot be executed."""
    program = find(argv[0])
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and programs would inherit that
    try:
        os.execve(program, list(argv), environment())  # noqa: S606 - no shell is wanted
    except OSError as error:
        raise MachineError(f"cannot be run: {error.strerror}", where=quote(argv)) from error
