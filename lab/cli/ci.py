"""On GitHub Actions and GitLab CI a run's findings become annotations when it ends. Elsewhere nothing of
this happens.

On GitHub, while a run goes on, nothing that it prints is a workflow command; at its end its findings become
annotations and the summary of the job. On GitLab they are written to a code quality report.
"""

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
from lab.errors import MachineError

if TYPE_CHECKING:
    from lab.record.run import Run


@dataclass
class JudgedRun:
    """The run to annotate, once it is judged."""

    run: Run | None = None


REPORT = "gl-code-quality-report.json"
"""GitLab's own name for it."""


@contextmanager
def annotating(playbook: Path | None, *, machine: bool) -> Iterator[JudgedRun]:
    """playbook: its file, where it is known. machine: standard output is for programs: commands go to
    standard error, which GitHub's runner reads as well."""
    judged = JudgedRun()
    with _commands_held(judged, playbook, machine):
        yield judged
    if judged.run is not None and os.environ.get("GITLAB_CI") == "true":
        _report(judged.run, playbook)


@contextmanager
def _commands_held(judged: JudgedRun, playbook: Path | None, machine: bool) -> Iterator[None]:
    if os.environ.get("GITHUB_ACTIONS") != "true":
        yield
        return
    from lab.report.github import annotation_commands, resume_commands, stop_commands

    token = secrets.token_hex(16)
    _print(stop_commands(token), machine)
    try:
        yield
    finally:
        _print(resume_commands(token), machine)
        if judged.run is not None:
            file = _in_the_repository(playbook, os.environ.get("GITHUB_WORKSPACE"))
            for line in annotation_commands(judged.run, file):
                _print(line, machine)
            _summarise(judged.run)


def _print(line: str, machine: bool) -> None:
    to = sys.stderr if machine else sys.stdout
    print(line, file=to, flush=True)


def _in_the_repository(playbook: Path | None, root: str | None) -> str:
    """The playbook's path as the repository has it; "" when it is not in it."""
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


def _report(run: Run, playbook: Path | None) -> None:
    """Put the run into the job's code quality report. A playbook that is not in the repository is annotated
    where GitLab's jobs are defined. A report that cannot be written is no failure."""
    from lab.report.files import write_whole
    from lab.report.gitlab import joined

    root = os.environ.get("CI_PROJECT_DIR")
    path = Path(root or ".") / REPORT
    file = _in_the_repository(playbook, root) or os.environ.get("CI_CONFIG_PATH") or ".gitlab-ci.yml"
    try:
        old = path.read_bytes() if path.exists() else b""
        write_whole(path, joined(old, run, file))
    except (OSError, MachineError) as error:
        streams.note(f"the code quality report: {error}")
