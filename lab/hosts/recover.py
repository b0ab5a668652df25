"""`freezelab hosts recover`: frees what a dead controller, worker or link left, on every host."""

from __future__ import annotations

from dataclasses import dataclass

from lab.errors import FreezelabError, MachineError
from lab.hosts.hosts_file import HostsFile
from lab.hosts.link import SshLink, ask_all
from lab.process.clock import HostClock

RECOVER_S = 600.0


@dataclass(frozen=True)
class HostRecovery:
    """lines: what `recover` printed there, a line for each action. failure: why it was not asked or did not
    get to its end; None when it did."""

    name: str
    lines: tuple[str, ...] = ()
    failure: FreezelabError | None = None


def recover(file: HostsFile, clock: HostClock, *, resume: bool) -> list[HostRecovery]:
    """Run `recover` on all hosts, side by side. resume: guests of dead runs are resumed instead of removed.
    Interrupted cuts the links; what has begun on a host goes on there."""
    links = [SshLink(entry, clock) for entry in file.hosts]
    arguments = ["recover", *(["--keep"] if resume else [])]

    def ask(link: SshLink) -> HostRecovery:
        name, lines = link.entry.name, tuple[str, ...]()
        try:
            with link:
                done = link.freezelab(arguments, RECOVER_S)
            lines = tuple(line for line in done.out.splitlines() if line.strip())
            if done.status == 0:
                return HostRecovery(name, lines)
            what = "; ".join(done.err.strip().splitlines()) or f"exit status {done.status}"
            raise MachineError(what.removeprefix("freezelab: "), where=f"host {name}")
        except FreezelabError as error:
            return HostRecovery(name, lines, error)

    return ask_all(links, ask)
