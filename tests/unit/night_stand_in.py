"""What stands in for `freezelab` in a night: it writes the history of simulated cycles in place of a run, or
hangs. python night_stand_in.py run --run-id ID … -- PLAYBOOK; the playbook's `about` is a JSON object:

pause_ms, cycles: of the run. seed: of its cycles. does: "run", "die" (by SIGSEGV) or "left" (exit code 4),
after all cycles. SHORT does without the lab's modules what needs none of them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.core.plan import FreezeMethod, Plan
from lab.playbook import load
from tests.unit.journalled import EXPECT, Journalled, cell, cycle, edited, write
from tests.unit.simulation import MS, S

PLAYBOOK = """\
name: {name}
about: '{about}'
guests: [{{name: web-0}}]
resync: agent
cycle: {{patch: {{hold: 300ms}}}}
"""

SHORT = """
import os, re, signal, sys, time
if sys.argv[1] == "recover":
    print("removed guest web-0 of the run")
    sys.exit()
does = re.search('"does": "([a-z]+)"', open(sys.argv[-1]).read())
if does and does[1] == "refuse":
    sys.exit("freezelab: the image is not there\\nfreezelab image build makes it")
if does and does[1] in ("hang", "stubborn"):
    for number in (signal.SIGINT, signal.SIGTERM) if does[1] == "stubborn" else ():
        signal.signal(number, signal.SIG_IGN)
    print("  0.1 s  waiting: for the night to be over", flush=True)
    with open(os.path.join(os.environ["FREEZELAB_HOME"], "hangs"), "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)
from tests.unit.night_stand_in import main
sys.exit(main(sys.argv[1:]))
"""
"""The script: "hang" until SIGTERM, "stubborn" until SIGKILL, "refuse" (exit code 1), or the rest."""


def playbook(folder: Path, name: str = "short", **about: object) -> str:
    """The file of a playbook of this behaviour."""
    path = folder / f"{name}.yaml"
    path.write_text(PLAYBOOK.format(name=name, about=json.dumps(about)), encoding="utf-8")
    return str(path)


def write_run(
    home: Path, run: str, plan: Plan, pause_ms: float = 300, cycles: int = 6, seed: int = 1
) -> Path:
    """The history of a run of this playbook, whose pauses are a little longer than pause_ms."""
    expect = replace(EXPECT, pause_at_most_ns=2 * S)
    of_run = replace(cell(FreezeMethod.SUSPEND, repeat=cycles), expectations=expect)
    seen = [
        cycle(
            FreezeMethod.SUSPEND, i, round(pause_ms * MS) + (seed * 7 + i * 5) % 11 * MS, seed=seed * 100 + i
        )
        for i in range(cycles)
    ]

    def change(event: dict[str, Any]) -> None:
        if event["kind"] == "run-start":
            event["plan"] |= {"name": plan.name, "digest": plan.digest}

    return edited(write(home / "runs", run, [Journalled(of_run, seen)], matrix=False), change)


def main(arguments: list[str]) -> int:
    home, run = Path(os.environ["FREEZELAB_HOME"]), arguments[arguments.index("--run-id") + 1]
    plan = load(Path(arguments[-1]))
    about = json.loads(plan.about)
    does = about.pop("does", "run")
    write_run(home, run, plan, **about)
    if does == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if does == "left":
        sys.stderr.write("freezelab: guest web-0: cannot be removed\nfreezelab recover\n")
        return 4
    return 1 if about.get("pause_ms", 0) > 2000 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
