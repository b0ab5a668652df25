"""Kept guests, which run until `freezelab down`."""

from __future__ import annotations

import json
from functools import partial
from typing import Annotated

import typer

from lab.cli import completion, streams
from lab.cli.commands import Commands
from lab.cli.options import Accelerator, Guest, Quiet, accelerator_request, boot_seconds
from lab.errors import Interrupted
from lab.process.signals import Signals

commands = Commands()


@commands.command()
def up(
    name: Annotated[str, typer.Option(metavar="NAME", help="The guest's name.")] = "web-0",
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Its memory, such as 1GiB.")] = "512MiB",
    vcpus: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="Its virtual CPUs.")] = 1,
    image: Annotated[
        str, typer.Option(metavar="NAME", help="The name of an image.", autocompletion=completion.recipes)
    ] = "debian",
    resync: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The mechanism that corrects its clock.",
            autocompletion=completion.kept_guest_mechanisms,
        ),
    ] = "none",
    accelerator: Accelerator = "auto",
    boot: Annotated[str | None, typer.Option(metavar="TIME", help="How long its boot may take.")] = None,
    quiet: Quiet = False,
) -> None:
    """Start a guest that is kept until `down`."""
    from lab.cli.views import view_for
    from lab.session import kept_guest_start
    from lab.session.paths import home

    request, boot_s = accelerator_request(accelerator), boot_seconds(boot)
    options = kept_guest_start.UpOptions(name, memory, vcpus, image, resync, request, boot_s)
    guest = kept_guest_start.up(home(), options, partial(view_for, quiet=quiet))
    typer.echo(f"guest {guest.name} is running; freezelab down {guest.name} removes it\n{guest.login}")


@commands.command("list")
def list_guests(
    as_json: Annotated[bool, typer.Option("--json", help="Print the guests as JSON.")] = False,
) -> None:
    """List kept guests, and how to log in."""
    from lab.session import kept_guests
    from lab.session.paths import home

    there = kept_guests.listing(home())
    if as_json:
        typer.echo(json.dumps(there, indent=1))
        return
    from lab.report.console import stdout_console
    from lab.report.listings import render_kept_guests

    render_kept_guests(there, stdout_console())


@commands.command()
def down(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Names of kept guests.", autocompletion=completion.kept_guests),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All kept guests.")] = False,
) -> None:
    """Remove kept guests."""
    from lab.session import kept_guests
    from lab.session.paths import home

    with Signals():
        for line in kept_guests.down(home(), names or [], everything=everything):
            typer.echo(line)


@commands.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def ssh(
    guest: Guest,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND", help="A command, or options of ssh; a login without one."),
    ] = None,
) -> None:
    """Log in to a kept guest, or run a command in it; the exit code is that of ssh."""
    from lab.process.replacement import become
    from lab.session import kept_guest_access as access
    from lab.session import kept_guests
    from lab.session.paths import home

    there = kept_guests.find(home(), guest)
    if why := access.check_running(home(), there):
        streams.note(why)
    become(access.login(there, command or []))


@commands.command()
def cp(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FROM", help="A file or folder, here or GUEST:PATH.", autocompletion=completion.places
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(metavar="TO", help="Where to, here or GUEST:PATH.", autocompletion=completion.places),
    ],
) -> None:
    """Copy a file or folder into a kept guest or out of it; the exit code is that of scp."""
    from lab.process.replacement import become
    from lab.session import kept_guest_access as access
    from lab.session.paths import home

    there, argv = access.copy(home(), source, target)
    if why := access.check_running(home(), there):
        streams.note(why)
    become(argv)


@commands.command()
def console(
    guest: Guest,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Show new lines until the guest ends, or Ctrl-C.")
    ] = True,
) -> None:
    """Show the log of a kept guest's console; nothing can be typed there."""
    from lab.process.clock import HostClock
    from lab.report.text import without_escapes
    from lab.session import kept_guest_access as access
    from lab.session import kept_guests
    from lab.session.paths import home

    there = kept_guests.find(home(), guest)
    streams.note(f"the console of {there.name}, to be read only: {there.console}")
    with Signals():
        try:
            for line in access.console_lines(home(), there, HostClock(), follow=follow):
                typer.echo(without_escapes(line))
        except Interrupted:
            return
    if follow:
        streams.note(f"guest {there.name} has ended")


@commands.command()
def drift(
    guest: Annotated[
        str | None,
        typer.Argument(
            metavar="GUEST", help="The name of a kept guest.", autocompletion=completion.kept_guests
        ),
    ] = None,
    length: Annotated[str, typer.Option("--for", metavar="TIME", help="How long to measure.")] = "10m",
    every: Annotated[str, typer.Option(metavar="TIME", help="Interval between bursts of readings.")] = "1s",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No plot on stderr.")] = False,
) -> None:
    """Measure the drift of a kept guest's clocks; Ctrl-C ends it early."""
    from lab.report.console import stdout_console
    from lab.report.drift import render_look, watching
    from lab.session import drift_study
    from lab.session import kept_guest_access as access
    from lab.session.paths import home

    kept_guest, wanted = drift_study.which(home(), guest), drift_study.times(length, every)
    if why := access.check_running(home(), kept_guest):
        streams.note(why)
    with Signals(), watching(kept_guest.name, wanted.length_ns, quiet=quiet) as view:
        look = drift_study.watch(kept_guest, wanted, view)
    if as_json:
        typer.echo(json.dumps(drift_study.as_data(kept_guest, look), indent=1))
    else:
        render_look(kept_guest.name, look, wanted.length_ns, stdout_console())
