"""What stands in for cells on the hosts of tests.bench.simulated_hosts: the real controller with the guests
of tests.unit.sim_fleet, on a clock of their own, and a real history of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab.core.history import SCHEMA, CellReached, GuestBooted, HistoryEvent, RunEnded, RunStarted
from lab.core.parallel_cells import part_of
from lab.hosts.cell_server import serve
from lab.playbook import load
from lab.ports import Journal
from lab.record.journal import FileJournal
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


def main(words: Sequence[str]) -> int:
    def of(option: str) -> str:
        return words[words.index(option) + 1]

    whole = load(Path(words[1]))
    part, run = part_of(whole, {of("--cell")}), of("--run-id")
    folder = Path(os.environ["FREEZELAB_HOME"]) / "runs" / run
    folder.mkdir(parents=True)
    (cell,) = part.cells
    world = JournalledWorld({spec.name: SimGuest(spec.name) for spec in cell.guests})
    with FileJournal(folder, world) as journal:
        world.journal = journal
        journal.append(RunStarted(SCHEMA, run, part, HOST, None, (), whole))
        journal.append(CellReached(cell.id))
        for spec in cell.guests:
            journal.append(GuestBooted(spec.name, {"started": "golden"}, cell.id))
        subjects = {name: replace(one, cell=cell.id) for name, one in world.subjects().items()}
        runner = world.runner(cell)
        for index in range(cell.repeat):
            runner.run(index, subjects)
        journal.append(RunEnded(interrupted=False, failure=""))
    return 0


if __name__ == "__main__":
    serve(main)
