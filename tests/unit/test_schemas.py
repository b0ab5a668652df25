"""Published schemas are current, and run.json's changes only by additions (docs/formats.md#versions)."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from lab.record.run import SCHEMA, schema
from tests.unit.real_histories import NAMES, recorded
from tests.unit.schema_members import PUBLISHED, breaks, members_of, read, written

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_published_run_schema_is_current() -> None:
    published = json.loads((DOCS / "run.schema.json").read_text())
    assert published == schema(), "freezelab schema run > docs/run.schema.json"


def test_the_schema_is_one_and_has_an_id_of_its_version() -> None:
    made = schema()
    jsonschema.Draft202012Validator.check_schema(made)
    assert SCHEMA.rpartition("/")[2] == made["$id"].rpartition(":")[2]


@pytest.mark.parametrize("name", NAMES)
def test_the_record_of_a_real_run_is_valid(name: str) -> None:
    jsonschema.validate(json.loads(recorded(name)), schema(), jsonschema.Draft202012Validator)


def test_nothing_that_was_published_is_gone_or_has_another_type() -> None:
    assert breaks(read(PUBLISHED.read_text()), members_of(schema())) == []


def test_the_published_members_are_kept_as_they_are_written() -> None:
    assert written(read(PUBLISHED.read_text())) == PUBLISHED.read_text()


def _removed(made: dict[str, Any]) -> None:
    del made["properties"]["rollouts"]


def _renamed(made: dict[str, Any]) -> None:
    pause = made["$defs"]["Measure"]["properties"]
    pause["lowest_ns"] = pause.pop("low_ns")


def _optional(made: dict[str, Any]) -> None:
    made["required"].remove("findings")


def _of_another_type(made: dict[str, Any]) -> None:
    made["$defs"]["Measure"]["properties"]["value_ns"]["type"] = "number"


def _with_another_outcome(made: dict[str, Any]) -> None:
    made["$defs"]["Outcome"]["enum"].append("skipped")


def _null(made: dict[str, Any]) -> None:
    made["$defs"]["CycleRecord"]["properties"]["method"] = {"anyOf": [{"type": "string"}, {"type": "null"}]}


@pytest.mark.parametrize(
    "change", [_removed, _renamed, _optional, _of_another_type, _with_another_outcome, _null]
)
def test_a_change_that_breaks_readers_is_found(change: Any) -> None:
    made = deepcopy(schema())
    change(made)
    assert breaks(members_of(schema()), members_of(made))


def test_an_addition_breaks_nobody() -> None:
    made = deepcopy(schema())
    made["properties"]["more"] = {"type": "string"}
    made["$defs"]["Measure"]["properties"]["more"] = {"type": "integer"}
    made["$defs"]["Measure"]["required"].append("more")
    assert breaks(members_of(schema()), members_of(made)) == []
