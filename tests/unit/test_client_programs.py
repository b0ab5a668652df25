"""Clients of workloads that cannot be started are refused before anything is."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lab.cli.main import app
from lab.errors import UsageError
from lab.playbook import load
from lab.session.client_programs import check_clients, client_obstacles

BOOK = """\
name: a
resync: agent
cycle: {patch: {hold: 5s}}
workload:
  - {name: one, command: [./one.py]}
  - {name: two, command: [sh, -c, exit]}
  - {name: three, command: [no-such-program-here]}
  - {name: four, command: [./folder]}
"""


def test_what_cannot_be_started_is_told_at_once(tmp_path: Path) -> None:
    book, own = tmp_path / "book.yaml", tmp_path / "one.py"
    book.write_text(BOOK, encoding="utf-8")
    (tmp_path / "folder").mkdir()
    plan = load(book)
    one, three, four = (str(error) for error in client_obstacles(plan))
    assert one == f"workload one: no file {own}"
    assert three.startswith("workload three: no-such-program-here: no such program")
    assert four.startswith(f"workload four: {tmp_path / 'folder'}: not an executable file")
    with pytest.raises(UsageError, match="workload three: no-such-program-here: no such program; is it"):
        check_clients(plan)
    own.write_text("print(1)", encoding="utf-8")
    assert str(client_obstacles(plan)[0]).startswith(f"workload one: {own}: not an executable file\nchmod +x")
    own.chmod(0o755)
    assert len(client_obstacles(plan)) == 2


def test_plan_refuses_and_check_notes_it(tmp_path: Path) -> None:
    book = tmp_path / "book.yaml"
    book.write_text(BOOK, encoding="utf-8")
    told = CliRunner().invoke(app, ["check", str(book)])
    assert "note: workload one: no file" in told.output
    assert told.exit_code in (0, 4), "4: the image is not here"
    assert CliRunner().invoke(app, ["plan", str(book)]).exit_code == 2
