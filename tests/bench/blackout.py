"""How long an in-place hand-over stops a guest, of one or more checkouts by turns, and where the time goes.

    .venv/bin/python -m tests.bench.blackout [--pairs 20] [--memory 512] [--fill 0.75] [--emulator PATH]
        [CHECKOUT …]

Each checkout runs in a process of its own, with a guest of its own, and the guests are handed over by turns,
without a patch. A first hand-over to the emulator is not counted. CHECKOUT: of freezelab, with its .venv;
this one by default. --memory in MiB. --emulator: the distribution's by default; `freezelab emulator list`
shows where others are.

    stamps     RESUME - STOP by QEMU's own stamps
    pause      the lab's own figure, from all witnesses
    bound      half of its width
    heartbeat  from the return of the resume call to the guest's first heartbeat

and the steps of the hand-over by name. All in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from math import inf
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[2]


def work(home: Path) -> None:
    """The process of one checkout. A line on standard input: memory in MiB and fill, once; then an emulator's
    path, or "-", for each hand-over. A line of JSON for each."""
    sys.path.remove(str(Path(__file__).parent))
    from lab.core.patch import ReplaceHypervisorPatch
    from lab.core.plan import FreezeMethod, GuestSpec, HoldPatch, ResyncMechanism
    from lab.core.units import NS_PER_S
    from lab.core.witnesses import stamps_apart
    from lab.host import patches
    from lab.host.patches import Tools
    from lab.ports import NullView
    from lab.process.clock import HostClock
    from lab.record.journal import NullJournal
    from lab.session.guests import Guests
    from tests.guest.conftest import Lab
    from tests.guest.without_a_run import settings_for

    memory, fill = sys.stdin.readline().split()
    clock, spec = HostClock(), GuestSpec("web-0", memory_bytes=int(memory) << 20, fill=float(fill))
    with (
        settings_for(home, "blackout", [spec], ResyncMechanism.NONE, clock, shared_memory=True) as made,
        Guests(made[0], made[1], clock, NullView(), NullJournal()) as guests,
    ):
        lab = Lab(made[0], guests.up(made[2].parts[0])["web-0"], made[1].folder, clock)
        print(json.dumps("ready"), flush=True)
        for line in sys.stdin:
            path = line.strip()
            patch = patches.make(HoldPatch(0), clock)
            if path != "-":
                tools = Tools(lambda _guest: "", Path)
                patch = patches.make(ReplaceHypervisorPatch(path), clock, tools)
            result, _ = lab.cycle(
                patch,
                method=FreezeMethod.IN_PLACE,
                settle_ns=NS_PER_S // 2,
                before_ns=2 * NS_PER_S,
                watch_ns=3 * NS_PER_S,
            )
            seen, pause = result.observation, result.pause
            if pause is None:
                raise SystemExit(
                    f"no pause was measured: {seen.called_off or '; '.join(map(str, seen.problems))}"
                )
            assert seen.stop is not None and seen.resume is not None
            apart = stamps_apart(seen.stop, seen.resume)
            beats = [b.arrived.raw_ns for b in seen.beats if b.arrived.raw_ns > seen.resume.returned.raw_ns]
            found = {
                "stamps": apart.mid_ns / 1e6 if apart is not None else inf,
                "pause": pause.pause.mid_ns / 1e6,
                "bound": pause.pause.half_width_ns / 1e6,
                "heartbeat": (min(beats) - seen.resume.returned.raw_ns) / 1e6 if beats else inf,
            }
            steps = {step.name: step.length_ns / 1e6 for step in seen.steps}
            print(json.dumps({"why": seen.called_off, "times": found | steps}), flush=True)


def main() -> None:
    from tests.bench.pairs import table
    from tests.bench.push import Build

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkouts", type=Path, nargs="*", default=[HERE])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--memory", type=int, default=512)
    parser.add_argument("--fill", type=float, default=0.0)
    parser.add_argument("--emulator", default="-")
    asked = parser.parse_args()
    builds: list[Build] = []
    with tempfile.TemporaryDirectory(prefix="fl-") as folder:
        try:
            for number, checkout in enumerate(asked.checkouts):
                builds.append(Build(checkout, Path(folder) / str(number), __file__))
                builds[-1].ask(f"{asked.memory} {asked.fill}")
            found: dict[str, list[dict[str, float]]] = {build.name: [] for build in builds}
            for number in range(asked.pairs + 1):
                for build in builds:
                    answer: dict[str, Any] = build.ask(asked.emulator if number == 0 else "-")
                    if answer["why"]:
                        print(f"{build.name}: {answer['why']}", flush=True)
                    elif number:
                        found[build.name].append(answer["times"])
            print(time.strftime("%F %T"), "load", os.getloadavg())
            for what in next(iter(found.values()))[0]:
                values = {name: [each.get(what, inf) for each in mine] for name, mine in found.items()}
                print(table(f"{what}, ms", values))
        finally:
            for build in builds:
                build.close()


if __name__ == "__main__":
    if "--work" in sys.argv:
        work(Path(sys.argv[2]))
    else:
        main()
