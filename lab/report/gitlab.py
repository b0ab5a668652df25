"""A run's findings for GitLab CI: a code quality report, which a merge request shows at the files it names.

Its members are GitLab's (docs.gitlab.com, ci/testing/code_quality, "Code Quality report format").
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from lab.core.verdict import Finding, Outcome
from lab.record.model import Run
from lab.report.github import reason, whose
from lab.report.text import bare, cleaned

_SEVERITIES = {Outcome.FAILED: "major", Outcome.INCONCLUSIVE: "minor"}


def issues(run: Run, file: str) -> list[dict[str, Any]]:
    """An issue for each finding that is not passed, failed ones first. file: the path, in the repository, of
    the playbook or of what ran it."""
    run, begun = cleaned(run), _begun(run)
    return [
        {
            "description": bare(f"{run.playbook.name}: {_named(finding)}: {reason(finding)}"),
            "check_name": f"freezelab/{finding.metric}",
            "fingerprint": begun + _digest(_named(finding), finding.expectation),
            "severity": severity,
            "location": {"path": file, "lines": {"begin": 1}},
        }
        for outcome, severity in _SEVERITIES.items()
        for finding in run.findings
        if finding.outcome is outcome
    ]


def joined(report: bytes, run: Run, file: str) -> bytes:
    """The report with the run's issues, in place of those of an earlier run of the same playbook. report: as
    it is; what is no report counts as empty. file: see issues()."""
    try:
        old = [dict(issue) for issue in json.loads(report or b"[]")]
    except (ValueError, TypeError):
        old = []
    others = [issue for issue in old if not str(issue.get("fingerprint")).startswith(_begun(run))]
    return json.dumps([*others, *issues(run, file)], indent=2).encode() + b"\n"


def _named(finding: Finding) -> str:
    return f"{whose(finding)} {finding.metric}".strip()


def _begun(run: Run) -> str:
    """How the fingerprints of all of a playbook's findings begin. Each is the same in every run."""
    return _digest(cleaned(run).playbook.name)[:16]


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "replace")).hexdigest()
