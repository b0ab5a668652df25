"""The console for results, apart from the report: `freezelab history` must not wait for its sections."""

from __future__ import annotations

import os
import sys

from rich.console import Console


class _Stdout(Console):
    def on_broken_pipe(self) -> None:
        """Discard the rest of the output after `| head` has closed the pipe, and keep the verdict's exit
        code. rich would exit with 1, which means that the run failed."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def stdout_console() -> Console:
    """The console for results: colours and drawing only on a terminal, and only as NO_COLOR allows."""
    return _Stdout(highlight=False, markup=False, emoji=False, soft_wrap=True)
