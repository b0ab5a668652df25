"""Lines of a run's events.jsonl: the dead-man's, and fewer of those that are many."""

from __future__ import annotations

import json
from typing import Any

GONE = "the controller is gone"


def deadman_line(at_ns: int, call: tuple[int, int] | None, why: str = GONE, **more: Any) -> str:
    """A dead-man's line. call: when it was called and returned, host MONOTONIC_RAW."""
    stamps = None
    if call is not None:
        called, returned = ({"raw_ns": at, "real_ns": at} for at in call)
        stamps = {"called": called, "returned": returned, "event_real_ns": None}
    event = {
        "seq": None, "kind": "deadman", "guest": "web-0", "cycle": 0, "raw_ns": at_ns, "real_ns": at_ns,
        "act": "resumed", "why": why, "call": stamps, "text": "",
    }  # fmt: skip
    return json.dumps({**event, **more}) + "\n"


EVERY = 12
"""Of many readings and heartbeats so many are left out for each that is kept; a history is small then."""


def thin(events: list[dict[str, Any]]) -> None:
    for event in events:
        for name in ("readings", "beats"):
            if name in event:
                event[name] = event[name][::EVERY]
