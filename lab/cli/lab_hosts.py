"""`freezelab labhost`, and runs in the lab host: `freezelab --on labhost run`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from lab.cli.commands import Commands
from lab.cli.options import Accelerator, Quiet, accelerator_request, boot_seconds
from lab.errors import UsageError
from lab.process.signals import Signals

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence
    from pathlib import Path

    from lab.core.plan import Plan
    from lab.session.lab_host_shell import LabHostShell

lab_host = Commands(no_args_is_help=True, help="Real KVM in a lab host, a guest of this machine.")


@lab_host.command()
def up(
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Its memory, such as 4GiB.")] = "3GiB",
    vcpus: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="Its virtual CPUs.")] = 2,
    accelerator: Accelerator = "auto",
    boot: Annotated[str | None, typer.Option(metavar="TIME", help="How long its boot may take.")] = None,
    golden: Annotated[
        bool, typer.Option("--golden/--cold", help="Start it from its golden state, or boot it.")
    ] = True,
    reserve: Annotated[
        str, typer.Option(metavar="SIZE", help="Memory that outlives its kernel (replace-host-kernel).")
    ] = "",
    kernel: Annotated[
        str, typer.Option(metavar="RELEASE", help="Its kernel: 6.12 instead of its image's first, 6.1.")
    ] = "",
    image: Annotated[
        str, typer.Option(metavar="IMAGE", help="Its image; labhost-newer has a third kernel.")
    ] = "labhost",
    emulator: Annotated[
        str,
        typer.Option(
            metavar="QEMU",
            help="The QEMU that runs it, as in playbooks. Without it: system, or trixie, which is fetched, "
            "where KVM is emulated and the system's QEMU is older than 10.",
        ),
    ] = "",
    quiet: Quiet = False,
) -> None:
    """Start the lab host, which is kept until `labhost down`."""
    from lab.cli.views import view_for
    from lab.session import lab_host as session
    from lab.session.paths import home

    request, boot_s = accelerator_request(accelerator), boot_seconds(boot)
    options = session.LabHostOptions(memory, vcpus, request, boot_s, golden, reserve, kernel, image, emulator)
    guest = session.up(home(), options, partial(view_for, quiet=quiet))
    typer.echo(f"{session.described(guest)}; freezelab labhost down removes it\n{guest.login}")


@lab_host.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def ssh(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND", help="A command, or options of ssh; a login without one."),
    ] = None,
) -> None:
    """Log in to the lab host, or run a command in it; the exit code is that of ssh."""
    from lab.process.replacement import become
    from lab.session import kept_guest_access as access
    from lab.session import lab_host as session
    from lab.session.paths import home

    become(access.login(session.find(home()), command or []))


@lab_host.command()
def down() -> None:
    """Remove the lab host and all that is in it. Records that were brought here stay."""
    from lab.session import kept_guests
    from lab.session import lab_host as session
    from lab.session.paths import home

    with Signals():
        for line in kept_guests.down(home(), [session.known(home()).name]):
            typer.echo(line)


@lab_host.command("test", context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def run_tests(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGS", help="Arguments of pytest.  [default: tests/guest]")
    ] = None,
) -> None:
    """Run freezelab's own tests in the lab host, file by file; it is started if there is none.

    A lab host that fails is started again. Exit code 1: a test has failed; 4: a file could not be run."""
    from lab.cli.views import view_for
    from lab.session import kept_guests, lab_host_tests
    from lab.session import lab_host as session
    from lab.session.lab_host_code import clone
    from lab.session.paths import home

    def start() -> LabHostShell:
        options = session.LabHostOptions()
        if session.exists(home()):
            failed = session.known(home())
            options = session.LabHostOptions.read(failed)
            for _ in kept_guests.down(home(), [failed.name]):
                pass
        return session.shell_of(session.up(home(), options, partial(view_for, quiet=False)))

    files, options = lab_host_tests.files_of(arguments or [], clone())
    shell = session.shell_of(session.find(home())) if session.exists(home()) else start()
    tested: list[lab_host_tests.FileTested] = []
    try:
        with Signals():
            tested.extend(lab_host_tests.LabHostTests(shell, start, typer.echo).run(files, options))
    finally:
        typer.echo("")
        for one in tested:
            typer.echo(str(one))
    raise typer.Exit(lab_host_tests.exit_code(tested))


def check_on(name: str | None, command: str | None) -> None:
    """UsageError when `--on NAME` does not go with a command."""
    if name is None:
        return
    from lab.session.lab_host_shell import NAME

    if name != NAME:
        raise UsageError(f"nothing is run on {name!r}", where="--on", hint=f"known: {NAME}")
    if command != "run":
        hint = f"in the lab host: freezelab labhost ssh freezelab {command or ''}".rstrip()
        raise UsageError("only run can be on the lab host", where="--on", hint=hint)


_THERE = ("repeat", "control", "boot", "golden", "wait", "tag", "accelerator", "shard", "cell")
_HERE = ("playbook", "accept_loss", "as_json", "junit", "metrics", "quiet", "verbose")


def options_there(
    given: Mapping[str, Any], by: str = "--on", there: Container[str] = _THERE, here: Container[str] = _HERE
) -> list[str]:
    """The options of `run` that are for where it goes, as words. by: the option that sends it there. there:
    those that can go. here: those that are for this process alone. UsageError for another one."""
    words: list[str] = []
    for name, value in given.items():
        unset = value in (None, "") or (isinstance(value, list | tuple) and not value)
        unset = unset or (value is False and name != "golden")
        if unset or name in here:
            continue
        option = f"--{name.replace('_', '-')}"
        if name not in there:
            raise UsageError(f"{option} cannot be used with {by}", where="run")
        if name == "golden":
            words.append("--golden" if value else "--cold")
        elif value is True:
            words.append(option)
        else:
            several = value if isinstance(value, list | tuple) else [value]
            words += [word for one in several for word in (option, str(one))]
    return words


def run_there(
    plan: Plan,
    playbook: Path,
    options: Sequence[str],
    *,
    as_json: bool,
    junit: Path | None,
    metrics: Path | None,
    quiet: bool,
    verbose: bool,
    accept_loss: bool = False,
    tagged: tuple[str, ...] = (),
) -> NoReturn:
    """Run a plan in the lab host, bring its record here, show it, and leave with the run's exit code.
    options: of `run`, for the lab host. A plan that replaces the lab host's kernel is run from here;
    accept_loss, tagged: for it."""
    from lab.session.host_kernel_plan import replaces_kernel

    if replaces_kernel(plan):
        from lab.cli.running import execute, live_outputs
        from lab.session.host_kernel_run import perform
        from lab.session.run import RunOptions

        live = live_outputs(metrics, json_lines=False, as_json=as_json)
        execute(
            *(plan, RunOptions(tags=tagged)),
            as_json=as_json, junit=junit, quiet=quiet, verbose=verbose, live=live, playbook=playbook,
            perform=partial(perform, accept_loss=accept_loss),
        )  # fmt: skip
    if accept_loss:
        raise UsageError("--accept-loss goes with the patch replace-host-kernel", where="run")
    from lab.cli.running import show
    from lab.cli.views import view_for
    from lab.record.journal import read_history
    from lab.record.run import judge
    from lab.session import lab_host_run
    from lab.session.paths import home

    with Signals():
        with view_for((), quiet=quiet) as (view, progress):
            shell = lab_host_run.prepare(home(), plan, view, progress)
        there = lab_host_run.RunInLabHost(shell, plan, playbook, [*options, *(["--quiet"] if quiet else [])])
        status, folder = there.finished(home())
    if folder is not None:
        again, _ = judge(read_history(folder))
        show(again, folder, as_json, junit, verbose, metrics=metrics)
    raise typer.Exit(status)
