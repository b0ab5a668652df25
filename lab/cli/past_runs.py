"""Runs of the past: `freezelab history`, `history prune` and `compare`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lab.cli import completion
from lab.cli.commands import Commands
from lab.cli.options import age, figure_kind, moment, run_states
from lab.cli.running import Html, Json, JUnit, Verbose, show
from lab.cli.streams import note
from lab.errors import UsageError

commands = Commands()
history = Commands(no_args_is_help=False)


@history.callback(invoke_without_command=True)
def list_runs(
    context: typer.Context,
    most: Annotated[int, typer.Option("--most", "-n", metavar="N", min=1, help="Number of runs.")] = 20,
    playbook: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only runs of this playbook; * and ? match; repeatable."),
    ] = None,
    outcome: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD",
            help="Only passed, failed, inconclusive, interrupted or running ones; repeatable.",
            autocompletion=completion.run_states,
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only runs started since, such as 2d, 12h or 2026-11-29 (UTC)."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only runs started until then, in the same forms.")
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only runs with this tag (run --tag); repeatable, all of them."),
    ] = None,
    figure: Annotated[
        str | None,
        typer.Option(
            metavar="FIGURE",
            help="A figure and its course over these runs, such as pause or in-time.",
            autocompletion=completion.figures,
        ),
    ] = None,
) -> None:
    """List old runs, the latest first."""
    from lab.record.index import RunFilter
    from lab.report.console import stdout_console
    from lab.report.history import render_history
    from lab.report.text import counted
    from lab.session.run_folders import figures, latest, name_of

    if context.invoked_subcommand is not None:
        if any((playbook, outcome, since, until, tag, figure)):
            raise UsageError("options of the list stand before no other command")
        return
    wanted = RunFilter(
        tuple(playbook or ()),
        run_states(outcome or ()),
        moment(since, "--since"),
        moment(until, "--until"),
        frozenset(tag or ()),
    )
    kind = None if figure is None else figure_kind(figure)
    unread: list[Path] = []
    found = latest(most, wanted, unread.append)
    if unread:
        why = f"freezelab report {name_of(unread[0])} says why"
        note(f"{counted(len(unread), 'folder')} cannot be read, and not listed: {why}")
    console = stdout_console()
    if kind is None:
        asked = wanted != RunFilter()
        render_history([run for _, run in found], console, none="no such runs" if asked else "no runs yet")
        return
    from lab.report.trend import render_trend

    render_trend(kind, [run for _, run in found], figures([folder for folder, _ in found]), console)


@history.command()
def prune(
    keep: Annotated[int | None, typer.Option(metavar="N", min=0, help="Keep the latest N runs.")] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="TIME", help="Keep runs that are not older, such as 30d.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove old runs. Runs in progress, and those of baselines, stay."""
    from lab.record.pruning import prunable, remove
    from lab.report.console import stdout_console
    from lab.report.history import render_prune
    from lab.report.text import counted
    from lab.session.paths import home
    from lab.session.run_folders import run_folders

    if keep is None and older_than is None:
        raise UsageError("what is to stay?", hint="--keep 200, --older-than 30d, or both")
    going = prunable(home(), run_folders(), keep or 0, age(older_than, "--older-than"))
    render_prune(going, stdout_console())
    if dry_run or not going.folders:
        return
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("nobody can be asked here", hint="--yes removes them, --dry-run only lists them")
        if not typer.confirm("Remove them?", err=True):
            raise typer.Exit(1)
    note(f"removed {counted(remove(home(), going), 'run')}")


@commands.command()
def compare(
    which: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Runs by id or folder, or files run.json; the first is the baseline.",
            autocompletion=completion.runs,
        ),
    ],
    every: Annotated[bool, typer.Option("--all", help="List figures within noise, too.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the comparison as JSON (freezelab.comparison/1).")
    ] = False,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write a page.")] = None,
) -> None:
    """Compare runs of one playbook: what differs by more than noise, and which verdicts changed."""
    from lab.session.comparing import compared

    runs, comparisons = compared(which)
    if as_json:
        from lab.record.comparison import comparison_of, comparison_text

        typer.echo(comparison_text(comparison_of(runs, comparisons)), nl=False)
    else:
        from lab.report.comparison import render_comparison
        from lab.report.console import stdout_console

        render_comparison(runs, comparisons, stdout_console(), every=every)
    if html is not None:
        from lab.report.html.comparison_page import write_comparison

        write_comparison(runs, comparisons, html)
    raise typer.Exit(1 if any(one.is_worse for one in comparisons) else 0)


@commands.command()
def merge(
    which: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN",
            help="Runs of run --shard or --cell, by id or folder.",
            autocompletion=completion.runs,
        ),
    ],
    as_json: Json = False,
    junit: JUnit = None,
    html: Html = None,
    verbose: Verbose = False,
) -> None:
    """Make one record of runs that had parts of one playbook's cells, and show it."""
    from lab.record.run import write
    from lab.session.merging import merged

    run, folder, plan = merged(which)
    write(run, folder)
    show(run, folder, as_json, junit, verbose)
    if html is not None:
        from lab.report.html.run_page import write_html

        write_html(run, plan, html)
    raise typer.Exit(run.outcome.exit_code)
