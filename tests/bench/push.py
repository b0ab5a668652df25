"""How soon after a resume `push` sets the guest's clock, of one or more checkouts by turns.

    .venv/bin/python -m tests.bench.push [--pairs 20] [--method in-place] [CHECKOUT …]

Each checkout runs in a process of its own, with a guest of its own, whose RAM is a shared file and which is
on QEMU's user-mode network. They freeze by turns: first all cycles with suspend for 3 s, then all with
in-place for 0.1 s. CHECKOUT: of freezelab, with its .venv; this one by default.

All times are milliseconds of the host's MONOTONIC_RAW, counted from QEMU's own stamp of its RESUME event. A
push that failed is infinitely late, and so is one whose guest was not frozen at all, because the push before
had lost it.

    called     the mechanism was told of the resume
    first      the first step was done at the latest, by the guest's own stamp after it; of a build that
               has no such stamp, the arrival of the answer
    answered   the answer to the first step had arrived
    all        the push was over
    left       largest remaining |offset|, by the push's own readings
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[2]
HOLDS = {"suspend": 3.0, "in-place": 0.1}
TIMES = ("called", "first", "answered", "all", "left")
DONE = re.compile(r"first done ([\d.]+) ms after the resume, (?:answered ([\d.]+) ms, )?all ([\d.]+) ms")
LEFT = re.compile(r"left within \[([-+\d.]+), ([-+\d.]+)\]")


def work(home: Path) -> None:
    """The process of one checkout: a line with method and hold on standard input, a line of JSON for it."""
    sys.path.remove(str(Path(__file__).parent))
    from lab.core.plan import FreezeMethod, GuestSpec, HoldPatch, ResyncMechanism
    from lab.core.units import NS_PER_S
    from lab.host import patches
    from lab.ports import NullView
    from lab.process.clock import HostClock
    from lab.record.journal import NullJournal
    from lab.session.guests import Guests
    from tests.guest.conftest import Lab
    from tests.guest.without_a_run import settings_for

    class Stamped:
        """A mechanism whose resumed() is stamped."""

        def __init__(self, resync: Any) -> None:
            self.setup, self.outcome, self.remove = resync.setup, resync.outcome, resync.remove
            self.finished_raw_ns, self._resync, self.at = resync.finished_raw_ns, resync, 0

        def resumed(self) -> None:
            self.at = clock.now().raw_ns
            self._resync.resumed()

    clock, spec = HostClock(), GuestSpec("web-0")
    with (
        settings_for(home, "push", [spec], ResyncMechanism.PUSH, clock, shared_memory=True) as made,
        Guests(made[0], made[1], clock, NullView(), NullJournal()) as guests,
    ):
        subject = guests.up(made[2].parts[0])["web-0"]
        stamped = Stamped(subject.resync)
        lab = Lab(made[0], replace(subject, resync=stamped), made[1].folder, clock)
        print(json.dumps("ready"), flush=True)
        for line in sys.stdin:
            method, hold = line.split()
            result, _ = lab.cycle(
                patches.make(HoldPatch(round(float(hold) * NS_PER_S)), clock),
                method=FreezeMethod(method),
                settle_ns=NS_PER_S // 2,
                before_ns=NS_PER_S,
                watch_ns=2 * NS_PER_S,
            )
            resume, outcome, now = result.observation.resume, stamped.outcome(), clock.now()
            called = inf
            if resume is not None and resume.event_real_ns is not None:
                called = (stamped.at - (resume.event_real_ns - now.real_ns + now.raw_ns)) / 1e6
            print(json.dumps({"called": called, **times(outcome, called), "outcome": outcome}), flush=True)


def times(outcome: str, called: float) -> dict[str, float]:
    done, left = DONE.search(outcome), LEFT.search(outcome)
    if done is None or left is None or called == inf:
        return dict.fromkeys(TIMES[1:], inf)
    first, answered, over = done.groups()
    return {
        "first": called + float(first),
        "answered": called + float(answered or first),
        "all": called + float(over),
        "left": max(abs(float(each)) for each in left.groups()),
    }


class Build:
    """One checkout's process, which runs `script`."""

    def __init__(self, checkout: Path, home: Path, script: str = __file__) -> None:
        self.name = str(checkout)
        python = checkout.resolve() / ".venv" / "bin" / "python"
        home.mkdir()
        self._process = subprocess.Popen(
            [python if python.exists() else sys.executable, script, "--work", home],
            env={**os.environ, "PYTHONPATH": str(checkout.resolve())},
            cwd=checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} has ended with status {self._process.wait()}")
        return json.loads(line)

    def ask(self, line: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self.answer()

    def cycle(self, method: str, hold: float) -> dict[str, Any]:
        found: dict[str, Any] = self.ask(f"{method} {hold}")
        print(f"{self.name}: {method}: called {found['called']:.1f}: {found['outcome']}", flush=True)
        return found

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkouts", type=Path, nargs="*", default=[HERE])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--method", choices=HOLDS, help="only this one")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work(asked.work)
        return
    from tests.bench.pairs import table

    builds: list[Build] = []
    with tempfile.TemporaryDirectory(prefix="fl-") as folder:
        try:
            for number, checkout in enumerate(asked.checkouts):
                builds.append(Build(checkout, Path(folder) / str(number)))
            for build in builds:
                build.answer()
            for method in [asked.method] if asked.method else HOLDS:
                found: dict[str, list[dict[str, Any]]] = {build.name: [] for build in builds}
                for _ in range(asked.pairs):
                    for build in builds:
                        found[build.name].append(build.cycle(method, HOLDS[method]))
                print(time.strftime("%F %T"), "load", os.getloadavg())
                for what in TIMES:
                    values = {name: [each[what] for each in mine] for name, mine in found.items()}
                    print(table(f"{method} {HOLDS[method]:g} s: {what}, ms", values))
        finally:
            for build in builds:
                build.close()


if __name__ == "__main__":
    main()
