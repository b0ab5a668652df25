"""Where the `freezelab` command begins: before anything that takes time to import.

A signal that comes while modules are imported would show a traceback (SIGINT), or end the command with
another exit code than that of an interrupt. Nothing has been started by then: there is nothing to undo.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(INTERRUPTED)


def main() -> None:
    """The command. Each command puts process.signals in place of these handlers."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            signal.signal(number, _leave)
    from lab.cli.main import app

    app(prog_name="freezelab")  # by this name shells ask for completion as well
