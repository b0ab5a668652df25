"""The peak memory and CPU time of `freezelab report` and `report --json`, of one or more checkouts by turns.

    .venv/bin/python -m tests.bench.report [--times 20] [--run FOLDER] [CHECKOUT …]

--run: the folder of a run; by default one is made of kept histories, with the 72 cells of the playbook
resync-matrix (tests.bench.matrix_history). CHECKOUT: of freezelab, with its .venv; this one by default. The
peak is the largest resident set of the whole command, the interpreter included (getrusage(2)).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.pairs import table

HERE = Path(__file__).parents[2]
VERDICTS = (0, 1, 3)


def reported(checkout: Path, run: Path, *options: str) -> tuple[float, float]:
    """The peak memory in MiB and the CPU seconds of a report."""
    child = subprocess.Popen(
        [checkout / "freezelab", "report", *options, run],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in VERDICTS:
        raise SystemExit(f"{checkout}: report ended with {child.returncode}")
    return used.ru_maxrss / 1024, used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkouts", type=Path, nargs="*", default=[HERE])
    parser.add_argument("--run", type=Path)
    parser.add_argument("--times", type=int, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fl-") as folder:
        run = asked.run or Path(folder) / "run"
        if asked.run is None:
            # In a process of its own: a child's peak is never below what this one had when it was started.
            subprocess.run([sys.executable, "-m", "tests.bench.matrix_history", run], check=True)
        for options in ((), ("--json",)):
            peaks: dict[str, list[float]] = {str(one): [] for one in asked.checkouts}
            spent: dict[str, list[float]] = {str(one): [] for one in asked.checkouts}
            for _ in range(asked.times):
                for one in asked.checkouts:
                    peak, cpu = reported(one.resolve(), run, *options)
                    peaks[str(one)].append(peak)
                    spent[str(one)].append(cpu)
            print(" ".join(("report", *options)))
            print(table("peak MiB", peaks))
            print(table("CPU s", spent), flush=True)


if __name__ == "__main__":
    main()
