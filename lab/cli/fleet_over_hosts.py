"""`freezelab run --hosts FILE` for a playbook whose guests are on hosts, and the child on each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli import cells_over_hosts
from lab.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lab.cli.running import Perform
    from lab.controller.meeting import Meeting
    from lab.core.plan import Plan
    from lab.ports import View
    from lab.record.run import Run
    from lab.session.run import RunOptions

Agreed = Annotated[
    bool, typer.Option("--agreed", hidden=True, help="A child's: freeze at instants of stdin.")
]


def over_hosts(
    plan: Plan, hosts: str | None, playbook: Path | None, given: Mapping[str, Any]
) -> Perform | None:
    """Returns what performs the run on other hosts, for a plan whose guests are there, or for --hosts; None
    for a run on this one. given: all options of `run`. UsageError when the guests are on hosts, and neither a
    hosts file nor a cell is given."""
    from lab.core.fleet_placement import placed_hosts

    names = placed_hosts(plan)
    if names and hosts is None and not given["cell"]:
        hint = f"add --hosts hosts.yaml, or --cell {names[0]} to run those of one host here"
        where = f"playbook {plan.name}"
        raise UsageError(f"its guests are on the hosts {', '.join(names)}", where=where, hint=hint)
    if hosts is None:
        return None
    return (performing if names else cells_over_hosts.performing)(hosts, playbook, given)


def performing(hosts: str, playbook: Path | None, given: Mapping[str, Any]) -> Perform:
    """Returns what performs the run, in place of session.run.perform(). given: all options of `run`."""
    from pathlib import Path

    from lab.hosts.cluster import is_address

    if is_address(hosts):
        what, hint = "guests on several hosts need a hosts file, no scheduler", "they are reached by SSH"
        raise UsageError(what, where=f"--hosts {hosts}", hint=f"--hosts hosts.yaml: {hint}")
    file, words = cells_over_hosts.sent(playbook, given, "hosts in a playbook")

    def perform(plan: Plan, options: RunOptions, view: View, *_: object) -> tuple[Run, Path]:
        from lab.hosts.fleet_run import FleetOptions
        from lab.hosts.fleet_run import perform as over_hosts
        from lab.hosts.hosts_file import load_hosts

        asked = FleetOptions(file, words, options.tags)
        return over_hosts(plan, asked, load_hosts(Path(hosts)), view)

    return perform


def meeting(plan: Plan) -> Meeting:
    """What the child on a host asks before each freeze, once the controller has let it begin. plan: that of
    this host."""
    from lab.hosts.cell_task import in_a_line
    from lab.process.clock import HostClock
    from lab.session.machine_report import identity
    from lab.session.plan_checks import obstacles, source_obstacles
    from lab.session.rendezvous import LACKS, Rendezvous

    made, found = Rendezvous(HostClock()), [*source_obstacles(plan), *obstacles(plan)]
    made.introduce({**identity(), **({LACKS: in_a_line(found[0])} if found else {})})
    return made
