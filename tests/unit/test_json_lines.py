"""`run --json-lines`: every line is valid, nothing holds the run up, and the last line is the verdict."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from lab.cli.live_outputs import LiveOutputs
from lab.cli.running import live_outputs
from lab.core.clock import Stamp
from lab.core.plan import Plan
from lab.errors import Interrupted, MachineError, UsageError
from lab.ports import NullView
from lab.process.clock import HostClock
from lab.record.follow import FollowedRun
from lab.record.journal import read_history
from lab.record.rebuild import plan_of
from lab.record.run import judge
from lab.report.json_lines import JsonLinesView
from lab.report.progress_lines import SCHEMA, ProgressLine, ProgressNote, schema, text_of
from lab.report.several_views import SeveralViews
from tests.unit.builders import RUNS
from tests.unit.real_histories import NAMES, unpacked
from tests.unit.replayed import replayed

ROOT = Path(__file__).parents[2]
VALID = jsonschema.Draft202012Validator(schema())


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The lines, each checked against the schema."""
    text = path.read_bytes().decode("ascii")
    assert text.endswith("\n")
    found = [json.loads(line) for line in text.splitlines()]
    for line in found:
        VALID.validate(line)
        (of_kind,) = [kind for kind in get_args(ProgressLine) if line["event"] == kind.EVENT]
        assert set(line) == {"event", "at", *(field.name for field in fields(of_kind))}
    return found


@pytest.fixture
def out(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    path = tmp_path / "out.jsonl"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    yield path, fd
    os.close(fd)


def replay(name: str, folder: Path, fd: int, failure: str = "") -> Plan:
    """The lines of a real run, as its command would have printed them."""
    live = LiveOutputs(lines=JsonLinesView(HostClock(), fd))
    plan = plan_of(read_history(unpacked(name, folder.parent)))
    with live.opened(plan):
        for entry in replayed(name, folder):
            live.appended(folder, entry)
        live.judged(judge(read_history(folder))[0], folder)
        live.ended(1, failure)
    return plan


@pytest.mark.parametrize("name", [name for name in NAMES if "truncated" not in name])
def test_the_lines_of_a_real_run(tmp_path: Path, out: tuple[Path, int], name: str) -> None:
    plan = replay(name, tmp_path / "run", out[1], "because")
    lines, (made, _) = lines_of(out[0]), judge(read_history(tmp_path / "run"))
    assert lines[0]["event"] == "started"
    assert (lines[0]["schema"], lines[0]["playbook"]) == (SCHEMA, plan.name)
    assert [line["event"] for line in lines].count("run-ended") == 1
    last = lines[-1]
    assert (last["event"], last["run"], last["outcome"]) == ("run-ended", made.id, made.outcome)
    assert (last["path"], last["exit_code"], last["failure"]) == (str(tmp_path / "run"), 1, "because")
    assert sum(last["findings"].values()) == len(made.findings)
    ended = [line for line in lines if line["event"] == "cycle-ended"]
    if name not in ("interrupted", "interrupted-early", "rescued-by-the-dead-man"):
        assert len(ended) == sum(len(guest.cycles) for guest in made.guests)
    pauses = {(line["guest"], line["cycle"]): line["pause"] for line in ended}
    for guest in made.guests:
        for cycle in guest.cycles:
            given = pauses.get((guest.name, cycle.index))
            if given is not None and cycle.pause is not None:
                assert given["low_ns"] <= cycle.pause.high_ns and cycle.pause.low_ns <= given["high_ns"]


def test_an_announced_fleet(tmp_path: Path, out: tuple[Path, int]) -> None:
    replay("rollout", tmp_path / "run", out[1])
    lines = lines_of(out[0])
    kinds = [line["event"] for line in lines]
    assert kinds.count("announced") == 2
    assert {"seen", "approved", "started", "gone"} <= {
        line["what"] for line in lines if line["event"] == "scheduled-event"
    }
    assert [line["ok"] for line in lines if line["event"] == "gate"] == [True] * kinds.count("gate")
    assert kinds.index("announced") < kinds.index("cycle-ended")


def test_every_call_of_a_view_is_a_line(out: tuple[Path, int]) -> None:
    with JsonLinesView(HostClock(), out[1]) as lines:
        view = SeveralViews(lines)
        view.phase("settle", guest="web-0", length_ns=5)
        view.note("one\ntwo")
        view.cycle(1, 3)
        view.frozen(7, 30)
        view.resumed()
        view.domain("web UD 0", "frozen", number=1, of=2)
        view.progress("unpacking", None)
        view.progress("unpacking", 0.5)
        lines.failed("no", 4)
    expected = [
        "phase",
        "note",
        "note",
        "cycle-started",
        "frozen",
        "resumed",
        "domain",
        "image",
        "image",
        "failed",
    ]
    given = lines_of(out[0])
    assert [line["event"] for line in given] == expected
    assert given[0]["text"] == "waiting for the guests to settle"
    assert given[4] == {"event": "frozen", "at": given[4]["at"], "budget_ns": 30}


@pytest.mark.parametrize("view", [JsonLinesView, SeveralViews])
def test_no_call_of_a_view_is_left_out(view: type[NullView]) -> None:
    calls = [name for name in vars(NullView) if not name.startswith("_")]
    assert "progress" in calls
    assert [name for name in calls if name not in vars(view)] == []


HOSTILE = 'a\x00\x1b]0;t\x07\r\n\u2028\u202e\x7f\x9b\ud800"\\{}\U0001f600'


def test_hostile_texts_stay_in_their_line(out: tuple[Path, int]) -> None:
    with JsonLinesView(HostClock(), out[1]) as lines:
        lines.started(HOSTILE, [HOSTILE], [HOSTILE])
        lines.run_ended(RUNS["hostile"](), HOSTILE, 1, HOSTILE)
    first, last = lines_of(out[0])
    assert first["playbook"] == HOSTILE.replace("\ud800", "?")
    assert last["failure"] == first["guests"][0]
    assert not any((byte < 32 and byte != 10) or byte > 126 for byte in out[0].read_bytes())


def test_the_last_line_of_a_run_that_cannot_begin(out: tuple[Path, int], tmp_path: Path) -> None:
    live = LiveOutputs(lines=JsonLinesView(HostClock(), out[1]))
    plan = plan_of(read_history(unpacked("suspend", tmp_path)))
    with pytest.raises(MachineError), live.opened(plan):
        raise MachineError("no QEMU", hint="install it")
    assert lines_of(out[0])[-1] | {"at": ""} == {
        "event": "failed", "at": "", "failure": "no QEMU\ninstall it", "exit_code": 4,
    }  # fmt: skip


def test_the_last_line_when_showing_the_judged_run_fails(out: tuple[Path, int], tmp_path: Path) -> None:
    live = LiveOutputs(Path("/dev/full"), JsonLinesView(HostClock(), out[1]))
    plan = plan_of(read_history(unpacked("suspend", tmp_path)))
    live.judged(RUNS["passed"](), tmp_path)
    with pytest.raises(MachineError), live.opened(plan):
        live.ended(0)
    last = lines_of(out[0])[-1]
    assert (last["event"], last["outcome"], last["exit_code"]) == ("run-ended", "passed", 4)
    assert "No space left" in last["failure"]


def test_a_reader_that_stands_still_holds_nothing_up(tmp_path: Path) -> None:
    """A guest may be frozen meanwhile: only the end of the command waits for the reader."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader:
        lines = JsonLinesView(HostClock(), writing)
        with lines:
            begun = time.monotonic()
            for number in range(20_000):
                lines.note(f"line {number} {'x' * 50}")
            lines.frozen(1, 2)
            taken = time.monotonic() - begun
            got = subprocess.Popen(["wc", "-l"], stdin=reader.fileno(), stdout=subprocess.PIPE)
        os.close(writing)
        assert got.communicate(timeout=60)[0].split() == [b"20001"]
    assert taken < 10


def test_a_reader_that_has_left_ends_no_run(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with JsonLinesView(HostClock(), writing) as lines:
        lines.note("nobody reads this")
    os.close(writing)


def test_a_full_disk_is_an_error_at_the_end() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError, match="No space left"), JsonLinesView(HostClock(), fd) as lines:
        lines.note("x\ny")
    os.close(fd)


def test_two_formats_for_one_output_are_refused() -> None:
    with pytest.raises(UsageError, match="give one of them"):
        live_outputs(None, json_lines=True, as_json=True)


def test_a_signal_is_in_the_last_line(out: tuple[Path, int], tmp_path: Path) -> None:
    live = LiveOutputs(lines=JsonLinesView(HostClock(), out[1]))
    with pytest.raises(Interrupted), live.opened(plan_of(read_history(unpacked("suspend", tmp_path)))):
        raise Interrupted("interrupted by SIGINT")
    assert lines_of(out[0])[-1]["exit_code"] == 130


@pytest.mark.parametrize("where", ["update", "_judge"])
def test_a_signal_while_a_cycle_is_judged_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def signalled(_: FollowedRun) -> None:
        raise Interrupted("interrupted by SIGINT")

    monkeypatch.setattr(FollowedRun, where, signalled)
    live, last = LiveOutputs(tmp_path / "freezelab.prom"), None
    for entry in replayed("suspend", tmp_path / "run"):
        last = entry if entry.kind == "cycle-end" else last
    assert last is not None
    with pytest.raises(Interrupted):
        live.appended(tmp_path / "run", last)


def test_the_published_schema_is_current_and_every_kind_has_its_place() -> None:
    published = json.loads((ROOT / "docs/progress.schema.json").read_text())
    assert published == schema(), "freezelab schema progress > docs/progress.schema.json"
    jsonschema.Draft202012Validator.check_schema(published)
    documented = (ROOT / "docs/formats.md").read_text()
    for kind in get_args(ProgressLine):
        assert f"| `{kind.EVENT}` |" in documented
        assert all(f"`{field.name}`" in documented for field in fields(kind))


def test_a_line_that_is_not_of_its_kind_is_refused() -> None:
    line = json.loads(text_of(ProgressNote("x"), "2026-11-29T00:00:00.000Z"))
    VALID.validate(line)
    for wrong in ({**line, "event": "noted"}, {**line, "text": 7}, {"event": "note", "text": "x"}):
        assert not VALID.is_valid(wrong)


def failing(home: Path, redirected: str) -> subprocess.CompletedProcess[str]:
    """The real command, its streams as a shell redirects them. It fails: there is no such domain."""
    playbook = home / "p.yaml"
    playbook.write_text(
        "name: none\nguests: [{domain: nobody, ssh: nobody}]\nresync: none\n"
        "cycle: {patch: {hold: 1s}, budget: 9s, watch: 2s}\n"
    )
    run = f'"{sys.executable}" -m lab.cli.main run {playbook} --json-lines -q'
    return subprocess.run(
        ["sh", "-c", f"{run} --connect test:///default {redirected}"],
        cwd=ROOT, env={**os.environ, "FREEZELAB_HOME": str(home / "home")},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_the_command_prints_nothing_else(tmp_path: Path) -> None:
    done = failing(tmp_path, f">{tmp_path / 'out'}")
    lines = lines_of(tmp_path / "out")
    assert lines[0]["event"] == "started"
    assert (lines[-1]["event"], lines[-1]["exit_code"]) == ("failed", done.returncode)
    assert done.returncode in (2, 4)
    assert f"freezelab: {lines[-1]['failure']}\n" == done.stderr


def test_a_standard_output_that_is_full(tmp_path: Path) -> None:
    done = failing(tmp_path, ">/dev/full")
    why = "the results cannot be written to standard output: No space left on device"
    assert (done.returncode, done.stderr) == (4, f"freezelab: {why}\n")


def test_what_fails_in_the_run_is_no_failure_of_the_output(out: tuple[Path, int], tmp_path: Path) -> None:
    live = LiveOutputs(lines=JsonLinesView(HostClock(), out[1]))
    with pytest.raises(FileNotFoundError), live.opened(plan_of(read_history(unpacked("suspend", tmp_path)))):
        raise FileNotFoundError


def test_stamps_are_of_the_hosts_real_clock(out: tuple[Path, int]) -> None:
    class Fixed:
        def now(self) -> Stamp:
            return Stamp(5, 1_795_905_040_332_000_000)

        def sleep_until(self, raw_ns: int) -> None: ...

    with JsonLinesView(Fixed(), out[1]) as lines:
        lines.note("x")
    assert lines_of(out[0])[0]["at"] == "2026-11-28T22:30:40.332Z"
