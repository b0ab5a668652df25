"""What a fleet over many hosts costs its controller: simulated hosts with simulated guests, real SSH.

    .venv/bin/python -m tests.bench.simulated_fleet [--hosts 1 8 64] [--guests 16] [--cycles 1] [--times 3]

A playbook with so many hosts, and so many guests on each, is run by `freezelab run --hosts`. The hosts are
addresses of one sshd in a network namespace, with state folders and machine ids of their own, so only root
can run it. The controller's connections, readings of clocks and orders are real; in place of `freezelab` on a
host is tests.bench.simulated_cells, which meets the controller before each freeze. Their records come back,
are merged and judged by the product's code. What is printed: see tests.bench.simulated_hosts.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.bench.simulated_hosts import RUN, Cost, Printed, measured
from tests.host import ssh_hosts
from tests.unit.cell_worker import FAKED

PLAYBOOK = """\
name: simulated
hosts: [{hosts}]
guests:
{guests}resync: push
repeat: {cycles}
cycle: {{settle: 0s, before: 1s, patch: {{hold: 2s}}, watch: 3s}}
"""


def of_size(hosts: int, guests: int, cycles: int, times: int) -> list[Cost]:
    """The costs of some runs over so many hosts, with so many guests on each."""
    with tempfile.TemporaryDirectory(prefix="fl-s-") as folder, ssh_hosts.SshHosts(Path(folder)) as lab:
        one = lab.add("all")
        public = " ".join((one.folder / "host_key.pub").read_text().split()[:2])
        names, entries = [], []
        for number in range(1, hosts + 1):
            name, address = f"rack-{number}", f"127.77.0.{number}"
            place = lab.folder / name
            (place / "state").mkdir(parents=True)
            for each in ("machine-id", "boot-id"):
                (place / each).write_text(f"of {name}")
            with (lab.folder / "known_hosts").open("a") as known:
                known.write(f"{address} {public}\n")
            program = f"[env, PYTHONPATH={ssh_hosts.ROOT}, {FAKED}={place}, {sys.executable}, -P, -m, "
            program += "tests.bench.simulated_cells]"
            ssh = f"{{host: {address}, user: root, key: key, known_hosts: known_hosts}}"
            entries.append(
                f"  - {{name: {name}, ssh: {ssh}, state: {place / 'state'}, freezelab: {program}}}\n"
            )
            names.append(name)
        file = lab.file("hosts:\n" + "".join(entries))
        for each in ("book", "home"):
            (lab.folder / each).mkdir()
        book = lab.folder / "book" / "simulated.yaml"
        each = "".join(
            f"  - {{name: of-{name}, count: {guests}, memory: 128MiB, host: {name}}}\n" for name in names
        )
        book.write_text(PLAYBOOK.format(hosts=", ".join(names), guests=each, cycles=cycles))
        words = [*ssh_hosts.in_namespace(one.process.pid), *RUN, str(book)]
        words += ["--hosts", str(file), "--json", "--quiet"]
        env = {"FREEZELAB_HOME": str(lab.folder / "home")}
        return [measured(words, env, hosts * guests * cycles) for _ in range(times)]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--hosts", type=int, nargs="+", default=[1, 8, 64])
    options.add_argument("--guests", type=int, default=16, help="on each host")
    options.add_argument("--cycles", type=int, default=1)
    options.add_argument("--times", type=int, default=3)
    given = options.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # where it is set, each process compiles all modules
    ssh_hosts.CONFIG += "MaxStartups 1000\n"
    printed = Printed()
    for hosts in given.hosts:
        costs = of_size(hosts, given.guests, given.cycles, given.times)
        printed.add(hosts, hosts * given.guests * given.cycles, costs)


if __name__ == "__main__":
    main()
