"""The command: runs cases, several at once, and shows what came of them."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.process.pace import PACE, paced
from tests.campaign import table
from tests.campaign.cases import Case, Target, numbered
from tests.campaign.worker import PROJECT, launch

CASE_S = 300.0
"""A case that takes longer is ended, and told as one that hangs."""


def main() -> int:
    asked = _arguments()
    PACE.factor = asked.pace
    results = table.read(asked.file)
    if asked.table:
        print(table.render(results))
        return 0
    most = max(asked.cases, (asked.number or 0) + 1)
    cases = numbered(asked.seed, most, asked.only, asked.without)
    if asked.list:
        for number, case in enumerate(cases):
            print(number, case.label)
        return 0
    if not cases:
        print(f"campaign: no case is called like {asked.only!r}; --list shows them", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("campaign: root is needed, for namespaces and their mounts", file=sys.stderr)
        return 4
    drawn_by = _drawn_by(asked)
    done = {result["number"] for result in results if result["drawn_by"] == drawn_by}
    todo = [(number, case) for number, case in enumerate(cases) if number not in done]
    if asked.number is not None:
        todo = [(asked.number, cases[asked.number])]
    _prepare(asked.work)
    new = _run(todo[: asked.most], asked)
    bad = [result for result in new if result["wrong"]]
    print(f"{len(new)} cases, {len(bad)} wrong; {len(todo) - len(new)} to go", file=sys.stderr)
    return 1 if bad else 0


def _drawn_by(asked: Any) -> list[Any]:
    """What decides which case has which number."""
    return [asked.seed, asked.only, asked.without]


def _arguments() -> Any:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument(
        "file", type=Path, nargs="?", default=Path("campaign.jsonl"), help="results, appended to"
    )
    parser.add_argument(
        "--cases", type=int, default=20, help="how many of the seed's cases, those done before included"
    )
    parser.add_argument("--most", type=int, help="stop after so many now; a second call goes on")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--only", default="", metavar="METHOD/FAULT", help="a pattern, such as 'in-place/*-kill'"
    )
    parser.add_argument("--without", default="", metavar="METHOD/FAULT", help="what to leave out")
    parser.add_argument("--number", type=int, help="one of the cases, once more")
    parser.add_argument("--jobs", type=int, default=2, help="cases side by side")
    parser.add_argument(
        "--pace", type=float, default=1.0, help="how many times slower than usual this host runs guests"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("/var/tmp/freezelab-campaign"), help="what cases share"
    )
    parser.add_argument("--list", action="store_true", help="the cases; nothing is done")
    parser.add_argument("--table", action="store_true", help="the file's results by fault and method")
    return parser.parse_args()


def _prepare(work: Path) -> None:
    """What every case begins with, once: a golden guest, and what libvirt learns of QEMU."""
    ready, wanted = work / "ready", _lab()
    if ready.exists() and ready.read_text() == wanted:
        return
    shutil.rmtree(work / "golden", ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    for method in ("suspend", "in-place"):
        child = launch(Case(method, "phase/measure", Target.NOTHING, "at all"), work, 0, learn=True)
        out, err = child.communicate(timeout=paced(CASE_S))
        # A slow host may delay the correction of a clock by so much that nothing is decided.
        fine = (0, 3) if PACE.factor > 1 else (0,)
        if child.returncode or json.loads(out)["exit"] not in fine or json.loads(out)["wrong"]:
            raise SystemExit(f"campaign: not even a run without a fault works here: {out}{err}")
    ready.write_text(wanted)


def _lab() -> str:
    """A digest of those of the lab's files that a golden guest is made of. When it is not one of them that
    has changed, and none can begin with it, every case makes its own, and takes ten seconds longer."""
    digest = hashlib.sha256()
    for pattern in (
        "guest/inside/*.py",
        "guest/program.py",
        "guest/identity.py",
        "hypervisor/domain*",
        "image/*.py",
    ):
        for path in sorted((PROJECT / "lab").glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _run(todo: list[tuple[int, Case]], asked: Any) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    running: dict[subprocess.Popen[str], tuple[int, Case, float]] = {}
    waiting = list(todo)
    with asked.file.open("a", encoding="utf-8") as file, _none_left(running):
        while waiting or running:
            while waiting and len(running) < asked.jobs:
                number, case = waiting.pop(0)
                keep = asked.work / "wrong" / f"{asked.seed}-{number}"
                child = launch(case, asked.work, asked.seed * 100_000 + number, keep)
                running[child] = number, case, time.monotonic()
            time.sleep(0.05)
            for child, (number, case, since) in list(running.items()):
                late = time.monotonic() - since > paced(CASE_S)
                if child.poll() is None and not late:
                    continue
                del running[child]
                result = _result(child, case, late=late)
                result |= {"number": number, "drawn_by": _drawn_by(asked)}
                results.append(result)
                file.write(json.dumps(result) + "\n")
                file.flush()
                _tell(result)
    return results


@contextmanager
def _none_left(running: Mapping[subprocess.Popen[str], object]) -> Iterator[None]:
    """Whoever ends the campaign ends its cases, with all that is in their namespaces."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(130))
    try:
        yield
    finally:
        for child in running:
            child.kill()


def _result(child: subprocess.Popen[str], case: Case, *, late: bool) -> dict[str, Any]:
    if late:
        child.kill()
    out, err = child.communicate()
    try:
        result: dict[str, Any] = json.loads(out)
    except ValueError:
        why = "the case hangs" if late else f"the campaign itself failed: {err.strip()[-600:]}"
        return {
            "case": case.as_data(),
            "label": case.label,
            "seconds": 0,
            "void": "",
            "wrong": [why],
            "exit": None,
        }
    return result


def _tell(result: dict[str, Any]) -> None:
    what = "void" if result["void"] else "WRONG" if result["wrong"] else "right"
    print(f"{result['number']:4} {what:5} {result['seconds']:5.1f} s  {result['label']}", flush=True)
    for line in [result["void"], *result["wrong"]]:
        if line:
            print(f"                  {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
