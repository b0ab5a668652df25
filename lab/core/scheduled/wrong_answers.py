"""Deliberate answers of the clouds but Azure: the correct answer, spoiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lab.core.scheduled.model import OWN_NAME, Fault, Recorded
from lab.core.scheduled.requests import Answer

_TEXT = ("Content-Type", "text/plain")


def spoiled(
    truth: Answer, fault: Fault | Recorded | None, name: str, error: Callable[[int], Answer]
) -> Answer:
    """The answer to a poll. truth: the correct one. name: of the requesting guest. error: the cloud's answer
    with an error's status."""
    match fault:
        case Fault.HANG:
            return Answer(0, (), never=True)
        case Fault.EMPTY | Fault.NO_EVENTS:
            return replace(truth, status=200, body=b"")
        case Fault.PLAIN:
            others = tuple(one for one in truth.headers if one[0] != "Content-Type")
            return replace(truth, headers=(*others, _TEXT))
        case Fault.TRUNCATED:
            return replace(truth, cut_at=len(truth.body) // 2)
        case Recorded():
            return replace(truth, status=200, body=fault.body.replace(OWN_NAME, name).encode())
        case Fault() if fault is not Fault.NONE:
            return error(int(fault.value))
    return truth


def is_correct(fault: Fault | Recorded | None) -> bool:
    """True when a client can read the correct answer, and so has seen what is in it."""
    return fault in (None, Fault.NONE, Fault.PLAIN)
