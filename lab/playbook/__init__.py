"""Playbooks: what to do, written as YAML data, read into lab.core.plan.Plan.

bytes (source) -> nodes with places (tree) -> models, whose fields are readers (scalars) ->
Plan (load). Mistakes of every stage are collected and told at once (mistakes, explain).

- `find`, `source`, `syntax`, `tree`: a file, its text, YAML's complaints, its nodes. `load`: the plan of it.
- `models`: the document. `fields`, `scalars`, `hosts`: types and readers that its sections share.
- Sections: `fleet`, `guests`, `instances`, `cycles`, `patch_section`, `announce_section`, `expect_section`,
  `notice_section`, `rollouts`, and `matrix` with its `cells`. `jsonschema`: the schema of all of them.
"""

from __future__ import annotations

from lab.playbook.find import resolve, shipped
from lab.playbook.jsonschema import schema, schema_text
from lab.playbook.load import load, parse

__all__ = ["load", "parse", "resolve", "schema", "schema_text", "shipped"]
