"""What became of it, and what of that is wrong.

Everything is looked at from outside: processes and their CPU time, files, sockets, the terminal, the disk by
qemu-img and e2fsck. Of the lab only what it tells people and programs is read: its exit code, what it wrote
on the terminal, and run.json, which are what is being judged.
"""

from __future__ import annotations

import itertools
import json
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.process.pace import paced
from tests.campaign import place
from tests.campaign.cases import Case, Stage, Target
from tests.campaign.faults import Fault
from tests.campaign.processes import LEAST_NS, Life, Standstill, running, silences, standstills

LATE_S = 1.0
"""A guest has to run again by the budget and this much, on a usual host."""

BLINK_S = 0.12
"""What the watch may be wrong by on a usual host: late looks when it is busy, and vCPUs that have nothing to
do."""

RUNS = {0: "passed", 1: "failed", 3: "inconclusive"}


@dataclass
class Seen:
    """What came of one case. exit: the controller's, negative for the signal that ended it, None when it had
    to be ended because it hung. until: the end of the watch. runs: the guest of a killed run
    runs again; None: nobody asks. acts: the dead-man's, as the history has them."""

    case: Case
    exit: int | None
    text: str
    lives: list[Life]
    fault: Fault
    until: float
    widest_s: float = 0.0
    runs: bool | None = None
    harm: list[str] = field(default_factory=list)
    followed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    disk: str = ""
    report: dict[str, Any] | None = None
    acts: list[str] = field(default_factory=list)


def wrong(seen: Seen) -> list[str]:
    """Everything that is not as it should be, a line each."""
    found = [*_ended(seen), *_stood(seen), *_runners(seen), *_verdict(seen), *_truth(seen)]
    found += [f"terminal: {what}" for what in seen.harm if seen.exit != -9]
    found += [f"follow-up: {what}" for what in seen.followed]
    found += [f"left: {what}" for what in seen.left]
    if seen.disk:
        found.append(f"disk: {seen.disk}")
    return found


def report() -> dict[str, Any] | None:
    """run.json of the only run here."""
    for path in place.RUNS.glob("*/run.json"):
        try:
            known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return known
    return None


def acts() -> list[str]:
    """What the dead-man has written into the history that it did: resumed, ended, failed."""
    found = []
    for path in place.RUNS.glob("*/events.jsonl"):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):
                event = json.loads(line)
                found += [event["act"]] if event.get("kind") == "deadman" else []
    return found


# -- how the command ended ------------------------------------------------------------------------


def _ended(seen: Seen) -> list[str]:
    found = []
    if seen.exit is None:
        found.append("hangs: the command did not end")
    elif seen.exit == 1 and seen.report is not None and _overran(seen.report):
        pass
    elif seen.exit not in (fine := exits(seen.case)):
        found.append(f"exit code {seen.exit}, right is {' or '.join(map(str, sorted(fine)))}")
    if "Traceback" in seen.text:
        found.append(f"a traceback: {_last_error(seen.text)}")
    if seen.exit == 4 and "freezelab: " not in seen.text and not seen.fault.terminal.hung_up:
        found.append("exit code 4, and not a word why")
    return found


def _last_error(text: str) -> str:
    after = text[text.rindex("Traceback") :].splitlines()
    return next((line for line in after[1:] if line and not line.startswith(" ")), "")[:160]


def exits(case: Case) -> set[int]:
    """The exit codes that are right for a fault at a step (0 passed, 1 failed, 3 inconclusive, 4 the machine
    or a guest failed, 130 interrupted)."""
    target, action, stage = case.target, case.action, case.stage
    over = case.step == "event/run-end"
    match target:
        case Target.NOTHING:
            return _CALM
        case Target.CONTROLLER:
            if action == "kill":
                # A delay may let it end before.
                return {-9} if case.delay_ms < 0 or not over else {-9, 0}
            if action == "stop":
                # What only libvirt can bring back, the dead-man ends the controller for.
                ended = {-9} if case.method in ("save-restore", "in-place-cold") and _held(case) else set()
                return {*_CALM, 1, *ended} if stage < Stage.AFTER else _CALM
            return {130} if not over else {0, 130, -1, -15}
        case Target.DEADMAN:
            if action in ("term", "hup") or stage >= Stage.AFTER:
                return _CALM
            # A freeze without one is refused; one that dies in a freeze is noticed, and ends it.
            return {*_CALM, 1, 4}
        case Target.QEMU:
            return _qemu(case)
        case Target.SUCCESSOR:
            if action == "stop":
                return {0, 1, 3, 4}
            if stage is Stage.BEFORE or case.step == "phase/freeze":
                return {1, 4}  # without one nothing is frozen
            if case.step == "event/cycle-end":
                return {0, 4}
            return {1} if stage < Stage.AFTER and not _late(case) else {0, 1, 4}
        case Target.IOHELPER:
            return {0, 1} if action == "stop" else {1}
        case Target.SSHD | Target.CLOCK:
            return {0, 1, 3}
        case Target.PACKETS:
            return {0, 3}
        case _:
            return {0, 1, 3, 4}


_CALM = {0, 3}
"""Nothing happened that anybody would notice; on a busy machine a measurement may be inconclusive."""


def _held(case: Case) -> bool:
    """Whether the guest may stand still when the fault comes."""
    return Stage.BEFORE <= case.stage <= Stage.RESUME


def _late(case: Case) -> bool:
    """Whether the fault may come after the guest is the successor's."""
    return case.step == "step/resume" or case.delay_ms >= 0


def _qemu(case: Case) -> set[int]:
    over = case.stage is Stage.END
    if case.action == "stop":
        return _CALM if over else {0, 1, 3, 4}
    measured = case.step == "event/samples" and case.delay_ms >= 0  # libvirt is asked once more, at once
    if over or measured or case.step == "event/cycle-end":
        return {*_CALM, 4}
    if case.method == "reboot" and case.stage is Stage.FREEZE:
        return {0, 1, 3, 4}  # it was to end
    if case.method == "in-place" and case.stage >= Stage.FREEZE:
        # When it is the old process of a guest that is the successor's already, nothing is lost.
        return {*_CALM, 4}
    if case.method == "in-place-cold" and case.stage >= Stage.FREEZE:
        # When it is the new process that starts, another one takes the state, and the freeze has failed.
        return {*_CALM, 1, 4}
    return {4}


# -- the guest ------------------------------------------------------------------------------------


def stood(seen: Seen) -> list[Standstill]:
    """The guest's standstills, without those at a boot or a removal."""
    return standstills(seen.lives, seen.until)


def _stood(seen: Seen) -> list[str]:
    case, fault = seen.case, seen.fault
    if case.method == "reboot":
        return []
    found = ["guest: the killed run's does not run"] if seen.runs is False else []
    if seen.runs:
        found += [f"the dead-man says that it {what}, and it runs" for what in seen.acts if what != "resumed"]
    for still in stood(seen):
        limit = still.since + case.budget_s + paced(LATE_S)
        if case.target in (Target.QEMU, Target.SUCCESSOR) and case.action == "stop" and fault.over:
            limit = max(limit, fault.over + paced(LATE_S))
        if still.until > limit + paced(BLINK_S) + seen.widest_s:
            how = (
                "and ended so" if still.ended else "and ran again" if still.until < seen.until else "for good"
            )
            found.append(f"guest: stood still {still.length:.2f} s {how} (budget {case.budget_s:g} s)")
    return found


def _runners(seen: Seen) -> list[str]:
    """Never two processes that run the guest: when a later one has begun to, the one before it is over."""
    for old, new in itertools.pairwise(sorted(seen.lives, key=lambda life: life.begun)):
        begun = next(iter(running(new)), None)
        if begun is None:
            continue
        after = [
            moment for moment, used in old.moved if moment > begun + paced(BLINK_S) and used > _RUNNING_NS
        ]
        if after:
            return [f"two processes ran it: the old one {after[0] - begun:.2f} s after the new one"]
    return []


_RUNNING_NS = 20 * LEAST_NS


# -- the verdict ----------------------------------------------------------------------------------


def _verdict(seen: Seen) -> list[str]:
    run, code = seen.report, seen.exit
    found = []
    if run is None:
        return ["passed without a run.json"] if code == 0 else []
    outcome = run["outcome"]
    if code in RUNS and RUNS[code] != outcome:
        found.append(f"exit code {code}, but run.json says {outcome}")
    if code in (4, 130) and outcome != "inconclusive" and not _complete(run) and not _overran(run):
        found.append(f"cut off with exit code {code}, and called {outcome}: {_why(run)}")
    return found


def _complete(run: dict[str, Any]) -> bool:
    """Whether a cycle was done to its end: its verdict may stand."""
    return any(cycle.get("pause") for guest in run["guests"] for cycle in guest["cycles"])


def _overran(run: dict[str, Any]) -> bool:
    """Whether all that failed is the patch, for whose time the budget had no room left: on a busy host, with
    all else right."""
    failed = [each for each in run["findings"] if each["outcome"] == "failed"]
    return bool(failed) and all(each["metric"] == "patch" and "out of time" in each["why"] for each in failed)


def _why(run: dict[str, Any]) -> str:
    bad = [each for each in run["findings"] if each["outcome"] == run["outcome"]]
    return "; ".join(f"{each['metric']}: {each['why'] or each['measured']}" for each in bad[:3])


_BLIPS_NS = (1_000_000, 5_000_000)
"""What vCPU threads of waiting and of stopped processes use in one look, at most: mostly, and rarely."""


def _truth(seen: Seen) -> list[str]:
    """A pause that is told is one that was: its bounds, and those of what was watched, have a moment in
    common."""
    if seen.report is None or seen.case.method == "reboot":
        return []
    stills = [still.length for still in stood(seen)]
    more = [length for used_ns in _BLIPS_NS for length in silences(seen.lives, used_ns)]
    # A new process works for a moment before it takes the guest's state.
    more += [
        b.until - a.since for a, b in itertools.pairwise(stood(seen)) if b.since - a.until < paced(BLINK_S)
    ]
    found = []
    for guest in seen.report["guests"]:
        for cycle in guest["cycles"]:
            pause = cycle.get("pause")
            if not pause or pause["high_ns"] < 300e6:
                continue
            slack = paced(BLINK_S) + 2 * seen.widest_s
            low, high = pause["low_ns"] / 1e9 - slack, pause["high_ns"] / 1e9 + slack
            if not any(low <= length <= high for length in (*stills, *more)):
                told = f"{pause['low_ns'] / 1e9:.3f} to {pause['high_ns'] / 1e9:.3f} s"
                real = ", ".join(f"{length:.3f}" for length in stills) or "none"
                found.append(f"pause told as {told}, standstills watched: {real} s")
    return found


# -- the disk -------------------------------------------------------------------------------------


def disk_fault(disk: Path) -> str:
    """What qemu-img and e2fsck find wrong in a guest's disk whose process has ended; "" for nothing. The
    file system's journal is played back first, on a copy, as the next boot would."""
    checked = _run("qemu-img", "check", "-q", str(disk))
    if checked.returncode not in (0, 3):  # 3: clusters that nobody uses, as QEMU was killed
        return f"qemu-img check: {(checked.stdout + checked.stderr).strip().splitlines()[-1:]}"
    raw = disk.with_suffix(".raw")
    try:
        made = _run("qemu-img", "convert", "-O", "raw", str(disk), str(raw))
        if made.returncode:
            return f"qemu-img convert: {made.stderr.strip()}"
        done = _run("e2fsck", "-fp", str(raw))
        if done.returncode > 1:
            return f"e2fsck: {' '.join((done.stdout + done.stderr).split())[:200]}"
        again = _run("e2fsck", "-fn", str(raw))
        return f"e2fsck: {' '.join(again.stdout.split())[:200]}" if again.returncode else ""
    finally:
        raw.unlink(missing_ok=True)


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
