"""What a run over many hosts costs its controller: simulated hosts with simulated guests, real Dask.

    .venv/bin/python -m tests.bench.simulated_hosts [--hosts 1 8 64] [--guests 16] [--cells 1] [--cycles 1]
        [--times 3]

A matrix with so many cells a host, each with so many guests, is run by `freezelab run --hosts` over a real
Dask scheduler with TLS and a real worker for each host, processes of this machine with state folders and
machine ids of their own. Only the cells are simulated, in the workers' children, with the real controller of
cycles (tests.bench.simulated_cells), and what a host lacks for them. Their records come back, are merged and
judged by the product's code.

Printed is the CPU time of the controller's process, from its start to its end, and of the scheduler's
meanwhile: the medians in all, for each guest's cycle, and for each that a size has more than the
one before, so without what every run pays once. Wall time says little: all hosts share this machine's cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from tests.unit.cell_worker import CELLS, loopback_cluster

PLAYBOOK = """\
name: simulated
guests: [{{name: web, count: {guests}, memory: 128MiB}}]
resync: push
repeat: {cycles}
matrix: {{hold: [{holds}]}}
cycle: {{settle: 0s, before: 1s, watch: 3s}}
"""
RUN = (sys.executable, "-m", "lab.cli.main", "run")
SETTINGS = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "10s",
    CELLS: "tests.bench.simulated_cells",
}


@dataclass(frozen=True)
class Cost:
    """Of one run. controller_s, scheduler_s: CPU time. memory_bytes: the controller's at most. wall_s: how
    long it took. threads, files: of the controller, at most."""

    controller_s: float
    scheduler_s: float
    memory_bytes: int
    wall_s: float
    threads: int
    files: int


def cpu_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return used.user + used.system


def measured(words: Sequence[str], env: Mapping[str, str], cycles: int, scheduler: int | None = None) -> Cost:
    """The cost of one run. words: its command. cycles: that its record has to have; otherwise SystemExit.
    scheduler: the process id of one beside the controller's."""
    home = Path(env["FREEZELAB_HOME"])
    others = [] if scheduler is None else [psutil.Process(scheduler)]
    before, began = sum(map(cpu_s, others)), time.monotonic()
    threads = files = 0
    with (home / "out").open("w+b") as out, (home / "err").open("w+b") as err:
        child = subprocess.Popen(words, env={**os.environ, **env}, stdout=out, stderr=err)
        process = psutil.Process(child.pid)
        while True:
            pid, status, used = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            threads, files = max(threads, process.num_threads()), max(files, process.num_fds())
            time.sleep(0.5)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if not text:
        raise SystemExit((home / "err").read_text())
    found = json.loads(text)
    missing = [one["why"] for one in found["findings"] if one["metric"] in ("cell", "cycles")]
    made = sum(len(guest["cycles"]) for guest in found["guests"])
    if missing or made != cycles:
        raise SystemExit(f"{made} of {cycles} cycles: {missing[:5]}")
    return Cost(
        used.ru_utime + used.ru_stime,
        sum(map(cpu_s, others)) - before,
        used.ru_maxrss << 10,
        time.monotonic() - began,
        threads,
        files,
    )


def of_size(hosts: int, guests: int, cells: int, cycles: int, times: int) -> list[Cost]:
    """The costs of some runs over so many hosts."""
    with tempfile.TemporaryDirectory(prefix="fl-s-") as folder:
        place = Path(folder)
        for name in ("book", "machines", "controller"):
            (place / name).mkdir()
        holds = ", ".join(f"{number + 1}ms" for number in range(hosts * cells))
        book = place / "book" / "simulated.yaml"
        book.write_text(PLAYBOOK.format(guests=guests, cycles=cycles, holds=holds))
        names = [f"rack-{number + 1}" for number in range(hosts)]
        with loopback_cluster(place / "machines", names, tls=True) as cluster:
            words = [*RUN, str(book), "--hosts", cluster.address, "--json", "--quiet"]
            env = {**cluster.env, "FREEZELAB_HOME": str(place / "controller")}
            made = hosts * cells * cycles * guests
            return [measured(words, env, made, cluster.scheduler.pid) for _ in range(times)]


class Printed:
    """Prints the medians of one size after another, the smallest first."""

    def __init__(self) -> None:
        self._first = 0.0
        self._before = 0, 0.0

    def add(self, hosts: int, cycles: int, costs: Sequence[Cost]) -> None:
        """cycles: of all guests."""
        controller = median(cost.controller_s for cost in costs)
        each = controller / cycles * 1e3
        self._first = self._first or each
        more = (controller - self._before[1]) / (cycles - self._before[0]) * 1e3
        self._before = cycles, controller
        print(
            f"{hosts:3} hosts, {cycles:5} guest-cycles: controller {controller:6.1f} s of CPU, "
            f"{each:6.1f} ms each, {each / self._first:.2f} of the first size, {more:6.1f} ms each further; "
            f"scheduler {median(cost.scheduler_s for cost in costs):5.1f} s; "
            f"{max(cost.memory_bytes for cost in costs) >> 20} MiB, "
            f"{max(cost.threads for cost in costs)} threads, {max(cost.files for cost in costs)} files, "
            f"{median(cost.wall_s for cost in costs):.0f} s",
            flush=True,
        )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--hosts", type=int, nargs="+", default=[1, 8, 64])
    options.add_argument("--guests", type=int, default=16, help="of each cell")
    options.add_argument("--cells", type=int, default=1, help="for each host")
    options.add_argument("--cycles", type=int, default=1)
    options.add_argument("--times", type=int, default=3)
    given = options.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # where it is set, each process compiles all modules
    os.environ.update(SETTINGS)
    printed = Printed()
    for hosts in given.hosts:
        costs = of_size(hosts, given.guests, given.cells, given.cycles, given.times)
        printed.add(hosts, hosts * given.cells * given.guests * given.cycles, costs)


if __name__ == "__main__":
    main()
