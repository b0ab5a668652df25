"""`freezelab image` and `freezelab emulator`: what is kept on disk for guests to be made of."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.cli import completion
from lab.cli.streams import note

images = typer.Typer(no_args_is_help=True, help="Build, list and remove guest images.")
emulators = typer.Typer(
    no_args_is_help=True, help="Fetch, list and remove QEMU versions beside the system's."
)


@images.command("build")
def image_build(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="The name of an image, or a recipe's folder.",
            autocompletion=completion.recipes,
        ),
    ] = "debian",
    force: Annotated[bool, typer.Option("--force", help="Build it even if it exists.")] = False,
) -> None:
    """Build a guest image, unless it is built already."""
    from lab.cli.views import build_progress
    from lab.session.images import build
    from lab.session.signals import Signals

    with Signals():
        typer.echo(build(name, build_progress, force=force))


@images.command("list")
def image_list() -> None:
    """List images, built or not."""
    from lab.report.console import stdout_console
    from lab.report.listings import render_store
    from lab.session.images import HEADS, listing

    render_store(HEADS, list(listing()), stdout_console())


@images.command("remove")
def image_remove(
    which: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The name or digest of an image.", autocompletion=completion.built_images
        ),
    ],
) -> None:
    """Remove built images."""
    from lab.session.images import remove

    for line in remove(which):
        typer.echo(line)


@emulators.command("fetch")
def emulator_fetch(
    name: Annotated[
        str, typer.Argument(metavar="SUITE", help="backports, or a suite of this Debian's archive.")
    ] = "backports",
) -> None:
    """Fetch and unpack a suite's newest QEMU; nothing is installed."""
    from lab.session.emulators import fetch
    from lab.session.signals import Signals

    with Signals():
        typer.echo(fetch(name, note))


@emulators.command("list")
def emulator_list() -> None:
    """List the system's QEMU and the fetched ones."""
    from lab.report.console import stdout_console
    from lab.report.listings import render_store
    from lab.session.emulators import HEADS, listing

    render_store(HEADS, list(listing()), stdout_console())


@emulators.command("remove")
def emulator_remove(
    which: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The name of a fetched emulator.", autocompletion=completion.emulators
        ),
    ],
) -> None:
    """Remove fetched emulators."""
    from lab.session.emulators import remove
    from lab.session.signals import Signals

    with Signals():
        for line in remove(which):
            typer.echo(line)
