"""What the controller itself costs: fleets of simulated guests in 20 domains, rolled out with announcements.

    .venv/bin/python -m tests.bench.fleet [GUESTS …]

CPU time of this process over the whole rollout, planning and the fakes' own work included, for each guest's
cycle. It is linear when the last column does not grow.
"""

from __future__ import annotations

import sys
import time

from lab.core.plan import Rollout
from lab.core.rollout import waves
from tests.unit.sim_fleet import SHORT, fleet, world_of

DOMAINS = 20


def main(sizes: list[int]) -> None:
    print(" guests  waves  plan ms  readings   CPU s  ms a guest-cycle  µs a reading")
    for size in sizes:
        specs = fleet(size, DOMAINS)
        began = time.process_time()
        planned = waves(specs, Rollout())
        plan_s = time.process_time() - began
        # A reading takes no time here, so that every guest is read as often, however many there are.
        world = world_of(specs, read_ns=0, keep=False)
        began = time.process_time()
        stopped = world.roll_out(specs, Rollout(), SHORT)
        used = time.process_time() - began
        if stopped is not None:
            raise SystemExit(f"stopped: {stopped.why}")
        print(
            f"{size:7} {len(planned):6} {plan_s * 1e3:8.2f} {world.readings:9} {used:7.2f} "
            f"{used / size * 1e3:17.2f} {used / world.readings * 1e6:13.1f}"
        )


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [125, 250, 500, 1000])
