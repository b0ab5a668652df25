"""Findings as GitLab's code quality report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.cli import ci
from lab.core.verdict import Outcome
from lab.record.run import Run
from tests.unit.builders import RUNS, finding, run

REPORT = "gl-code-quality-report.json"
SEVERITIES = {Outcome.FAILED: "major", Outcome.INCONCLUSIVE: "minor"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GITLAB_CI", "true")
    monkeypatch.setenv("CI_PROJECT_DIR", str(tmp_path))
    monkeypatch.delenv("CI_CONFIG_PATH", raising=False)
    return tmp_path


def reported(project: Path, judged: Run, playbook: Path | None = None) -> list[dict[str, Any]]:
    """The report after the run."""
    with ci.annotating(playbook, machine=False) as annotated:
        annotated.run = judged
    found: list[dict[str, Any]] = json.loads((project / REPORT).read_text())
    return found


def named(name: str, judged: Run) -> Run:
    return replace(judged, playbook=replace(judged.playbook, name=name))


@pytest.mark.parametrize("kind", sorted(RUNS))
def test_each_finding_that_is_not_passed_is_an_issue(project: Path, kind: str) -> None:
    judged = RUNS[kind]()
    issues = reported(project, judged, project / "nights" / "p.yaml")
    bad = [one for one in judged.findings if one.outcome is not Outcome.PASSED]
    assert sorted(one["severity"] for one in issues) == sorted(SEVERITIES[one.outcome] for one in bad)
    for issue in issues:
        assert set(issue) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert issue["location"] == {"path": "nights/p.yaml", "lines": {"begin": 1}}
    assert len({one["fingerprint"] for one in issues}) == len(bad)


def test_a_later_run_takes_the_place_of_its_playbooks_alone(project: Path) -> None:
    first = reported(project, named("a", RUNS["failed"]()))
    both = reported(project, named("b", RUNS["failed"]()))
    assert both[: len(first)] == first
    assert len(both) == 2 * len(first)
    again = reported(project, named("a", RUNS["failed"]()))
    assert again[len(first) :] == first, "with the same fingerprints"
    left = reported(project, named("a", RUNS["passed"]()))
    assert left == both[len(first) :]


def test_a_playbook_of_elsewhere_is_told_where_jobs_are_defined(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {one["location"]["path"] for one in reported(project, RUNS["failed"]())} == {".gitlab-ci.yml"}
    monkeypatch.setenv("CI_CONFIG_PATH", "ci/nights.yml")
    elsewhere = project.parent / "p.yaml"
    told = reported(project, RUNS["failed"](), elsewhere)
    assert {one["location"]["path"] for one in told} == {"ci/nights.yml"}


@pytest.mark.parametrize("left", [b"", b"{", b"[1]", b'{"a": 1}', b"null", b"\xff"])
def test_what_is_no_report_is_replaced(project: Path, left: bytes) -> None:
    (project / REPORT).write_bytes(left)
    assert len(reported(project, RUNS["failed"]())) == 2


def test_hostile_names_are_text(project: Path) -> None:
    judged = run(found=(finding(Outcome.FAILED, "offset", "a\x1b[31m\u202eb\n"),))
    [issue] = reported(project, judged)
    assert not {"\x1b", "\u202e", "\n"} & set(issue["description"])


def test_a_report_that_cannot_be_written_is_told(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CI_PROJECT_DIR", str(project / "nowhere"))
    with ci.annotating(None, machine=False) as annotated:
        annotated.run = RUNS["failed"]()
    assert "freezelab: the code quality report: " in capsys.readouterr().err


def test_elsewhere_there_is_none(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITLAB_CI", "")
    with ci.annotating(None, machine=False) as annotated:
        annotated.run = RUNS["failed"]()
    assert list(project.iterdir()) == []
