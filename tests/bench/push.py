"""How soon after a resume `push` sets the guest's clock: this build (B) beside another one (A), alternately.

    .venv/bin/python -m tests.bench.push [--other REVISION] [--pairs 10] [--home FOLDER]

A command, no test: what it tells is about this machine at this moment. Each build runs from its own source in
a process of its own, with a guest of its own from the same image, whose RAM is a shared file and which is on
QEMU's user-mode network. Cycles alternate A B A B, first with suspend for 3 s, then with in-place for
0.1 s. Without --other only this build runs.

All times are milliseconds of the host's MONOTONIC_RAW, counted from QEMU's own stamp of its RESUME event:

    called   the mechanism was told of the resume
    first    the first step was done, at the latest, by the guest's own stamp after it (this build only)
    answered its answer had arrived
    all      the push was over
    left     bounds of |offset| after it, by the push's own readings

A cycle in which the push did nothing counts as `nothing`, one whose push failed as `failed`.
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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CYCLES = (("suspend", 3.0), ("in-place", 0.1))
TIMES = ("called", "first", "answered", "all", "left")
DONE = re.compile(r"first done ([\d.]+) ms after the resume, (?:answered ([\d.]+) ms, )?all ([\d.]+) ms")
LEFT = re.compile(r"left within \[([-+\d.]+), ([-+\d.]+)\]")


def work(home: Path) -> None:
    """The process of one build: a line with method and hold on standard input, a line of JSON for it."""
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
            hold_ns = round(float(hold) * NS_PER_S)
            result, _ = lab.cycle(
                patches.make(HoldPatch(hold_ns), clock),
                method=FreezeMethod(method),
                settle_ns=NS_PER_S // 2,
                before_ns=NS_PER_S,
                watch_ns=2 * NS_PER_S,
            )
            resume, outcome = result.observation.resume, stamped.outcome()
            now = clock.now()
            found: dict[str, Any] = {"method": method, "outcome": outcome}
            if resume is not None and resume.event_real_ns is not None:
                resumed = resume.event_real_ns - now.real_ns + now.raw_ns
                found["called"] = (stamped.at - resumed) / 1e6
                if done := DONE.search(outcome):
                    first, answered, over = done.groups()
                    if answered:
                        found["first"] = found["called"] + float(first)
                    found["answered"] = found["called"] + float(answered or first)
                    found["all"] = found["called"] + float(over)
            if left := LEFT.search(outcome):
                found["left"] = max(abs(float(each)) for each in left.groups())
            print(json.dumps(found), flush=True)


class Build:
    """One build's process. tree: its source."""

    def __init__(self, name: str, tree: Path, home: Path) -> None:
        self.name, self.found = name, list[dict[str, Any]]()
        home.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--work", str(home)],
            env={**os.environ, "PYTHONPATH": str(tree)},
            cwd=tree,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"build {self.name} has ended with status {self._process.wait()}")
        return json.loads(line)

    def cycle(self, method: str, hold: float) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{method} {hold}\n")
        self._process.stdin.flush()
        self.found.append(self.answer())
        print(self.name, json.dumps(self.found[-1]), flush=True)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def table(builds: list[Build]) -> None:
    from lab.core.stats import quantile

    for method, hold in CYCLES:
        for what in TIMES:
            medians = []
            for build in builds:
                mine = [each for each in build.found if each["method"] == method]
                values = [each[what] for each in mine if what in each]
                if not values:
                    continue
                mid, high = quantile(values, 0.5), quantile(values, 0.95)
                medians.append(mid.value)
                limits = " to ".join("?" if each is None else f"{each:.1f}" for each in (mid.low, mid.high))
                print(
                    f"{method:9}{hold:4} s {what:7}{build.name}: median {mid.value:9.2f} ms ({limits}), "
                    f"p95 {high.value:9.2f}, {len(values)} of {len(mine)}"
                )
            if len(medians) == 2:
                print(f"{method:9}{hold:4} s {what:7}B / A: {medians[1] / medians[0]:.3f}")
        for build in builds:
            texts = [each["outcome"] for each in build.found if each["method"] == method]
            failed = sum("failed" in text or "not answer" in text for text in texts)
            nothing = sum(text.startswith("nothing") for text in texts)
            if failed or nothing:
                print(f"{method:9}{hold:4} s        {build.name}: failed {failed}, nothing {nothing}")


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--other", help="a git revision; 0677b13 is the one before this push")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        return work(asked.work)
    home = asked.home or Path(tempfile.mkdtemp(prefix="fl-"))
    tree = home / "tree"
    if asked.other:
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), asked.other], check=True)
    builds: list[Build] = []
    try:
        if asked.other:
            builds.append(Build("A", tree, home / "a"))
        builds.append(Build("B", ROOT, home / "b"))
        for build in builds:
            build.answer()
        for method, hold in CYCLES:
            for _ in range(asked.pairs):
                for build in builds:
                    build.cycle(method, hold)
        print(time.strftime("%F %T"), "load", os.getloadavg())
        table(builds)
    finally:
        for build in builds:
            build.close()
        if asked.other:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)
    return None


if __name__ == "__main__":
    main()
