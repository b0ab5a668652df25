"""What the controller itself costs: fleets of simulated guests in 20 domains, rolled out one after another.

    .venv/bin/python -m tests.bench.fleet [--guests 125 250 500 1000] [--times 20] [CHECKOUT …]

CPU time for each guest's cycle of 4,240 readings, in ms: of the whole rollout; of the fakes alone, read as
often by a controller that does nothing else; and the difference, the controller's own. It is linear when it
does not grow with the guests. CHECKOUT: of freezelab; several are measured by turns, each in a process of its
own, with the fakes of this one. This one by default.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.pairs import table

HERE = Path(__file__).parents[2]
DOMAINS = 20


def measured(size: int) -> dict[str, float]:
    """One rollout in this process."""
    from lab.core.plan import Rollout
    from lab.core.rollout import waves
    from tests.unit.sim_fleet import SHORT, fleet, world_of

    specs = fleet(size, DOMAINS)
    began = time.process_time()
    waves(specs, Rollout())
    planned = time.process_time()
    # A reading takes no time here, so that every guest is read as often, however many there are.
    world = world_of(specs, read_ns=0, keep=False)
    stopped = world.roll_out(specs, Rollout(), SHORT)
    used = time.process_time() - planned
    if stopped is not None:
        raise SystemExit(f"stopped: {stopped.why}")
    alone = fakes_alone(size, world.readings // size) / size * 1e3
    total = used / size * 1e3
    readings = world.readings / size
    return {
        "plan": (planned - began) * 1e3, "total": total, "fakes": alone, "own": total - alone,
        "readings": readings,
    }  # fmt: skip


def fakes_alone(size: int, readings: int) -> float:
    """CPU seconds for so many readings of every guest in the order of the controller, a domain at a time."""
    from lab.controller.clock_reader import BURST
    from tests.unit.sim_fleet import fleet, world_of

    world = world_of(fleet(size, DOMAINS), read_ns=0, keep=False)
    reads = [subject.probe.read for subject in world.subjects().values()]
    began = time.process_time()
    for domain in range(DOMAINS):
        together = reads[domain::DOMAINS]
        for _ in range(readings // BURST):
            world.at += 1
            for _ in range(BURST):
                for read in together:
                    read()
    return time.process_time() - began


def of_checkout(checkout: Path, size: int) -> dict[str, float]:
    """One rollout by the controller of a checkout, with the fakes of this one."""
    with tempfile.TemporaryDirectory(prefix="fl-") as folder:
        (Path(folder) / "lab").symlink_to(checkout.resolve() / "lab")
        (Path(folder) / "tests").symlink_to(HERE / "tests")
        words = [sys.executable, "-m", "tests.bench.fleet", "--here", "--guests", str(size)]
        done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkouts", type=Path, nargs="*", default=[HERE])
    parser.add_argument("--guests", type=int, nargs="+", default=[125, 250, 500, 1000])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        print(json.dumps(measured(asked.guests[0])))
        return
    for size in asked.guests:
        found: dict[str, list[dict[str, float]]] = {str(one): [] for one in asked.checkouts}
        for _ in range(asked.times):
            for one in asked.checkouts:
                found[str(one)].append(of_checkout(one, size))
        readings = {one["readings"] for each in found.values() for one in each}
        print(f"{size} guests, {', '.join(format(number, '.0f') for number in readings)} readings each")
        for part in ("total", "fakes", "own"):
            print(table(f"{part} ms", {name: [one[part] for one in each] for name, each in found.items()}))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
