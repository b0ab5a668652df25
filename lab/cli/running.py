"""A run from the command line: its options for output, its report, its exit code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from lab.cli import streams
from lab.errors import FreezelabError
from lab.session.signals import Signals

if TYPE_CHECKING:
    from lab.core.plan import Plan
    from lab.record.run import Run
    from lab.session.run import RunOptions

Json = Annotated[bool, typer.Option("--json", help="Print the run as JSON (freezelab.run/1).")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="All sections of the report, not one screen.")]
JUnit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Also write a JUnit XML file.")]


def fail(error: FreezelabError, exit_code: int | None = None) -> NoReturn:
    """Tell an expected failure and leave with its exit code, or another."""
    streams.note(str(error))
    raise typer.Exit(error.exit_code if exit_code is None else exit_code)


def show(run: Run, folder: Path, as_json: bool, junit: Path | None, verbose: bool = False) -> None:
    """The report on stdout, and the files that were asked for."""
    if as_json:
        from lab.record.run import json_pieces

        streams.write(json_pieces(run))
    else:
        from lab.report.console import stdout_console
        from lab.report.terminal import render

        render(run, stdout_console(), folder=folder, verbose=verbose)
    if junit is not None:
        from lab.report.junit import write_junit

        write_junit(run, junit)


def execute(
    plan: Plan,
    options: RunOptions,
    *,
    as_json: bool,
    junit: Path | None,
    quiet: bool,
    verbose: bool = False,
) -> NoReturn:
    """Execute a plan, show its report, and leave with its exit code."""
    from lab.cli.views import view_for
    from lab.session.run import RunStopped, perform

    with Signals() as signals:
        try:
            with view_for([guest.name for guest in plan.guests], quiet=quiet) as (view, progress):
                done, folder = perform(plan, options, view, progress, signals.shield)
        except RunStopped as stopped:
            try:
                if stopped.measured or any(guest.cycles for guest in stopped.run.guests):
                    show(stopped.run, stopped.folder, as_json, junit, verbose)
            except streams.Undelivered:
                streams.silence_stdout()  # the terminal has gone, which may be what stopped the run
            fail(stopped.failure, stopped.exit_code)
    show(done, folder, as_json, junit, verbose)
    raise typer.Exit(done.outcome.exit_code)
