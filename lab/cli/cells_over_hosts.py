"""`freezelab run --hosts`: a matrix's cells on several hosts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.cli.running import Perform
    from lab.core.plan import Plan
    from lab.ports import View
    from lab.record.run import Run
    from lab.session.run import RunOptions

Hosts = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|ADDRESS",
        help="Run a matrix's cells on the hosts of a file, or of a Dask scheduler: tls://scheduler:8786.",
    ),
]

_THERE = ("repeat", "control", "boot", "golden", "wait", "tag", "accelerator")
_HERE = ("playbook", "hosts", "as_json", "json_lines", "junit", "metrics", "quiet", "verbose")


def sent(
    playbook: Path | None, given: Mapping[str, Any], by: str, here: tuple[str, ...] = ()
) -> tuple[Path, tuple[str, ...]]:
    """The playbook and the words of `run` that go to hosts. given: all options of `run`. by: what sends them
    there. here: more options that stay here. UsageError for what cannot go."""
    from lab.cli.lab_hosts import options_there

    words = options_there(given, by, _THERE, (*_HERE, *here))
    if playbook is None:
        raise UsageError(f"--resume with {by} needs the playbook as well: it is sent there", where="run")
    return playbook.absolute(), tuple(words)


def performing(hosts: str, playbook: Path | None, given: Mapping[str, Any]) -> Perform:
    """Returns what performs the run, in place of session.run.perform(). given: all options of `run`.
    UsageError for one that does not go with --hosts."""
    file, words = sent(playbook, given, "--hosts", ("resume",))

    def perform(plan: Plan, options: RunOptions, view: View, *_: object) -> tuple[Run, Path]:
        from lab.hosts.cluster import connected, is_address
        from lab.hosts.distributed_run import HostsRunOptions
        from lab.hosts.distributed_run import perform as over_hosts
        from lab.hosts.parts import complete_parts
        from lab.session.run_folders import find_run

        if is_address(hosts):
            cluster = connected(hosts)
        else:
            from lab.hosts.hosts_file import load_hosts
            from lab.hosts.ssh_cluster import over_ssh

            cluster = over_ssh(load_hosts(Path(hosts)))
        earlier = complete_parts(find_run(given["resume"]), plan) if given["resume"] else ()
        counts = given["repeat"], given["control"]
        asked = HostsRunOptions(file, *counts, words, options.tags, earlier)
        return over_hosts(plan, asked, cluster, view)

    return perform
