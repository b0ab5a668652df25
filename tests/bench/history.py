"""How long `freezelab history` takes to list many runs, of one or more checkouts by turns.

    .venv/bin/python -m tests.bench.history [--runs 2000] [--times 20] [CHECKOUT …]

The runs are copies of tests/data/histories, some of each kind. Every checkout has a state folder of its own
and lists all runs once before it is timed. Prints each one's median, p95 and largest time of the whole
command, and of the first listing. CHECKOUT: of freezelab, with its .venv; this one by default.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

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


def listed(checkout: Path, home: Path, runs: int) -> float:
    """Seconds that `freezelab history` of a checkout takes for all runs."""
    began = time.monotonic()
    done = subprocess.run(
        [checkout / "freezelab", "history", "--most", str(runs)],
        env=os.environ | {"FREEZELAB_HOME": str(home)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    took = time.monotonic() - began
    if (lines := len(done.stdout.splitlines())) < runs:
        raise SystemExit(f"{checkout}: {lines} lines for {runs} runs")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkouts", type=Path, nargs="*", default=[HERE])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--times", type=int, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fl-") as folder:
        homes = {one.resolve(): Path(folder) / str(n) for n, one in enumerate(asked.checkouts)}
        for home in homes.values():
            fill(home, asked.runs)
        first = {one: listed(one, home, asked.runs) for one, home in homes.items()}
        took: dict[Path, list[float]] = {one: [] for one in homes}
        for _ in range(asked.times):
            for one, home in homes.items():
                took[one].append(listed(one, home, asked.runs))
    print(f"{asked.runs} runs, {asked.times} times   median s      p95      max    first")
    for one, found in took.items():
        p95 = statistics.quantiles(found, n=20)[-1] if len(found) > 1 else found[0]
        print(f"{one!s:27} {statistics.median(found):11.2f} {p95:8.2f} {max(found):8.2f} {first[one]:8.2f}")


if __name__ == "__main__":
    main()
