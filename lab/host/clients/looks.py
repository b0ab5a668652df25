"""Looks at the state of a workload's guests, each guest in a thread of its own: one that is frozen answers
late, and must not delay the others."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from lab.core.workload.sample import StateValue
from lab.host.clients.base import print_sample, raw_ns

PATIENCE_S = 1.0
"""How long an answer is waited for. What a frozen guest answers later is not looked at: the next look is."""

Look = Callable[[], Mapping[str, StateValue] | None]


def start_looking(by: str, look: Look, every_ns: int) -> None:
    """Look each every_ns until the program ends. look: the state according to `by`; None, or an OSError or
    ValueError: there is none."""
    threading.Thread(target=_looking, args=(by, look, every_ns), daemon=True).start()


def _looking(by: str, look: Look, every_ns: int) -> None:
    while True:
        sent = raw_ns()
        try:
            values = look()
        except (OSError, ValueError):
            values = None
        done = raw_ns()
        if values:
            print_sample(state=dict(values), sent=sent, done=done, by=by)
        time.sleep(max(0, sent + every_ns - done) / 1e9)


def get_json(url: str) -> Any:
    """What a URL answers. OSError, ValueError."""
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:  # noqa: S310 - a guest's own address
        return json.loads(answer.read())
