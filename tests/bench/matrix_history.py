"""A history of all cells of the playbook resync-matrix, made of kept ones.

    .venv/bin/python -m tests.bench.matrix_history FOLDER

Each cell has the cycle of a cell of tests/data/histories/resync-cells (a busy machine, watcher's records) or
matrix (more readings), by turns, under the guest's and the cell's own name.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

from tests.unit.real_histories import HISTORIES

Event = dict[str, Any]
SOURCES = ("matrix", "resync-cells")
OF_A_CYCLE = "cycle"


def cycles_of(name: str) -> list[list[Event]]:
    """The events of each guest's cycle of a kept history."""
    found: dict[tuple[int, str], list[Event]] = {}
    for line in gzip.decompress((HISTORIES / name / "events.jsonl.gz").read_bytes()).splitlines():
        event = json.loads(line)
        if event.get(OF_A_CYCLE) is None:
            continue
        guests = [event["guest"]] if "guest" in event else event["guests"]
        for guest in guests:
            here = event | ({"guests": [guest]} if "guests" in event else {})
            found.setdefault((event[OF_A_CYCLE], guest), []).append(here)
    return list(found.values())


def events_of(plan: Event, start: Event) -> Iterator[Event]:
    """The events of a run of all cells, one after another."""
    yield start | {"id": "matrix", "plan": plan}
    sources = cycle([one for name in SOURCES for one in cycles_of(name)])
    stamp = {name: start[name] for name in ("raw_ns", "real_ns")}
    for number, (cell, source) in enumerate(zip(plan["cells"], sources, strict=False)):
        guest = cell["guests"][0]["name"]
        yield {"kind": "cell", "id": cell["id"], **stamp}
        for event in source:
            own: Event = {OF_A_CYCLE: number}
            own |= {"guest": guest} if "guest" in event else {"guests": [guest]}
            own |= {"cell": cell["id"]} if event["kind"] == "cycle" else {}
            yield event | own
    yield {"kind": "run-end", "interrupted": False, "failure": "", **stamp}


def write(folder: Path) -> Path:
    """Write the history into a folder, which is made. Returns the folder."""
    import dataclasses

    from lab.playbook import load
    from lab.session.paths import PLAYBOOKS

    with gzip.open(HISTORIES / SOURCES[0] / "events.jsonl.gz", "rt", encoding="utf-8") as file:
        start = json.loads(file.readline())
    plan = json.loads(json.dumps(dataclasses.asdict(load(PLAYBOOKS / "resync-matrix.yaml"))))
    folder.mkdir(parents=True)
    with (folder / "events.jsonl").open("w", encoding="utf-8") as out:
        for seq, event in enumerate(events_of(plan, start)):
            out.write(json.dumps(event | {"seq": seq}, separators=(",", ":")) + "\n")
    return folder


if __name__ == "__main__":
    write(Path(sys.argv[1]))
