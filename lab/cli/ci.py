"""GitHub Actions: while a run goes on, nothing that it prints is a workflow command; at its end its findings
become annotations and the summary of the job. Elsewhere nothing of this is printed."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.cli import streams

if TYPE_CHECKING:
    from lab.record.run import Run


@dataclass
class JudgedRun:
    """The run to annotate, once it is judged."""

    run: Run | None = None


@contextmanager
def github(playbook: Path | None, *, machine: bool) -> Iterator[JudgedRun]:
    """playbook: its file, where it is known. machine: standard output is for programs: commands go to
    standard error, which the runner reads as well."""
    judged = JudgedRun()
    if os.environ.get("GITHUB_ACTIONS") != "true":
        yield judged
        return
    from lab.report.github import annotation_commands, resume_commands, stop_commands

    token = secrets.token_hex(16)
    _print(stop_commands(token), machine)
    try:
        yield judged
    finally:
        _print(resume_commands(token), machine)
        if judged.run is not None:
            for line in annotation_commands(judged.run, _in_the_repository(playbook)):
                _print(line, machine)
            _summarise(judged.run)


def _print(line: str, machine: bool) -> None:
    to = sys.stderr if machine else sys.stdout
    print(line, file=to, flush=True)


def _in_the_repository(playbook: Path | None) -> str:
    """The playbook's path as the repository has it; "" when it is not in it."""
    root = os.environ.get("GITHUB_WORKSPACE")
    if playbook is None or not root:
        return ""
    try:
        return str(playbook.resolve().relative_to(Path(root).resolve()))
    except ValueError:
        return ""


def _summarise(run: Run) -> None:
    """Add the run to the job's summary, if it still has room. A summary that cannot be written is no
    failure."""
    from lab.report.github import MOST_SUMMARY_BYTES, summary

    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    text = summary(run).encode("utf-8", "replace")
    try:
        with Path(path).open("ab") as file:
            if file.tell() + len(text) <= MOST_SUMMARY_BYTES:
                file.write(text)
    except OSError as error:
        streams.note(f"GITHUB_STEP_SUMMARY cannot be written: {error.strerror}")
