"""What stands in for cells on the hosts of tests.bench.simulated_hosts, and for `freezelab` on those of
tests.bench.simulated_fleet: the real controller with the guests of tests.unit.sim_fleet, on a clock of their
own, and a real history of it. Without arguments it is a server of cells."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab.core.history import SCHEMA, CellReached, GuestBooted, HistoryEvent, RunEnded, RunStarted
from lab.core.parallel_cells import part_of
from lab.host import facts
from lab.hosts.cell_server import serve
from lab.playbook import load
from lab.ports import Journal
from lab.process.clock import HostClock
from lab.record.journal import FileJournal
from lab.session.machine_report import identity
from lab.session.rendezvous import Rendezvous
from tests.unit.cell_worker import FAKED
from tests.unit.journalled import HOST
from tests.unit.sim_fleet import AboutToFreeze, SimGuest, World


class _Nobody:
    def append(self, event: HistoryEvent) -> None:
        """Nothing is kept."""


@dataclass
class JournalledWorld(World):
    """A world whose events are written to a journal."""

    journal: Journal = field(default_factory=_Nobody)

    def append(self, event: HistoryEvent | AboutToFreeze) -> None:
        if not isinstance(event, AboutToFreeze):
            self.journal.append(event)


@dataclass
class SimulatedMeeting(Rendezvous):
    """A rendezvous of a world whose clock has gone on without waiting."""

    world: JournalledWorld
    clock: HostClock = field(default_factory=HostClock)

    def __post_init__(self) -> None:
        super().__init__(self.clock)

    def __call__(self) -> None:
        super().__call__()
        self.world.at = max(self.world.at, self.clock.now().raw_ns)


def main(words: Sequence[str]) -> int:
    def of(option: str) -> str:
        return words[words.index(option) + 1]

    whole = load(Path(words[1]))
    part, run = part_of(whole, {of("--cell")}), of("--run-id")
    folder = Path(os.environ["FREEZELAB_HOME"]) / "runs" / run
    folder.mkdir(parents=True)
    (cell,) = part.cells
    world = JournalledWorld({spec.name: SimGuest(spec.name) for spec in cell.guests})
    meeting = None
    if "--agreed" in words:
        place = Path(os.environ[FAKED])
        facts._MACHINE_ID, facts._BOOT_ID = place / "machine-id", place / "boot-id"
        meeting = SimulatedMeeting(world)
        meeting.introduce(identity())
        world.at = meeting.clock.now().raw_ns
    with FileJournal(folder, world) as journal:
        world.journal = journal
        journal.append(RunStarted(SCHEMA, run, part, HOST, None, (), whole))
        journal.append(CellReached(cell.id))
        for spec in cell.guests:
            journal.append(GuestBooted(spec.name, {"started": "golden"}, cell.id))
        subjects = {name: replace(one, cell=cell.id) for name, one in world.subjects().items()}
        runner = world.runner(cell, meeting=meeting)
        for index in range(cell.repeat):
            runner.run(index, subjects)
        journal.append(RunEnded(interrupted=False, failure=""))
    return 0


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(main(sys.argv[1:]))
    serve(main)
