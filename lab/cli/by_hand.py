"""`freezelab freeze`: one cycle by hand, on a kept guest or on a domain of the user's own."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.cli import completion
from lab.cli.commands import Commands
from lab.cli.options import Connect, Quiet
from lab.cli.running import Json, JUnit, Verbose, execute

commands = Commands()

Target = Annotated[
    str,
    typer.Argument(
        metavar="GUEST|DOMAIN",
        help="A kept guest, or with --connect a domain of your own.",
        autocompletion=completion.kept_guests,
    ),
]


@commands.command()
def freeze(
    target: Target,
    length: Annotated[str, typer.Option("--for", metavar="TIME", help="How long, such as 10s.")] = "10s",
    method: Annotated[
        str,
        typer.Option(metavar="METHOD", help="How it is frozen.", autocompletion=completion.methods_by_hand),
    ] = "suspend",
    announce: Annotated[
        str | None,
        typer.Option(metavar="NOTICE", help="Announce a Scheduled Event this long before; 0s: at once."),
    ] = None,
    resync: Annotated[
        str,
        typer.Option(
            metavar="MECHANISM",
            help="The mechanism that corrects its clock.",
            autocompletion=completion.mechanisms,
        ),
    ] = "none",
    in_time: Annotated[
        str | None,
        typer.Option(
            "--expect-in-time", metavar="TIME", help="Its clock is to be within 100 ms this long after."
        ),
    ] = None,
    connect: Connect = None,
    ssh: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="With --connect: a Host of ssh_config.  [default: DOMAIN]"),
    ] = None,
    probe: Annotated[
        str,
        typer.Option(
            metavar="DEPTH",
            help="With --connect, what looks into it: auto, python, shell; agent: without SSH.",
            autocompletion=completion.depths,
        ),
    ] = "auto",
    as_json: Json = False,
    junit: JUnit = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Freeze one guest once, resume it, measure, judge."""
    from lab.session.by_hand import Asked, plan_of
    from lab.session.paths import home
    from lab.session.run import RunOptions

    asked = Asked(target, length, method, announce, resync, in_time, connect, ssh, probe)
    plan = plan_of(asked, home())
    execute(plan, RunOptions(connect), as_json=as_json, junit=junit, quiet=quiet, verbose=verbose)
