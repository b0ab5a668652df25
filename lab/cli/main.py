"""The command line: the only place where the parts are put together.

Every command imports what it needs by itself: `freezelab --help` must not wait for libvirt.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from lab import __version__
from lab.cli import (
    by_hand,
    cells_over_hosts,
    ci,
    completion,
    events,
    fleet_over_hosts,
    hosts,
    kept_guests,
    lab_hosts,
    nights,
    past_runs,
    stores,
    streams,
    upkeep,
)
from lab.cli import metrics as metrics_command
from lab.cli.commands import Commands
from lab.cli.options import (
    Accelerator,
    Connect,
    Playbook,
    Quiet,
    accelerator_request,
    boot_seconds,
    part,
    tags,
)
from lab.cli.running import Html, Json, JsonLines, JUnit, Metrics, Verbose, execute, fail, live_outputs, show
from lab.errors import FreezelabError, Interrupted, UsageError
from lab.process.signals import Signals

if TYPE_CHECKING:
    from lab.core.plan import Plan
    from lab.record.journal import History
    from lab.session.tolerance import EarlierTries


class _CommandGroup(TyperGroup):
    """Expected failures become one or two lines on stderr and their exit code, signals too."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        streams.prepare()
        completion.prepare()
        with streams.delivered():
            return super().main(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        try:
            with Signals():
                return super().invoke(ctx)
        except FreezelabError as error:
            fail(error)
        except KeyboardInterrupt:
            fail(Interrupted("interrupted"))
        except BrokenPipeError:
            # Whoever read our output has left (| head): not a failure of ours.
            streams.silence_stdout()
            raise typer.Exit(0) from None


app = Commands(
    cls=_CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 passed, 1 failed, 2 usage error, 3 inconclusive, 4 environment error (the host or "
    "a guest failed), 130 interrupted. Tests: ./freezelab test. Removal: ./freezelab uninstall.",
)
app.add_typer(kept_guests.commands)
app.add_typer(by_hand.commands)
app.add_typer(upkeep.commands)
app.add_typer(past_runs.commands)
app.add_typer(past_runs.history, name="history")
app.add_typer(stores.images, name="image")
app.add_typer(stores.emulators, name="emulator")
app.add_typer(events.events, name="events")
app.add_typer(nights.nightly, name="nightly")
app.add_typer(nights.baseline, name="baseline")
app.add_typer(metrics_command.metrics, name="metrics")
app.add_typer(lab_hosts.lab_host, name="labhost")
app.add_typer(hosts.hosts, name="hosts")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"freezelab {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    on: Annotated[
        str | None, typer.Option(metavar="NAME", help="Run in the lab host, labhost: --on labhost run …")
    ] = None,
) -> None:
    """Freeze real guests, patch the host under them, measure the pause and the clocks."""
    lab_hosts.check_on(on, context.invoked_subcommand)
    context.obj = on


def _plan(playbook: str) -> Plan:
    from lab.playbook import load

    return load(_file_of(playbook))


def _file_of(playbook: str) -> Path:
    from lab.playbook import resolve
    from lab.session.paths import playbook_folders

    return resolve(playbook, playbook_folders())


@app.command()
def run(
    context: typer.Context,
    playbook: Annotated[
        str | None,
        typer.Argument(
            metavar="PLAYBOOK",
            help="A playbook's name or file.  [default: first-freeze; with --resume that of RUN]",
            autocompletion=completion.playbooks,
        ),
    ] = None,
    repeat: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=10000, help="Number of cycles with a freeze.")
    ] = None,
    control: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, max=10000, help="Number of cycles without one, run first."),
    ] = None,
    connect: Connect = None,
    accelerator: Accelerator = "auto",
    boot: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long a guest's boot may take.")
    ] = None,
    golden: Annotated[
        bool | None,
        typer.Option("--golden/--cold", help="Start guests from a golden guest, or boot each."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for another run in this state folder to end.")
    ] = False,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Go on with RUN's search for a tolerance; with --hosts, with the cells that it lacks.",
            autocompletion=completion.runs,
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A name for the run's record, for history --tag; repeatable."),
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="K/N", help="Run only the K-th of N parts of a matrix; see merge.")
    ] = None,
    cell: Annotated[
        list[str] | None, typer.Option(metavar="CELL", help="Run only this cell of a matrix; repeatable.")
    ] = None,
    hosts: cells_over_hosts.Hosts = None,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="For replace-host-kernel: the guest may be lost.")
    ] = False,
    run_id: Annotated[str, typer.Option(hidden=True, help="A night's: the run's id.")] = "",
    agreed: fleet_over_hosts.Agreed = False,
    as_json: Json = False,
    json_lines: JsonLines = False,
    junit: JUnit = None,
    metrics: Metrics = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Freeze guests, patch the host, resume, measure, judge."""
    from lab.session.run import RunOptions, with_counts

    live = live_outputs(metrics, json_lines=json_lines, as_json=as_json)
    there = lab_hosts.options_there(context.params) if context.obj is not None else None
    resumed = _history_of(resume) if resume is not None else None
    if resumed is not None and playbook is None:
        file, read = None, resumed.start.plan
    else:
        named = "first-freeze" if playbook is None else playbook
        file, read = _file_of(named), _plan(named)
    if resume is not None and (shard or cell):
        raise UsageError("--resume goes on with all cells of RUN: leave out --shard and --cell")
    plan, whole = part(with_counts(read, repeat, control), shard, cell or ())
    if there is not None and file is not None:
        lab_hosts.run_there(
            *(plan, file.absolute(), there),
            as_json=as_json, junit=junit, metrics=metrics, quiet=quiet, verbose=verbose,
            accept_loss=accept_loss, tagged=tags(tag or ()),
        )  # fmt: skip
    over = fleet_over_hosts.over_hosts(plan, hosts, file, context.params)
    earlier = _earlier(resumed, plan) if resumed is not None and over is None else None
    options = RunOptions(
        *(connect, accelerator_request(accelerator), boot_seconds(boot), golden, wait, earlier),
        tags=tags(tag or ()),
        run_id=run_id,
        whole=whole,
        meeting=fleet_over_hosts.meeting(plan) if agreed else None,
    )
    execute(
        *(plan, options), as_json=as_json, junit=junit, quiet=quiet, verbose=verbose, live=live,
        playbook=file, perform=over,
    )  # fmt: skip


def _history_of(run: str) -> History:
    from lab.record.journal import read_history
    from lab.session.run_folders import find_run

    return read_history(find_run(run))


def _earlier(history: History, plan: Plan) -> EarlierTries:
    """The tries of an earlier run, judged from its history."""
    from lab.record.run import judge
    from lab.session.tolerance import EarlierTries

    return EarlierTries.of(judge(history)[0], history.start.plan, plan)


@app.command()
def report(
    which: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="A run's id or folder.  [default: the latest]",
            autocompletion=completion.runs,
        ),
    ] = None,
    as_json: Json = False,
    junit: JUnit = None,
    html: Html = None,
    verbose: Verbose = False,
    metrics: Metrics = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Watch a run in progress until it ends, with its exit code.")
    ] = False,
) -> None:
    """Judge an old run again from its history, and show it."""
    from lab.record.journal import is_written, read_history
    from lab.record.run import judge
    from lab.session.run_folders import find_run, name_of

    folder, failure = find_run(which), None
    if watch:
        from lab.cli.watch import failure_of
        from lab.cli.watch import watch as watched

        failure = failure_of(watched(folder))
    elif is_written(folder):
        streams.note(f"this run is in progress; freezelab report {name_of(folder)} --watch follows it")
    history = read_history(folder)
    again, _ = judge(history)
    with ci.annotating(None, machine=as_json) as annotated:
        annotated.run = again
        show(again, folder, as_json, junit, verbose, metrics=metrics)
    if html is not None:
        from lab.report.html.run_page import write_html

        write_html(again, history.start.plan, html)
    if failure is not None:
        fail(failure)
    raise typer.Exit(again.outcome.exit_code)


@app.command()
def plan(
    playbook: Playbook = "first-freeze",
    connect: Connect = None,
) -> None:
    """Show what a run of a playbook would do, and what is missing here."""
    from lab.report.console import stdout_console
    from lab.report.plan import render_plan
    from lab.session.hosts_forecast import over_hosts
    from lab.session.plan_checks import obstacles, source_obstacles

    made = _plan(playbook)
    lacking = source_obstacles(made)
    own, failures = _own_domains(made, connect)
    missing = [*lacking, *failures, *obstacles(made)]
    render_plan(made, stdout_console(), missing, own, over_hosts(made))
    raise typer.Exit(2 if lacking else 0)


def _own_domains(made: Plan, connect: str | None) -> tuple[list[tuple[str, str]], list[FreezelabError]]:
    """See own_plan.look. A plan without such domains is shown without libvirt, too."""
    if not any(guest.is_own for cell in made.parts for guest in cell.guests):
        return [], []
    from lab.session import own_plan

    return own_plan.look(made, connect)


@app.command()
def check(
    playbooks: Annotated[
        list[str],
        typer.Argument(
            metavar="PLAYBOOK", help="Playbooks' names or files.", autocompletion=completion.playbooks
        ),
    ],
) -> None:
    """Validate playbooks, and list what they need that is missing here."""
    from lab.core.plan_warnings import overruns
    from lab.session.plan_checks import cautions, obstacles

    codes = {0}
    for name in playbooks:
        try:
            made = _plan(name)
        except FreezelabError as error:
            codes.add(error.exit_code)
            streams.note(str(error))
            continue
        found = obstacles(made)
        for obstacle in found:
            codes.add(obstacle.exit_code)
            streams.note(f"{name}: missing here: {obstacle}")
        if not found:
            typer.echo(f"{name}: valid ({made.name})")
        for why in (*overruns(made), *cautions(made)):
            typer.echo(f"{name}: note: {why}")
    if len(codes) > 1:
        raise typer.Exit(2 if 2 in codes else max(codes))


@app.command()
def calibrate(
    cycles: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=10000, help="Number of pauses.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few pauses, for a rough figure.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Only show the last calibration.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Only remove the last calibration.")] = False,
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Determines the order of the pauses.")
    ] = None,
    accelerator: Accelerator = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure the lab's own error here, with pauses of known length."""
    from lab.session import calibration
    from lab.session.paths import home

    if forget:
        typer.echo(calibration.forget(home()))
        return
    dropped = ""
    if show:
        saved = calibration.last(home())
    else:
        from lab.cli.views import view_for
        from lab.session import calibration_run

        asked = calibration_run.CalibrationOptions(cycles, quick, seed, accelerator_request(accelerator))
        saved, dropped = calibration_run.make(home(), asked, partial(view_for, quiet=quiet), streams.note)
    stale = calibration.stale(saved, calibration.machine_now(saved))
    if as_json:
        typer.echo(calibration.to_json(saved, stale), nl=False)
        if dropped:
            streams.note(f"not saved: {dropped}")
    else:
        from lab.report.calibration import render_calibration
        from lab.report.console import stdout_console

        render_calibration(
            saved.made, saved.run, saved.figures, stale, stdout_console(), saved.rough, dropped
        )
    raise typer.Exit(0 if show else calibration.exit_code(saved))


if __name__ == "__main__":
    app()
