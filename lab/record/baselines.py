"""Baselines: for each playbook the runs that its nights are compared with, in baselines.json of the state
folder: {"name of a playbook": ["id of a run", …]}. A playbook that is not in it has none of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.errors import RecordError
from lab.record.state_files import read_json, write_json

BASELINES = "baselines.json"


def read_baselines(home: Path) -> dict[str, tuple[str, ...]]:
    """The runs by playbook, {} without a file. home: the state folder. RecordError when the file is
    damaged."""
    path = home / BASELINES
    found = read_json(path)
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(_is_ids(runs) for runs in found.values()):
        raise RecordError("damaged: it is not a list of runs by playbook", where=str(path), hint="remove it")
    return {playbook: tuple(runs) for playbook, runs in found.items()}


def write_baselines(home: Path, baselines: Mapping[str, Sequence[str]]) -> None:
    """Replace the file. MachineError when it cannot be written: the old one stays."""
    write_json(home / BASELINES, {playbook: list(runs) for playbook, runs in sorted(baselines.items())})


def baseline_runs(home: Path) -> frozenset[str]:
    """The ids of all runs that are in a baseline: they are not to be pruned."""
    return frozenset(run for runs in read_baselines(home).values() for run in runs)


def _is_ids(runs: object) -> bool:
    return isinstance(runs, list) and bool(runs) and all(isinstance(run, str) for run in runs)
