"""Parts of playbooks with a fleet, and the folder that they refer to. `pytest_plugins` of a test module names
it for its fixture."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import PlaybookError
from lab.playbook import parse

HEAD = "name: a\nresync: push\ncycle: {patch: {hold: 2s}}\n"
FLEET = "fleet:\n  guests: [{name: web, count: 3}, {name: db}]\n"
SET = FLEET + "  availability_sets:\n    - "
SCALE = "fleet:\n  scale_sets:\n    - "
SETS = SET + "{name: w, guests: [web, db]}\n"
HANDLED = "announce: {handler: [./handler.py]}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "handler.py").touch()
    (tmp_path / "d.json").write_text("{}")
    (tmp_path / "binary").write_bytes(b"\xff")
    return tmp_path


def answer(text: str, folder: Path) -> str:
    with pytest.raises(PlaybookError) as raised:
        parse(text.encode(), "p", folder)
    return str(raised.value)
