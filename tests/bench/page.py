"""How long `freezelab report --html` takes, how large its page is, and when a browser first paints it.

    .venv/bin/python -m tests.bench.page [--times 5] [--run FOLDER]

--run: the folder of a run; by default one is made of kept histories, with the 72 cells of the playbook
resync-matrix (tests.bench.matrix_history). The CPU time is that of the whole command, the interpreter and the
judging included; "page" is what making it takes beyond a report without one. First paint: of Debian's
chromium, by the page's own paint entries (W3C Paint Timing), since the begin of its navigation, with a cold
cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.unit.browsers import chromium

HERE = Path(__file__).parents[2]
PAINT = "return performance.getEntriesByName('first-contentful-paint').map(e => e.startTime)"


def reported(run: Path, *options: str) -> tuple[float, float]:
    """The seconds and the CPU seconds of a report."""
    began = time.monotonic()
    argv = [sys.executable, "-m", "lab.cli.main", "report", *options, str(run)]
    child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, cwd=HERE)
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in (0, 1, 3):
        raise SystemExit(f"report ended with {child.returncode}")
    return time.monotonic() - began, used.ru_utime + used.ru_stime


def painted(page: Path, times: int) -> list[float]:
    """Milliseconds until the first paint, of browsers that are new each time."""
    found = []
    for _ in range(times):
        with tempfile.TemporaryDirectory(prefix="fl-") as folder, chromium(Path(folder)) as view:
            view.open(page)
            deadline = time.monotonic() + 30
            while not (entries := view.run(PAINT)):
                if time.monotonic() > deadline:
                    raise SystemExit("nothing was painted")
                time.sleep(0.05)
            found.append(float(entries[0]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--times", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fl-") as folder:
        run, page = asked.run or Path(folder) / "run", Path(folder) / "run.html"
        if asked.run is None:
            subprocess.run([sys.executable, "-m", "tests.bench.matrix_history", run], check=True)
        without = [reported(run) for _ in range(asked.times)]
        given = [reported(run, "--html", str(page)) for _ in range(asked.times)]
        for name, place in (("s", 0), ("CPU s", 1)):
            with_page = statistics.median(one[place] for one in given)
            more = with_page - statistics.median(one[place] for one in without)
            print(f"report --html {with_page:.2f} {name}, of which the page {more:.2f}")
        print(f"size {page.stat().st_size / 1e6:.2f} MB")
        paints = painted(page, asked.times)
        print(f"first paint {statistics.median(paints):.0f} ms ({min(paints):.0f} to {max(paints):.0f})")


if __name__ == "__main__":
    main()
