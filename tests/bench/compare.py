"""How long `freezelab compare` takes for two matrices of 72 cells each, of one or more checkouts by turns.

    .venv/bin/python -m tests.bench.compare [--times 20] [CHECKOUT …]

The runs are made of kept histories (tests.bench.matrix_history). Every checkout has a state folder of its
own; its first comparison judges both runs, as after an update of freezelab, and is timed apart. Times are of
the whole command. CHECKOUT: of freezelab, with its .venv; this one by default.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

from tests.bench.matrix_history import write
from tests.bench.pairs import table

HERE = Path(__file__).parents[2]
RUNS = ("20261128-120000-matrix-aaa1", "20261129-120000-matrix-aaa2")


def compared(checkout: Path, home: Path, *options: str) -> tuple[float, float]:
    """Seconds that a comparison takes, and those of CPU time."""
    began = time.monotonic()
    child = subprocess.Popen(
        [checkout / "freezelab", "compare", *RUNS, *options],
        env=os.environ | {"FREEZELAB_HOME": str(home)},
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(child.pid, 0)
    took = time.monotonic() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{checkout}: compare ended with {child.returncode}")
    return took, used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkouts", type=Path, nargs="*", default=[HERE])
    parser.add_argument("--times", type=int, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fl-") as folder:
        homes = {one: Path(folder) / str(n) for n, one in enumerate(asked.checkouts)}
        for one, home in homes.items():
            for run in RUNS:
                write(home / "runs" / run)
            seconds, cpu = compared(one.resolve(), home)
            print(f"first comparison by {one}: {seconds:.2f} s, {cpu:.2f} s of CPU")
        for options in ((), ("--json",), ("--html", os.devnull)):
            took: dict[str, list[float]] = {str(one): [] for one in homes}
            spent: dict[str, list[float]] = {str(one): [] for one in homes}
            for _ in range(asked.times):
                for one, home in homes.items():
                    seconds, cpu = compared(one.resolve(), home, *options)
                    took[str(one)].append(seconds)
                    spent[str(one)].append(cpu)
            print(" ".join(("compare", *options)))
            print(table("s", took))
            print(table("CPU s", spent), flush=True)


if __name__ == "__main__":
    main()
