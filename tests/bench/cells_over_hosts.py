"""The CPU time of a matrix over several workers of this machine, and of the same matrix in one run.

    .venv/bin/python -m tests.bench.cells_over_hosts [--workers 3] [--cells 12] [--share 3] [--watch 8s]
        [--times 3] [--cold] [--through nice]

A real Dask scheduler and real workers on the loopback, each with a state folder and a machine id of its own;
cells are real: guests of 128 MiB and more that are suspended. --share: as many cells as share one guest in
one run; over hosts each has its own. Counted is the user and system time of all that is started, QEMU
included, until it has ended: orphans come to this process (PR_SET_CHILD_SUBREAPER). A first, short run of
each kind, which is not counted, makes the golden guests, and has libvirt and freezelab learn what they
remember of a host's emulator in its state folder; --cold boots guests. Then both kinds are measured by turns.

What is printed by kind of process is sampled five times a second, so it lacks the last moment of each.
"freezelab" is one run's own process, or the cells' children and what starts them.

Wall time says nothing here: the workers share this machine's cores. Run nothing beside it.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil

from tests.unit.cell_worker import REAL, loopback_cluster

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
HOLDS = ("0s", "500ms", "1s", "1500ms", "2s", "2500ms")
SAMPLE_S = 0.2
AS_ADVISED = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "10s",
}
"""Settings of the workers' and the scheduler's, as docs/hosts.md has them."""

PLAYBOOK = """\
name: bench
resync: none
matrix: {{memory: [{memory}], hold: [{holds}]}}
cycle: {{settle: 0s, before: 2s, watch: {watch}}}
"""
KINDS = {
    "qemu-system": "QEMU",
    "lab.hypervisor.deadman": "dead-men",
    "cell_children": "freezelab",
    "--hosts": "controller",
    " run ": "freezelab",
    " worker ": "workers",
    " scheduler ": "scheduler",
}


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


@contextmanager
def sampled() -> Iterator[dict[str, float]]:
    """The CPU time of all that runs below this process meanwhile, by kind, seconds; complete at the end."""
    used: dict[tuple[int, float], tuple[str, float]] = {}
    by_kind: dict[str, float] = {}
    over = threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_S):
            for process in psutil.Process().children(recursive=True):
                try:
                    words, times = " ".join(process.cmdline()), process.cpu_times()
                except psutil.Error:
                    continue
                kind = next((kind for part, kind in KINDS.items() if part in words), "others")
                key = process.pid, process.create_time()
                if kind == "others" and key in used:
                    kind = used[key][0]  # it has ended, and has no command line any more
                used[key] = kind, times.user + times.system

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield by_kind
    finally:
        over.set()
        thread.join()
        for kind, seconds in used.values():
            by_kind[kind] = by_kind.get(kind, 0.0) + seconds


def counted(what: str, do: Callable[[], None]) -> float:
    """The CPU time of what `do` starts, seconds."""
    before, began = cpu_s(), time.monotonic()
    with sampled() as by_kind:
        do()
    reap()
    took = cpu_s() - before
    kinds = ", ".join(
        f"{kind} {seconds:.1f}" for kind, seconds in sorted(by_kind.items(), key=lambda one: -one[1])
    )
    print(f"{what:12} {took:7.1f} s of CPU {time.monotonic() - began:7.1f} s: {kinds}", flush=True)
    return took


def run(before: Sequence[str], book: Path, home: Path, *options: str) -> None:
    """Run it. before: put before the command. SystemExit when it is not run to its end."""
    run = [sys.executable, "-m", "lab.cli.main", "run", str(book), "--quiet", "--json", *options]
    command = [*before, *run]
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
    options.add_argument("--cells", type=int, default=12, help="a multiple of --share")
    options.add_argument("--share", type=int, default=3, help=f"at most {len(HOLDS)}")
    options.add_argument("--watch", default="8s")
    options.add_argument("--times", type=int, default=3)
    options.add_argument("--cold", action="store_true")
    options.add_argument("--through", default="", help="a command that is put before each run")
    given = options.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.environ[REAL] = "1"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # where it is set, each process compiles all modules
    os.environ.update(AS_ADVISED)
    before = shlex.split(given.through)
    golden = ["--cold"] if given.cold else ["--golden"]
    with tempfile.TemporaryDirectory(prefix="fl-b-") as folder:
        place = Path(folder)
        memory = [f"{128 + 32 * number}MiB" for number in range(given.cells // given.share)]
        holds = ", ".join(HOLDS[: given.share])
        (place / "book").mkdir()
        (place / "machines").mkdir()
        book = place / "book" / "bench.yaml"

        def write(watch: str) -> None:
            book.write_text(PLAYBOOK.format(memory=", ".join(memory), holds=holds, watch=watch))

        def one() -> None:
            run(before, book, place / "one", *golden)

        def over() -> None:
            names = [f"w{number}" for number in range(given.workers)]
            with loopback_cluster(place / "machines", names) as cluster:
                run(before, book, place / "controller", "--hosts", cluster.address, *golden)

        write("1s")
        counted("not counted", one)
        counted("not counted", over)
        write(given.watch)
        pairs = [
            (counted("one run", one), counted(f"{given.workers} workers", over)) for _ in range(given.times)
        ]
    ratios = [several / alone for alone, several in pairs]
    alone, several = (median(column) for column in zip(*pairs, strict=True))
    print(f"medians: one run {alone:.1f} s, {given.workers} workers {several:.1f} s of CPU", end="; ")
    print(f"{median(ratios):.2f} times that of one run ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
