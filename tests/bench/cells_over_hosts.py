"""The CPU time of a matrix over several workers of this machine, and of the same matrix in one run.

    .venv/bin/python -m tests.bench.cells_over_hosts [--workers 3] [--cells 12] [--cold] [--watch 8s]
        [--parts]

A real Dask scheduler and real workers on the loopback, each with a state folder and a machine id of its own;
cells are real: guests of 128 MiB and more that are suspended. Counted is the user and system time of all that
is started, QEMU included, until it has ended: orphans come to this process (PR_SET_CHILD_SUBREAPER). A first
run of the matrix, which is not counted, makes the golden guests; --cold does without them. --parts: also what
a cluster takes that runs nothing, and a command that ends at once, so that the rest is that of the cells.

Wall time says nothing here: the workers share this machine's cores. Run nothing beside it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.unit.cell_worker import REAL, loopback_cluster

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
HOLDS = ("0s", "500ms", "1s")
PLAYBOOK = """\
name: bench
resync: none
matrix: {{memory: [{memory}], hold: [{holds}]}}
cycle: {{settle: 0s, before: 2s, watch: {watch}}}
"""


def cpu_s() -> float:
    """Of all processes that were waited for, seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def reap() -> None:
    """Wait for all children, those that were inherited as well."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def counted(what: str, do: Callable[[], None]) -> float:
    """The CPU time of what `do` starts, seconds."""
    before, began = cpu_s(), time.monotonic()
    do()
    reap()
    took = cpu_s() - before
    print(f"{what:32} {took:8.1f} s of CPU {time.monotonic() - began:8.1f} s", flush=True)
    return took


def run(book: Path, home: Path, *options: str) -> None:
    """Run it. SystemExit when it is not run to its end."""
    command = [sys.executable, "-m", "lab.cli.main", "run", str(book), "--quiet", "--json", *options]
    environment = {**os.environ, "FREEZELAB_HOME": str(home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1, 3) or not done.stdout:
        raise SystemExit(f"exit status {done.returncode}: {done.stderr}")
    found = json.loads(done.stdout)
    left = [one["why"] for one in found["findings"] if one["metric"] in ("cell", "cycles")]
    if left:
        raise SystemExit(f"cells were not run: {left}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--workers", type=int, default=3)
    options.add_argument("--cells", type=int, default=12, help="a multiple of 3")
    options.add_argument("--watch", default="8s")
    options.add_argument("--cold", action="store_true")
    options.add_argument("--parts", action="store_true")
    given = options.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.environ[REAL] = "1"
    golden = ["--cold"] if given.cold else ["--golden"]
    with tempfile.TemporaryDirectory(prefix="fl-b-") as folder:
        place = Path(folder)
        memory = [f"{128 + 32 * number}MiB" for number in range(given.cells // len(HOLDS))]
        text = PLAYBOOK.format(memory=", ".join(memory), holds=", ".join(HOLDS), watch=given.watch)
        (place / "book").mkdir()
        book = place / "book" / "bench.yaml"
        book.write_text(text)

        def over(*, runs: bool = True) -> None:
            machines = Path(tempfile.mkdtemp(dir=place))
            with loopback_cluster(machines, [f"w{n}" for n in range(given.workers)]) as cluster:
                if runs:
                    run(book, place / "controller", "--hosts", cluster.address, *golden)

        if not given.cold:
            counted("golden guests, not counted", lambda: run(book, place / "one", *golden))
        one = counted("one run", lambda: run(book, place / "one", *golden))
        several = counted(f"{given.workers} workers", over)
        print(f"{several / one:.2f} times the CPU time of one run; the aim is 1.1")
        if given.parts:
            idle = counted("of it: scheduler and workers", lambda: over(runs=False))
            start = counted("a command that ends at once", lambda: _help(place))
            more = (several - one - idle) / given.cells
            print(f"about {more:.1f} s a cell beyond that; the start of a command: {start:.1f} s")


def _help(place: Path) -> None:
    code = "import lab.cli.main, lab.session.run, lab.hypervisor.adapter"
    subprocess.run([sys.executable, "-c", code], cwd=place, check=True)


if __name__ == "__main__":
    main()
