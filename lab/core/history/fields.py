"""Metadata of events' fields that a line omits."""

from __future__ import annotations

from dataclasses import Field
from typing import Any

_LEFT_OUT = "left out when it is the default"

OPTIONAL = {_LEFT_OUT: True}
"""Metadata of a field that a line omits when it has its default."""


def is_left_out(of: Field[Any], value: object) -> bool:
    """True when a line omits this field."""
    return _LEFT_OUT in of.metadata and bool(value == of.default)
