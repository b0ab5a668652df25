"""A run from the command line: its options for output, its report, its exit code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from lab.cli import ci, streams
from lab.errors import FreezelabError, MachineError, UsageError
from lab.process.signals import Signals

if TYPE_CHECKING:
    from lab.cli.live_outputs import LiveOutputs
    from lab.core.plan import Plan
    from lab.record.run import Run
    from lab.session.run import RunOptions

Perform = Callable[..., "tuple[Run, Path]"]
Json = Annotated[bool, typer.Option("--json", help="Print the run as JSON (freezelab.run/1).")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="All sections of the report, not one screen.")]
JsonLines = Annotated[
    bool, typer.Option("--json-lines", help="Print progress and verdict for programs, a JSON object a line.")
]
JUnit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Also write a JUnit XML file.")]
Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write a page for a browser.")]
Metrics = Annotated[
    Path | None,
    typer.Option("--metrics", metavar="FILE", help="Also write metrics for Prometheus' textfile collector."),
]


def fail(error: FreezelabError, exit_code: int | None = None) -> NoReturn:
    """Tell an expected failure and leave with its exit code, or another."""
    streams.note(str(error))
    raise typer.Exit(error.exit_code if exit_code is None else exit_code)


def live_outputs(metrics: Path | None, *, json_lines: bool, as_json: bool) -> LiveOutputs:
    """The outputs of a run in progress. UsageError for two formats on standard output."""
    from lab.cli.live_outputs import LiveOutputs

    if not json_lines:
        return LiveOutputs(metrics, note=streams.note)
    if as_json:
        raise UsageError("--json and --json-lines are two formats for standard output: give one of them")
    from lab.process.clock import HostClock
    from lab.report.json_lines import JsonLinesView

    return LiveOutputs(metrics, JsonLinesView(HostClock()), streams.note)


def show(
    run: Run,
    folder: Path,
    as_json: bool,
    junit: Path | None,
    verbose: bool = False,
    *,
    silent: bool = False,
    metrics: Path | None = None,
) -> None:
    """The report on stdout, unless silent, and the files that were asked for."""
    if silent:
        pass
    elif as_json:
        from lab.record.run import json_pieces

        streams.write(json_pieces(run))
    else:
        from lab.report.console import stdout_console
        from lab.report.terminal import render
        from lab.session.run_folders import name_of

        render(run, stdout_console(), folder=folder, verbose=verbose, name=name_of(folder))
    if junit is not None:
        from lab.report.junit import write_junit

        write_junit(run, junit)
    if metrics is not None:
        from lab.record.journal import is_written
        from lab.report.metrics import write_metrics

        write_metrics(run, metrics, in_progress=is_written(folder))


def execute(
    plan: Plan,
    options: RunOptions,
    *,
    as_json: bool,
    junit: Path | None,
    quiet: bool,
    verbose: bool = False,
    live: LiveOutputs | None = None,
    playbook: Path | None = None,
    perform: Perform | None = None,
) -> NoReturn:
    """Execute a plan, show its report, and leave with its exit code. live: outputs of the run in progress.
    playbook: the plan's file. perform: instead of session.run.perform()."""
    from lab.cli.live_outputs import LiveOutputs
    from lab.cli.views import view_for
    from lab.session.run import RunStopped
    from lab.session.run import perform as on_this_host

    perform = perform or on_this_host
    live = live or LiveOutputs()
    live.check()
    silent = live.lines is not None
    with live.opened(plan), ci.annotating(playbook, machine=as_json or silent) as annotated:
        with Signals() as signals:
            try:
                guests = [guest.name for guest in plan.guests]
                shown = view_for(guests, quiet=quiet, beside=live.lines)
                options = replace(options, appended=shown.appended(live.appended))
                with shown as (view, progress):
                    done, folder = perform(plan, options, view, progress, signals.shield)
            except RunStopped as stopped:
                annotated.run = stopped.run
                live.judged(stopped.run, stopped.folder)
                try:
                    if stopped.measured or any(guest.cycles for guest in stopped.run.guests):
                        show(stopped.run, stopped.folder, as_json, junit, verbose, silent=silent)
                except streams.Undelivered:
                    streams.silence_stdout()  # the terminal has gone, which may be what stopped the run
                try:
                    live.ended(stopped.exit_code, str(stopped.failure))
                except MachineError as error:  # the metrics file: why the run was stopped comes last
                    streams.note(str(error))
                fail(stopped.failure, stopped.exit_code)
        annotated.run = done
        live.judged(done, folder)
        show(done, folder, as_json, junit, verbose, silent=silent)
        live.ended(done.outcome.exit_code)
    raise typer.Exit(done.outcome.exit_code)
