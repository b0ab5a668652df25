"""Findings as GitHub's workflow commands and summaries: escaped as its runner reads them, and never from a
name."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from lab.cli import ci
from lab.core.verdict import Finding, Outcome
from lab.record.run import Run
from lab.report.github import MOST_OF_A_KIND, annotation_commands, summary
from tests.unit.builders import RUNS, finding, guest, run, stays_behind
from tests.unit.real_histories import unpacked

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "error", "warning", "notice", "set-env", "add-mask", "add-path", "group", "save-state", "set-output",
)  # fmt: skip
MARKDOWN = ["a|b</td><script>x</script>", "[a](javascript:x) @all #1 $x$ `b` ![i](u)"]


@dataclass
class Runner:
    """What GitHub's runner makes of a step's output (actions/runner, ActionCommand.cs,
    ActionCommandManager.cs): a line that begins with `::NAME …::`, or has `##[NAME …]` anywhere, is a
    command if its name is known."""

    ran: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    token: str | None = None

    def read(self, output: str) -> Runner:
        for line in re.split(r"\r\n|\r|\n", output):
            command = self._new(line) or self._old(line)
            if command is None:
                continue
            name, properties, data = command
            if self.token is not None:
                self.token = None if name == self.token else self.token
            elif name == "stop-commands":
                self.token = data
            else:
                self.ran.append((name, properties, data))
        return self

    def _known(self, name: str) -> bool:
        return name in (*COMMANDS, "stop-commands", self.token)

    def _new(self, line: str) -> tuple[str, dict[str, str], str] | None:
        line = line.lstrip()
        end = line.find("::", 2)
        if not line.startswith("::") or end < 0:
            return None
        name, _, rest = line[2:end].partition(" ")
        pairs = [one.split("=", 1) for one in rest.strip().split(",") if "=" in one]
        properties = {key: _unescaped(value, {":": "%3A", ",": "%2C"}) for key, value in pairs}
        return (name, properties, _unescaped(line[end + 2 :], {})) if self._known(name) else None

    def _old(self, line: str) -> tuple[str, dict[str, str], str] | None:
        start = line.find("##[")
        end = line.find("]", start)
        if start < 0 or end < 0:
            return None
        name = line[start + 3 : end].partition(" ")[0]
        return (name, {}, line[end + 1 :]) if self._known(name) else None


def _unescaped(text: str, more: dict[str, str]) -> str:
    for char, escaped in {"\r": "%0D", "\n": "%0A", **more, "%": "%25"}.items():
        text = text.replace(escaped, char)
    return text


HOSTILE = [
    "x\n::error::owned",
    "\r::add-mask::a\r",
    "%0A::set-env name=PATH::evil",
    "##[add-path]/tmp",
    ",file=/etc/passwd,line=1::owned",
    "::stop-commands::x",
    "a:b,c=d%25",
]


@pytest.mark.parametrize("bad", HOSTILE)
def test_a_hostile_name_is_a_part_of_one_annotation(bad: str) -> None:
    made = run(guest(bad), found=(finding(Outcome.FAILED, bad, bad, guest=bad),))
    made = replace(made, playbook=replace(made.playbook, name=bad))
    (command,) = annotation_commands(made, "playbooks/a, b: c%.yaml")
    assert "\n" not in command and "\r" not in command
    ((name, properties, data),) = Runner().read(command).ran
    assert (name, properties["file"]) == ("error", "playbooks/a, b: c%.yaml")
    assert set(properties) == {"file", "title"}
    shown = re.sub(r"[\r\n]", " ", bad)
    assert data == shown
    assert properties["title"] == f"{shown}: {shown} cycle 0 {shown}".rstrip()


@pytest.mark.parametrize("bad", [*HOSTILE, *MARKDOWN])
def test_a_hostile_name_is_text_in_the_summary(bad: str) -> None:
    made = run(guest(bad, stays_behind()), found=(finding(Outcome.FAILED, bad, bad, guest=bad),))
    text = summary(replace(made, playbook=replace(made.playbook, name=bad), id=bad))
    plain = summary(run(guest("n", stays_behind()), found=(finding(Outcome.FAILED, "n", "n", guest="n"),)))
    assert len(text.splitlines()) == len(plain.splitlines())
    assert [line.count("|") for line in text.splitlines()] == [line.count("|") for line in plain.splitlines()]
    assert not re.search(r"[<>@]|\]\(|(?<!&)#\d", re.sub(r"`[^`]*`", "", text))


def test_failed_findings_come_first_and_no_more_than_are_shown() -> None:
    found = [finding(Outcome.INCONCLUSIVE, f"i{n}", "why") for n in range(15)]
    found += [finding(Outcome.FAILED, f"f{n}", "why") for n in range(MOST_OF_A_KIND + 3)]
    ran = Runner().read("\n".join(annotation_commands(run(found=tuple(found))))).ran
    assert [name for name, _, _ in ran] == ["error"] * MOST_OF_A_KIND + ["warning"] * MOST_OF_A_KIND
    assert ran[MOST_OF_A_KIND - 1][2] == "why\nand 3 more findings: see the summary"
    assert all("file" not in properties for _, properties, _ in ran)


def test_an_annotation_without_a_reason_has_what_was_expected() -> None:
    outage = Finding("neighbour", 1, "outage", "at most 2 s", "3.9–4.1 s", Outcome.FAILED)
    (command,) = annotation_commands(run(found=(outage,)))
    assert Runner().read(command).ran[0][2] == "3.9–4.1 s, expected at most 2 s"


def test_a_passed_run_has_no_annotation_and_a_short_summary() -> None:
    assert list(annotation_commands(run())) == []
    text = summary(run())
    assert "✅ passed" in text
    assert "web&#45;0" in text
    assert len(text) < 1500


def test_a_summary_stays_small(fleet_runs: dict[str, Run]) -> None:
    many = tuple(Finding(f"g{n}", n, "m" * 500, "e", "x", Outcome.FAILED, "w" * 5000) for n in range(5000))
    made = replace(fleet_runs["large"], findings=many)
    assert len(summary(made).encode()) < 200_000


# -- in the environment of a step --------------------------------------------------------------------------


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "repository").mkdir()
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path / "repository"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    return tmp_path


def test_what_is_printed_meanwhile_is_no_command(
    step: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    playbook = step / "repository" / "nights" / "p.yaml"
    with ci.annotating(playbook, machine=False) as judged:
        sys.stdout.write("::error::from a guest\n  ##[add-path]/tmp\n::%s::\n" % ("0" * 32))
        judged.run = RUNS["failed"]()
    sys.stdout.write("::notice::after it\n")
    ran = Runner().read(capsys.readouterr().out).ran
    assert [(name, properties.get("file")) for name, properties, _ in ran] == [
        ("error", "nights/p.yaml"), ("error", "nights/p.yaml"), ("notice", None),
    ]  # fmt: skip
    assert "❌ failed" in (step / "summary.md").read_text()


def test_tokens_differ(step: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(5):
        with ci.annotating(None, machine=False):
            pass
    tokens = re.findall(r"^::stop-commands::(\w{32})$", capsys.readouterr().out, re.MULTILINE)
    assert len(set(tokens)) == 5


def test_commands_run_again_after_a_failure(step: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), ci.annotating(None, machine=False):
        raise RuntimeError
    sys.stdout.write("::notice::x\n")
    assert [name for name, _, _ in Runner().read(capsys.readouterr().out).ran] == ["notice"]
    assert not (step / "summary.md").exists()


def test_standard_output_is_left_to_programs(step: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ci.annotating(None, machine=True) as judged:
        judged.run = RUNS["failed"]()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(Runner().read(captured.err).ran) == 2


def test_elsewhere_nothing_is_printed(
    step: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "")
    with ci.annotating(None, machine=False) as judged:
        judged.run = RUNS["failed"]()
    assert capsys.readouterr() == ("", "")
    assert not (step / "summary.md").exists()


def test_summaries_are_added_up_to_githubs_limit(step: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (step / "summary.md").write_text("before\n")
    for _ in range(2):
        with ci.annotating(None, machine=False) as judged:
            judged.run = RUNS["passed"]()
    text = (step / "summary.md").read_text()
    assert text.startswith("before\n")
    assert text.count("✅ passed** ") + text.count("— ✅ passed") == 2
    (step / "summary.md").write_bytes(b"x" * ((1 << 20) - 10))
    with ci.annotating(None, machine=False) as judged:
        judged.run = RUNS["passed"]()
    assert (step / "summary.md").stat().st_size == (1 << 20) - 10


@pytest.mark.parametrize("path", ["/dev/full", "/nowhere/summary.md", "/"])
def test_a_summary_that_cannot_be_written_is_told(
    step: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", path)
    with ci.annotating(None, machine=False) as judged:
        judged.run = RUNS["passed"]()
    assert "freezelab: GITHUB_STEP_SUMMARY cannot be written: " in capsys.readouterr().err


@pytest.mark.parametrize(("more", "stream"), [([], "stdout"), (["--json"], "stderr")])
def test_report_in_a_step(step: Path, more: list[str], stream: str) -> None:
    folder = step / "run"
    folder.mkdir()
    unpacked("called-off", folder)
    done = subprocess.run(
        [sys.executable, "-m", "lab.cli.main", "report", str(folder), *more],
        cwd=ROOT, env={**os.environ, "FREEZELAB_HOME": str(step)}, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    ran = Runner().read(getattr(done, stream)).ran
    assert ran and {name for name, _, _ in ran} <= {"error", "warning"}
    assert ran[0][1]["title"] == "t: web-0 cycle 0 patch"
    other = done.stderr if stream == "stdout" else done.stdout
    assert "::" not in other or stream == "stderr"
    assert Runner().read(other).ran == []


def test_the_runner_above_reads_what_its_makers_wrote_of_it() -> None:
    """Examples of GitHub's documentation of workflow commands, and of the toolkit's tests."""
    output = io.StringIO()
    print("::error file=app.js,line=1,col=5,endColumn=7::Missing semicolon", file=output)
    print("::warning title=a%3Ab%2Cc::50%25%0Aoff", file=output)
    print("plain text ::error::is none\n::unknown::is none", file=output)
    assert Runner().read(output.getvalue()).ran == [
        ("error", {"file": "app.js", "line": "1", "col": "5", "endColumn": "7"}, "Missing semicolon"),
        ("warning", {"title": "a:b,c"}, "50%\noff"),
    ]
