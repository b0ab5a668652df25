"""`freezelab image` and `freezelab emulator`: what is kept on disk for guests to be made of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.cli import completion
from lab.cli.commands import Commands
from lab.cli.streams import note
from lab.errors import UsageError

images = Commands(no_args_is_help=True, help="Build, import, list and remove guest images.")
emulators = Commands(no_args_is_help=True, help="Fetch, list and remove QEMU versions beside the system's.")


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
    from lab.process.signals import Signals
    from lab.session.images import build

    with Signals():
        typer.echo(build(name, build_progress, force=force))


@images.command("import")
def image_import(
    name: Annotated[str, typer.Argument(help="The name that playbooks will use.")],
    file: Annotated[Path | None, typer.Argument(help="A qcow2 or raw disk, with cloud-init.")] = None,
    from_disk: Annotated[
        Path | None, typer.Option("--from-disk", help="A block device or raw disk instead of a file.")
    ] = None,
    sha256: Annotated[str, typer.Option("--sha256", help="What sha256sum prints for the file.")] = "",
    firmware: Annotated[str, typer.Option("--firmware", help="What boots it: auto, bios or uefi.")] = "auto",
    user: Annotated[str, typer.Option("--user", help="Who logs in, and becomes root by sudo.")] = "root",
    probe: Annotated[
        str, typer.Option("--probe", help="What looks into its guests: auto, or agent without SSH.")
    ] = "auto",
    no_try: Annotated[bool, typer.Option("--no-try", help="Do not boot a guest of it.")] = False,
    memory: Annotated[str, typer.Option("--memory", help="The memory of the guest that is booted.")] = "1GiB",
    accelerator: Annotated[
        str, typer.Option("--accelerator", help="For the guest that is booted: auto, kvm or tcg.")
    ] = "auto",
    boot: Annotated[
        str | None, typer.Option("--boot", help="The longest time until it answers, such as 20min.")
    ] = None,
) -> None:
    """Import a disk of your own as an image, and boot a guest of it. The file is never changed."""
    from lab.cli.options import accelerator_request, boot_seconds
    from lab.cli.views import view_for
    from lab.process.signals import Signals
    from lab.session.image_import import GUEST, ImportOptions, firmware_request, import_image, probe_request
    from lab.session.image_survey import summary

    if (file is None) == (from_disk is None):
        raise UsageError("name one disk: a file, or --from-disk and a block device")
    options = ImportOptions(
        name,
        file or from_disk or Path(),
        device=from_disk is not None,
        sha256=sha256,
        firmware=firmware_request(firmware),
        user=user,
        attempt=not no_try,
        memory=memory,
        accelerator=accelerator_request(accelerator),
        boot_s=boot_seconds(boot),
        probe=probe_request(probe),
    )
    with Signals(), view_for([GUEST], quiet=False) as (view, progress):
        made = import_image(options, view, progress)
    for line in summary(made):
        typer.echo(line)


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
    from lab.process.signals import Signals
    from lab.session.emulators import fetch

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
    from lab.process.signals import Signals
    from lab.session.emulators import remove

    with Signals():
        for line in remove(which):
            typer.echo(line)
