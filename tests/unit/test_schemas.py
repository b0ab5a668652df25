"""Published schemas are current."""

from __future__ import annotations

import json
from pathlib import Path

from lab.record.run import schema

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_published_run_schema_is_current() -> None:
    published = json.loads((DOCS / "run.schema.json").read_text())
    assert published == schema(), "freezelab schema run > docs/run.schema.json"
