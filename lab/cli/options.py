"""Command-line values that are more than text."""

from __future__ import annotations

from lab.core.units import NS_PER_S, parse_duration
from lab.errors import UsageError
from lab.hypervisor.accelerators import AcceleratorRequest


def accelerator_request(text: str) -> AcceleratorRequest:
    """UsageError when it is none of auto, kvm, tcg."""
    try:
        return AcceleratorRequest(text)
    except ValueError:
        raise UsageError(f"unknown accelerator {text!r}", hint="known: auto, kvm, tcg") from None


def boot_seconds(text: str | None) -> int | None:
    """Seconds in a duration such as "2min", at least one. UsageError when it is none."""
    if text is None:
        return None
    try:
        return max(1, parse_duration(text) // NS_PER_S)
    except ValueError as error:
        raise UsageError(str(error), where="--boot") from None
