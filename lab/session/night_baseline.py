"""What a playbook's runs are compared with: its baseline, or its last passed runs when it has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lab.core.comparison import ACCELERATOR, RunFigures, compare_runs
from lab.core.night import (
    NightCheck,
    NightVerdict,
    PlaybookNight,
    comparison_checks,
    comparison_notes,
    verdict_check,
    worst_verdict,
)
from lab.core.plan import Plan
from lab.core.verdict import Outcome
from lab.errors import RecordError, UsageError
from lab.record.baselines import read_baselines, write_baselines
from lab.record.index import RunFilter
from lab.record.journal import is_written
from lab.session.run_folders import figures, find_run, latest

_LATEST = 1000
"""So many runs are looked at for the last passed ones of a playbook."""


def compared(home: Path, part: PlaybookNight, plan: Plan, last: int) -> PlaybookNight:
    """A playbook's part of a night with the verdict of its run, held against the baseline. RecordError when
    the run cannot be read."""
    run = figures([home / "runs" / part.run])[0]
    part = replace(part, outcome=run.outcome)
    chosen = read_baselines(home).get(plan.name)
    if chosen:
        baseline, missing = _chosen(home, chosen)
    else:
        baseline, missing = _passed(run, last), []
    if missing or not baseline:
        checks = [*missing, verdict_check(run.outcome, [one.outcome for one in baseline])]
        notes = [] if missing else ["no baseline yet: nothing was compared"]
    else:
        found = compare_runs(baseline, run)
        used = [one for one in baseline if one.id in found.baseline]
        checks = [verdict_check(run.outcome, [one.outcome for one in used]), *comparison_checks(found)]
        notes = comparison_notes(found)
    return replace(
        part,
        verdict=worst_verdict(check.verdict for check in checks),
        baseline=tuple(one.id for one in baseline),
        checks=tuple(checks),
        notes=tuple(notes),
    )


def _chosen(home: Path, runs: Sequence[str]) -> tuple[list[RunFigures], list[NightCheck]]:
    """The runs of a baseline, and a check for each that is gone: then nothing can be compared."""
    found, missing = [], []
    for run in runs:
        try:
            found += figures([home / "runs" / run])
        except RecordError as error:
            why = f"the baseline {run} is gone or damaged ({error.what}): freezelab baseline set RUN"
            missing.append(NightCheck("baseline", NightVerdict.INCONCLUSIVE, run, "", why))
    return found, missing


def _passed(run: RunFigures, last: int) -> list[RunFigures]:
    """The last runs of the same playbook on the same machine that passed."""
    wanted = RunFilter(playbooks=(run.playbook,), states=frozenset({Outcome.PASSED.value}))
    found: list[RunFigures] = []
    for folder, summary in latest(_LATEST, wanted):
        if len(found) == last:
            break
        if summary.id != run.id and summary.complete:
            found += (one for one in figures([folder]) if _is_alike(one, run))
    return found


def _is_alike(one: RunFigures, run: RunFigures) -> bool:
    alike = one.setting.get(ACCELERATOR) == run.setting.get(ACCELERATOR)
    return alike and one.digest == run.digest and one.machine.is_same(run.machine)


def set_baseline(home: Path, runs: Sequence[str]) -> list[str]:
    """Make these runs the baselines of their playbooks, in place of those that they had. A line for each
    playbook. RecordError or UsageError when one of them cannot be one."""
    chosen: dict[str, list[RunFigures]] = {}
    for name in runs:
        folder = find_run(name)
        if folder.resolve().parent != (home / "runs").resolve():
            raise UsageError("not a run of this state folder", where=str(folder), hint=str(home / "runs"))
        if is_written(folder):
            raise UsageError("this run has not ended", where=folder.name)
        (one,) = figures([folder])
        if not one.complete:
            raise UsageError("this run did not go to its end", where=folder.name, hint="choose another run")
        of_playbook = chosen.setdefault(one.playbook, [])
        if one.id not in (other.id for other in of_playbook):
            of_playbook.append(one)
    lines = []
    for playbook, of_playbook in chosen.items():
        if len({one.digest for one in of_playbook}) > 1:
            raise UsageError("these runs are of different versions of the playbook", where=playbook)
        line = f"{playbook}: {', '.join(one.id for one in of_playbook)}"
        outcomes = dict.fromkeys(one.outcome for one in of_playbook if one.outcome is not Outcome.PASSED)
        lines.append(f"{line} ({' or '.join(outcomes)}: nights that end so pass)" if outcomes else line)
    known = read_baselines(home)
    write_baselines(
        home, {**known, **{playbook: [one.id for one in runs] for playbook, runs in chosen.items()}}
    )
    return lines


def clear_baseline(home: Path, playbooks: Sequence[str]) -> list[str]:
    """Forget the baselines of these playbooks; of all without any. Returns their names. UsageError when one
    has none."""
    known = read_baselines(home)
    for name in playbooks:
        if name not in known:
            have = f"there are: {', '.join(known)}" if known else "there are none"
            raise UsageError(f"the playbook {name!r} has no baseline", hint=have)
    gone = list(playbooks) or list(known)
    if gone:
        write_baselines(home, {name: runs for name, runs in known.items() if name not in gone})
    return gone


def show_baselines(home: Path) -> list[tuple[str, str, str]]:
    """(playbook, run, verdict or what is wrong with it) of each run in a baseline."""
    rows = []
    for playbook, runs in read_baselines(home).items():
        for run in runs:
            try:
                state = str(figures([home / "runs" / run])[0].outcome)
            except RecordError as error:
                state = f"gone: {error.what}"
            rows.append((playbook, run, state))
    return rows
