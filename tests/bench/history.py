"""How long `freezelab history` takes to list many runs, of one or more checkouts by turns.

    .venv/bin/python -m tests.bench.history [--runs 2000] [--times 20] [CHECKOUT …]

The runs are copies of tests/data/histories, some of each kind. Every checkout has a state folder of its own
and lists all runs once before it is timed. Times are of the whole command. CHECKOUT: of freezelab, with its
.venv; this one by default.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from tests.bench.pairs import table
from tests.unit.real_histories import NAMES, unpacked

HERE = Path(__file__).parents[2]


def fill(home: Path, runs: int) -> None:
    """Make `runs` run folders of the kept histories below `home`."""
    first: dict[str, Path] = {}
    for number, name in enumerate(islice(cycle(NAMES), runs)):
        folder = home / "runs" / f"20261129-{number:06}-{name}"
        folder.mkdir(parents=True)
        if name in first:
            os.link(first[name] / "events.jsonl", folder / "events.jsonl")
        else:
            first[name] = unpacked(name, folder)


def listed(checkout: Path, home: Path, runs: int) -> tuple[float, float]:
    """Seconds that `freezelab history` of a checkout takes for all runs, and those of CPU time."""
    with tempfile.TemporaryFile() as out:
        began = time.monotonic()
        child = subprocess.Popen(
            [checkout / "freezelab", "history", "--most", str(runs)],
            env=os.environ | {"FREEZELAB_HOME": str(home)},
            stdout=out,
        )
        _, status, used = os.wait4(child.pid, 0)
        took = time.monotonic() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        lines = len(out.read().splitlines())
        if child.returncode or lines < runs:
            raise SystemExit(f"{checkout}: exit code {child.returncode}, {lines} lines for {runs} runs")
    return took, used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkouts", type=Path, nargs="*", default=[HERE])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--times", type=int, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fl-") as folder:
        homes = {one: Path(folder) / str(n) for n, one in enumerate(asked.checkouts)}
        for home in homes.values():
            fill(home, asked.runs)
        took: dict[str, list[float]] = {str(one): [] for one in homes}
        spent: dict[str, list[float]] = {str(one): [] for one in homes}
        for one, home in homes.items():
            seconds, cpu = listed(one.resolve(), home, asked.runs)
            print(f"first listing by {one}: {seconds:.2f} s, {cpu:.2f} s of CPU")
        for _ in range(asked.times):
            for one, home in homes.items():
                seconds, cpu = listed(one.resolve(), home, asked.runs)
                took[str(one)].append(seconds)
                spent[str(one)].append(cpu)
    print(f"{asked.runs} runs")
    print(table("s", took))
    print(table("CPU s", spent))


if __name__ == "__main__":
    main()
