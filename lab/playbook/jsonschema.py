"""The JSON schema of a playbook, and of other files of the user's, for editors: generated from the models,
published in docs/."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from lab.playbook.models import Document


class _Generator(GenerateJsonSchema):
    """Optional keys are left out, never null, and titles that repeat a key's name are noise."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


def _trimmed(node: Any) -> Any:
    if isinstance(node, list):
        return [_trimmed(item) for item in node]
    if not isinstance(node, dict):
        return node
    trimmed = {key: _trimmed(value) for key, value in node.items() if key != "x-example"}
    if isinstance(trimmed.get("title"), str):
        del trimmed["title"]
    # "" and null stand for "nothing asked"; only a default that could be written is worth showing.
    if trimmed.get("default", "") in (None, ""):
        trimmed.pop("default", None)
    return trimmed


def schema(document: type[BaseModel] = Document, title: str = "freezelab playbook") -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of the YAML document."""
    generated: dict[str, Any] = _trimmed(document.model_json_schema(schema_generator=_Generator))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **generated,
    }


def schema_text(document: type[BaseModel] = Document, title: str = "freezelab playbook") -> str:
    """schema() as docs/playbook.schema.json holds it."""
    return json.dumps(schema(document, title), indent=2, ensure_ascii=False) + "\n"
