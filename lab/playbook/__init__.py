"""Playbooks: what to do, written as YAML data, read into lab.core.plan.Plan.

bytes (source) -> nodes with places (tree) -> models, whose fields are readers (scalars) ->
Plan (load). Mistakes of every stage are collected and told at once (mistakes, explain).
"""

from __future__ import annotations

from lab.playbook.find import resolve, shipped
from lab.playbook.jsonschema import schema, schema_text
from lab.playbook.load import load, parse

__all__ = ["load", "parse", "resolve", "schema", "schema_text", "shipped"]
