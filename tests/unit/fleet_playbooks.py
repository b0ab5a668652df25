"""Parts of playbooks with a fleet, and the files that they refer to."""

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


def filled(folder: Path) -> Path:
    """The folder, with the files that these playbooks refer to."""
    (folder / "handler.py").touch()
    (folder / "d.json").write_text("{}")
    (folder / "binary").write_bytes(b"\xff")
    return folder


def answer(text: str, folder: Path) -> str:
    with pytest.raises(PlaybookError) as raised:
        parse(text.encode(), "p", folder)
    return str(raised.value)
