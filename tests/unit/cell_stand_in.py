"""What stands in for `freezelab run --cell` on a host, and for its server: it writes the
history of simulated cycles, or fails.

The playbook's `about` is a JSON object: what a cell does, by its memory. "hang": until SIGTERM, then it ends
as an interrupted run does; "refuse": no record, exit code 4; "raise": a record that ends with an error that
nobody expected; "die": by SIGKILL, with half a record; "die once": the same, and
on no machine after that. All others run.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from lab.core.history import SCHEMA, RunEnded, RunStarted
from lab.core.history.encoding import line_of
from lab.core.parallel_cells import part_of
from lab.core.plan import FreezeMethod
from lab.hosts.cell_server import serve
from lab.playbook import load
from lab.record.journal import EVENTS, read_history
from tests.unit.journalled import HOST, Journalled, cycle, write
from tests.unit.simulation import MS

PLAYBOOK = """\
name: {name}
about: '{about}'
resync: none
matrix: {{memory: [{memory}]}}
cycle: {{patch: {{hold: 300ms}}}}
"""


def playbook(folder: Path, memory: str, **about: str) -> Path:
    """The file of a playbook with a cell for each size. about: what a cell does, by m128MiB and the like."""
    folder.mkdir(exist_ok=True)
    path = folder / "cells.yaml"
    text = json.dumps({name.removeprefix("m"): does for name, does in about.items()})
    path.write_text(PLAYBOOK.format(name="cells", about=text, memory=memory))
    return path


def main(arguments: Sequence[str]) -> int:
    def of(option: str) -> str:
        return arguments[arguments.index(option) + 1]

    runs, run = Path(os.environ["FREEZELAB_HOME"]) / "runs", of("--run-id")
    whole = load(Path(arguments[1]))
    if "--repeat" in arguments:
        repeat = int(of("--repeat"))
        whole = replace(
            whole, repeat=repeat, cells=tuple(replace(cell, repeat=repeat) for cell in whole.cells)
        )
    part = part_of(whole, {of("--cell")})
    does = json.loads(whole.about or "{}").get(dict(part.cells[0].values)["memory"], "")
    if does == "die once" and not (died := runs.parents[2] / "died").exists():
        died.touch()
        does = "die"
    if does == "refuse":
        sys.stderr.write("freezelab: image debian: cannot be built\nfreezelab doctor\n")
        return 4
    pause_ns, numbers = 300 * MS, count(1)
    cells = [
        Journalled(
            cell, [cycle(FreezeMethod.SUSPEND, i, pause_ns, seed=next(numbers)) for i in range(cell.repeat)]
        )
        for cell in part.cells
    ]
    folder = write(runs, run, cells)
    folder.chmod(0o700)  # as that of a run
    history = read_history(folder)
    lines = (folder / EVENTS).read_text().splitlines()
    lines[0] = line_of(RunStarted(SCHEMA, run, part, HOST, None, (), whole), 0, history.began)
    if does not in ("", "die once"):
        lines = lines[:3]  # the cell has been reached, and its guest booted

    def save(*more: RunEnded) -> None:
        ends = [line_of(event, len(lines), history.ended) for event in more]
        (folder / EVENTS).write_text("".join(f"{line}\n" for line in [*lines, *ends]))

    save()
    if does == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if does == "hang":
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        (runs.parent / "hangs").write_text(str(os.getpid()))
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            save(RunEnded(interrupted=True, failure="interrupted by SIGTERM"))
            return 130
    if does == "raise":
        save(RunEnded(interrupted=False, failure="TypeError: unhashable"))
        return 1
    return 0


if __name__ == "__main__":
    serve(main)
