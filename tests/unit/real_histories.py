"""Histories of real runs, made on 2026-11-28 (bridge, busy-host, network: 2026-11-29, live-migrate, merged,
over-hosts: 2026-11-30) by the build of that day, and the run.json that was made of each.

A change that is meant to judge them otherwise makes their run.json anew, and says so in its commit:

    python -m tests.unit.real_histories
"""

from __future__ import annotations

import gzip
import sys
import tempfile
from functools import cache
from pathlib import Path

from lab.record.journal import EVENTS, read_history
from lab.record.run import RUN, Run, judge, to_json

HISTORIES = Path(__file__).parent.parent / "data" / "histories"
NAMES = sorted(folder.name for folder in HISTORIES.iterdir() if folder.is_dir())


def unpacked(name: str, into: Path) -> Path:
    """A folder in which the history of `name` lies as its run left it."""
    (into / EVENTS).write_bytes(gzip.decompress((HISTORIES / name / f"{EVENTS}.gz").read_bytes()))
    return into


@cache
def real(name: str) -> Run:
    """The run, as this build judges it."""
    with tempfile.TemporaryDirectory() as folder:
        return judge(read_history(unpacked(name, Path(folder))))[0]


def recorded(name: str) -> str:
    """The run.json that was made of it."""
    return gzip.decompress((HISTORIES / name / f"{RUN}.gz").read_bytes()).decode()


if __name__ == "__main__":
    for each in sys.argv[1:] or NAMES:
        with tempfile.TemporaryDirectory() as folder:
            made = to_json(judge(read_history(unpacked(each, Path(folder))))[0])
        (HISTORIES / each / f"{RUN}.gz").write_bytes(gzip.compress(made.encode(), mtime=0))
