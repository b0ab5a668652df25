"""The shipped playbooks, and a calibration, on a machine that is kept busy on purpose.

    .venv/bin/python -m tests.bench.busy RESULTS.jsonl [--load 6] [--times 3] [--only first-freeze …] [--calm]
    .venv/bin/python -m tests.bench.busy RESULTS.jsonl --table

A command, no test. Bounds may be wider and verdicts inconclusive under load; nothing may fail that passes
when the machine is calm. `--calm` runs the same without the load, for comparison. Every run is a line of the
file, and a second call goes on where the first one stopped. The load is that of stress-ng (Debian's package),
--load of its CPU workers at normal priority. Exits with 1 when a run failed, or the environment did.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
FREEZELAB = PROJECT / "freezelab"
CALIBRATION = "(calibrate)"
OUTCOMES = {0: "passed", 1: "failed", 3: "inconclusive", 4: "environment"}
MS = 1_000_000


@contextmanager
def loaded(workers: int) -> Iterator[None]:
    """stress-ng's CPU workers at work meanwhile; none for 0."""
    if not workers:
        yield
        return
    if shutil.which("stress-ng") is None:
        sys.exit("stress-ng is missing: apt-get install stress-ng")
    with subprocess.Popen(
        ["stress-ng", "--cpu", str(workers), "--quiet"], stdin=subprocess.DEVNULL, start_new_session=True
    ) as load:
        try:
            time.sleep(5)
            yield
        finally:
            load.terminate()


def run(name: str, home: Path) -> dict[str, Any]:
    """One run of a playbook; a line for the results."""
    began = time.monotonic()
    calibration = name == CALIBRATION
    words = ["calibrate"] if calibration else ["run", name]
    done = subprocess.run(
        [FREEZELAB, *words, "--quiet", "--json"],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"FREEZELAB_HOME": str(home)},
    )
    line: dict[str, Any] = {
        "name": name,
        "exit": done.returncode,
        "load": os.getloadavg()[0],
        "took_s": round(time.monotonic() - began, 1),
        "said": done.stderr.strip().splitlines()[-3:],
    }
    with contextlib.suppress(ValueError):
        record = json.loads(done.stdout)
        line |= {"figures": record.get("figures")} if calibration else bounds(record)
    return line


def bounds(record: dict[str, Any]) -> dict[str, Any]:
    """How well a run's pauses and offsets are known, and what was not passed."""
    cycles = [cycle for guest in record["guests"] for cycle in guest["cycles"]]

    def half(value: dict[str, int] | None) -> list[float]:
        return [(value["high_ns"] - value["low_ns"]) / 2 / MS] if value else []

    worse = [f for f in record["findings"] if f["outcome"] != "passed"]
    return {
        "pause_ms": [each for cycle in cycles for each in half(cycle.get("pause"))],
        "offset_ms": [each for cycle in cycles for each in half(cycle["offset"].get("before"))],
        "worse": sorted({f"{f['outcome']} {f['metric']}: {f['why']}"[:160] for f in worse}),
    }


def table(lines: list[dict[str, Any]]) -> str:
    """By playbook and load."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        groups[line["name"], line["workers"]].append(line)
    head = ("playbook", "workers", "runs", "passed", "inconclusive", "failed", "environment", "pause", "took")
    text = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for (name, workers), runs in sorted(groups.items()):
        counts = [sum(OUTCOMES.get(each["exit"], "environment") == word for each in runs) for word in
                  ("passed", "inconclusive", "failed", "environment")]  # fmt: skip
        halves = [half for each in runs for half in each.get("pause_ms", ())]
        known = f"± {statistics.median(halves):.2f} ms (largest {max(halves):.2f})" if halves else ""
        took = statistics.median(each["took_s"] for each in runs)
        text.append(
            f"| {name} | {workers} | {len(runs)} | {' | '.join(map(str, counts))} | {known} | {took:.0f} s |"
        )
    return "\n".join(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--load", type=int, default=6, help="stress-ng's CPU workers")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="playbooks; all, and a calibration, by default")
    parser.add_argument("--calm", action="store_true", help="without a load")
    parser.add_argument("--table", action="store_true", help="show the file; nothing is run")
    asked = parser.parse_args()
    lines = [json.loads(line) for line in asked.file.read_text().splitlines()] if asked.file.exists() else []
    if not asked.table:
        workers = 0 if asked.calm else asked.load
        names = asked.only or [
            *sorted(path.stem for path in (PROJECT / "playbooks").glob("*.yaml")),
            CALIBRATION,
        ]
        home = asked.file.absolute().parent / "home"
        with loaded(workers):
            for name in [name for _ in range(asked.times) for name in names]:
                had = sum(line["name"] == name and line["workers"] == workers for line in lines)
                if had >= asked.times:
                    continue
                lines.append(run(name, home) | {"workers": workers})
                with asked.file.open("a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
                print(
                    name,
                    OUTCOMES.get(lines[-1]["exit"], lines[-1]["exit"]),
                    lines[-1]["took_s"],
                    file=sys.stderr,
                )
    print(table(lines))
    return int(any(line["exit"] not in (0, 3) for line in lines))


if __name__ == "__main__":
    sys.exit(main())
