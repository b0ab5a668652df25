"""`freezelab hosts`: several machines, reached by SSH."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.cli.commands import Commands
from lab.cli.streams import note
from lab.process.signals import Signals

hosts = Commands(no_args_is_help=True, help="Check and free other machines, which a hosts file names.")

HostsArgument = Annotated[Path, typer.Argument(metavar="HOSTS", help="A hosts file: hosts.yaml.")]


@hosts.command()
def check(
    file: HostsArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check hosts: doctor, versions, calibration, clock, link; and whether they go together."""
    from lab.hosts import check as session
    from lab.hosts.hosts_file import load_hosts
    from lab.process.clock import HostClock

    with Signals():
        found = session.check(load_hosts(file), HostClock())
    if as_json:
        from lab.record.hosts_check import as_json as made

        typer.echo(made(found), nl=False)
    else:
        from lab.report.console import stdout_console
        from lab.report.hosts import render_hosts

        render_hosts(found, stdout_console())
    raise typer.Exit(4 if any(problem.fails for problem in found.problems) else 0)


@hosts.command()
def recover(
    file: HostsArgument,
    keep: Annotated[bool, typer.Option("--keep", help="Resume the guests instead of removing them.")] = False,
) -> None:
    """Remove what killed runs, workers and links left on hosts, or resume its guests."""
    from lab.hosts import recover as session
    from lab.hosts.hosts_file import load_hosts
    from lab.process.clock import HostClock
    from lab.report.text import clean

    with Signals():
        found = session.recover(load_hosts(file), HostClock(), resume=keep)
    for host in found:
        for line in host.lines:
            typer.echo(f"{host.name}: {clean(line)}")
    failures = [host.failure for host in found if host.failure is not None]
    for failure in failures:
        note(str(failure))
    raise typer.Exit(4 if failures else 0)


@hosts.command(hidden=True)
def worker() -> None:
    """What run --hosts FILE starts on each host."""
    import sys

    from lab.hosts.host_worker import serve

    with Signals():
        serve(sys.stdin, sys.stdout)
