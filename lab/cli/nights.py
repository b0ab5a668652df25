"""`freezelab nightly …` and `freezelab baseline …`: playbooks that are run every night, and what they are
compared with."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli import completion
from lab.cli.commands import Commands
from lab.cli.options import Connect
from lab.cli.streams import note
from lab.errors import FreezelabError, Interrupted, MachineError, UsageError

if TYPE_CHECKING:
    from lab.record.nights import Night
    from lab.session.nights import NightPlaybook

nightly = Commands(no_args_is_help=True, help="Run playbooks every night, and compare with a baseline.")
baseline = Commands(no_args_is_help=True, help="Choose the runs that nights are compared with.")

Playbooks = Annotated[
    list[str],
    typer.Argument(
        metavar="PLAYBOOK", help="Playbooks' names or files.", autocompletion=completion.playbooks
    ),
]
Limit = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="How long a playbook may take, from its start to its end.  [default: from the last nights]",
    ),
]
LAST = 5
Last = Annotated[
    int,
    typer.Option(
        metavar="N", min=1, max=100, help="A playbook without a baseline: its last N passed runs are it."
    ),
]
OnFailure = Annotated[
    str | None,
    typer.Option(
        metavar="COMMAND",
        help="Run for each playbook that does not pass, without a shell; FREEZELAB_PLAYBOOK, _VERDICT, _WHY, "
        "_RUN_FOLDER, _NIGHT_FOLDER and _JUNIT are in its environment.",
    ),
]
AlsoJUnit = Annotated[
    Path | None, typer.Option("--junit", metavar="FILE", help="Also write the night's JUnit XML file here.")
]


@nightly.command("install")
def nightly_install(
    playbooks: Playbooks,
    at: Annotated[str, typer.Option("--at", metavar="HH:MM", help="When, local time.")] = "02:00",
    connect: Connect = None,
    limit: Limit = None,
    last: Last = LAST,
    on_failure: OnFailure = None,
    junit: AlsoJUnit = None,
) -> None:
    """Have systemd run playbooks every night; without systemd, print a line for a crontab."""
    from lab.host import night_units
    from lab.session import night_timer
    from lab.session.nights import check_playbooks, command_words

    check_playbooks([_read(name) for name in playbooks])
    _limit_ns(limit)
    arguments = [_lasting(name) for name in playbooks]
    if connect:
        arguments += ["--connect", connect]
    if limit is not None:
        arguments += ["--limit", limit]
    if last != LAST:
        arguments += ["--last", str(last)]
    if on_failure is not None:
        arguments += ["--on-failure", shlex.join(command_words(on_failure))]
    if junit is not None:
        arguments += ["--junit", str(junit.absolute())]
    job = night_timer.night_job(at, arguments)
    if not night_units.has_user_manager():
        typer.echo(night_units.crontab_line(job))
        note("this machine does not run systemd: nothing was installed; crontab -e adds this line")
        return
    for path in night_timer.install(job):
        typer.echo(f"wrote {path}")
    _show_timer()


@nightly.command("run")
def nightly_run(
    playbooks: Playbooks,
    connect: Connect = None,
    limit: Limit = None,
    last: Last = LAST,
    on_failure: OnFailure = None,
    junit: AlsoJUnit = None,
) -> None:
    """Run a night now: playbooks, each with a time limit, compared with their baselines."""
    from lab.core.night import NightVerdict
    from lab.record.nights import night_folder
    from lab.report.console import stdout_console
    from lab.report.nights import render_night
    from lab.report.text import clean
    from lab.session.nights import (
        NightOptions,
        check_playbooks,
        command_words,
        facts_of,
        only_night,
        run_night,
    )  # fmt: skip
    from lab.session.nights import on_failure as perform
    from lab.session.paths import home

    words = command_words(on_failure) if on_failure is not None else ()
    options = NightOptions(connect, _limit_ns(limit), last)
    try:
        state = home()
        with only_night(state):
            asked = [_read_or_mistake(name) for name in playbooks]
            check_playbooks(asked)
            night = run_night(state, asked, options, lambda line: note(clean(line)))
            unwritten = _written(state, night, junit)
    except MachineError as error:
        if words:
            facts = {"PLAYBOOK": "", "VERDICT": "error", "WHY": clean(str(error)), "RUN_FOLDER": ""}
            _report_failure(perform(words, facts))
        raise
    render_night(night, night_folder(state, night.id), stdout_console())
    for failed in unwritten:
        note(str(failed))
    if words and night.exit_code != Interrupted.exit_code:
        for part in night.playbooks:
            if part.verdict.exit_code:
                facts = facts_of(state, night, part)
                _report_failure(perform(words, {**facts, "WHY": clean(facts["WHY"])}))
    if unwritten and night.verdict not in (NightVerdict.FAILED, NightVerdict.INTERRUPTED):
        raise typer.Exit(MachineError.exit_code)
    raise typer.Exit(night.exit_code)


@nightly.command("status")
def nightly_status() -> None:
    """Show whether and when playbooks are run, and the last night."""
    from lab.record.nights import read_nights
    from lab.report.console import stdout_console
    from lab.report.nights import render_nights
    from lab.session.nights import is_under_way
    from lab.session.paths import home

    _show_timer()
    state = home()
    nights, damaged = read_nights(state, 1)
    render_nights(nights, damaged, stdout_console(), running=is_under_way(state))


@nightly.command("remove")
def nightly_remove() -> None:
    """Have playbooks no longer run every night. Nights and runs stay."""
    from lab.session import night_timer

    removed = night_timer.remove()
    for path in removed:
        typer.echo(f"removed {path}")
    if not removed:
        typer.echo("no night is installed")


@nightly.command("report")
def nightly_report(
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write an HTML page instead.")
    ] = None,
    most: Annotated[int, typer.Option("--most", "-n", metavar="N", min=1, help="Number of nights.")] = 30,
) -> None:
    """List the last nights, the latest first."""
    from lab.record.nights import read_nights
    from lab.report.console import stdout_console
    from lab.report.nights import render_nights
    from lab.session.nights import is_under_way
    from lab.session.paths import home

    state = home()
    nights, damaged = read_nights(state, most)
    if html is None:
        render_nights(nights, damaged, stdout_console(), running=is_under_way(state))
        return
    from lab.report.html.nights import write_nights_page

    write_nights_page(nights, damaged, html, running=is_under_way(state))


@baseline.command("set")
def baseline_set(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN", help="Ids of runs.", autocompletion=completion.runs)
    ],
) -> None:
    """Compare the nights of these runs' playbooks with these runs."""
    from lab.session.night_baseline import set_baseline
    from lab.session.paths import home

    for line in set_baseline(home(), runs):
        typer.echo(line)


@baseline.command("show")
def baseline_show() -> None:
    """List the runs that nights are compared with."""
    from lab.report.console import stdout_console
    from lab.report.nights import render_baselines
    from lab.session.night_baseline import show_baselines
    from lab.session.paths import home

    render_baselines(show_baselines(home()), stdout_console())


@baseline.command("clear")
def baseline_clear(
    playbooks: Annotated[
        list[str] | None, typer.Argument(metavar="PLAYBOOK", help="Playbooks' names.  [default: all]")
    ] = None,
) -> None:
    """Compare nights with the last passed runs again. The runs stay."""
    from lab.session.night_baseline import clear_baseline
    from lab.session.paths import home

    gone = clear_baseline(home(), playbooks or [])
    typer.echo(f"cleared: {', '.join(gone)}" if gone else "there is no baseline")


def _read_or_mistake(name: str) -> NightPlaybook:
    """The playbook, or what is wrong with it: the others of the night are run all the same."""
    from lab.session.nights import NightPlaybook

    try:
        return _read(name)
    except Interrupted:
        raise
    except FreezelabError as error:
        what = error.what.replace("\n", "; ")
        return NightPlaybook(name, mistake=f"{error.where}: {what}" if error.where else what)


def _read(name: str) -> NightPlaybook:
    """A playbook of a night. PlaybookError when it is gone or has mistakes."""
    from lab.playbook import load, resolve
    from lab.report.plan import duration_ns, waiting_ns
    from lab.session.nights import NightPlaybook
    from lab.session.paths import playbook_folders

    plan = load(resolve(name, playbook_folders()))
    return NightPlaybook(name, plan, estimate_ns=duration_ns(plan) + waiting_ns(plan))


def _lasting(name: str) -> str:
    """The playbook's name in a unit: a shipped one by its name, a file by its whole path."""
    from lab.playbook import resolve
    from lab.session.paths import PLAYBOOKS, playbook_folders

    path = resolve(name, playbook_folders())
    return path.stem if path.parent == PLAYBOOKS else str(path.absolute())


def _limit_ns(text: str | None) -> int | None:
    from lab.core.units import parse_duration

    if text is None:
        return None
    try:
        limit = parse_duration(text)
    except ValueError as error:
        raise UsageError(str(error), where="--limit") from None
    if not limit:
        raise UsageError("no run ends in no time", where="--limit")
    return limit


def _written(state: Path, night: Night, junit: Path | None) -> list[FreezelabError]:
    """Write the night's files. What could not be written does not keep the others from it."""
    from lab.record.nights import JUNIT, PAGE, night_folder, nights_folder, read_nights
    from lab.report.html.nights import write_nights_page
    from lab.report.night_junit import write_night_junit

    writes = [partial(write_night_junit, night, night_folder(state, night.id) / JUNIT)]
    if junit is not None:
        writes.append(partial(write_night_junit, night, junit))
    page = nights_folder(state) / PAGE
    writes.append(partial(write_nights_page, *read_nights(state, 30), page, running=False))
    failed: list[FreezelabError] = []
    for write in writes:
        try:
            write()
        except MachineError as error:
            failed.append(error)
    return failed


def _report_failure(why: str) -> None:
    if why:
        note(f"--on-failure: {why}")


def _show_timer() -> None:
    from lab.host import night_units

    folder = night_units.unit_folder()
    state = night_units.timer_state(folder)
    if state is None:
        typer.echo("no night is installed")
        return
    when = f"next: {state.next_at}" if state.next_at else "systemd does not know its timer"
    typer.echo(f"{folder / night_units.TIMER}, for {state.home}; {when}")
    if state.lingers is False:
        note(f"nights are run only while you are logged in; to change that: {night_units.linger_command()}")
