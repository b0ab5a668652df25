"""What was wrong before the stop already, so that the freeze is not its cause: the workload is unstable by
itself, or has not recovered from the freeze before."""

from __future__ import annotations

from lab.core.workload.judge import WorkloadResult


def _stop_ns(result: WorkloadResult) -> int | None:
    paused = result.window.paused
    return paused.low_ns if paused is not None else None


def failed_before(result: WorkloadResult) -> int:
    """How many requests of the cycle had failed before the stop."""
    stop, began = _stop_ns(result), result.window.began_ns
    if stop is None:
        return 0
    return sum(not one.ok and began <= one.done_ns < stop for one in result.window.requests)


def outage_is_before(result: WorkloadResult) -> bool:
    """Whether the longest outage was over before the stop."""
    stop, began, outage = _stop_ns(result), result.outage_from_ns, result.outage
    return stop is not None and began is not None and outage is not None and began + outage.high_ns <= stop


def events_before(result: WorkloadResult, name: str) -> int:
    """How often an event happened before the stop."""
    stop, began = _stop_ns(result), result.window.began_ns
    if stop is None:
        return 0
    return sum(one.name == name and began <= one.at_ns < stop for one in result.window.events)


def has_changed_before(result: WorkloadResult, name: str) -> bool:
    """Whether a value of the state certainly changed before the stop."""
    stop = _stop_ns(result)
    return stop is not None and any(one.name == name and one.at.high_ns <= stop for one in result.changed)


def has_two_holders_before(result: WorkloadResult, name: str) -> bool:
    """Whether two certainly held a role before the stop."""
    stop = _stop_ns(result)
    return stop is not None and any(
        one.name == name and one.from_ns + one.length.high_ns <= stop for one in result.overlaps
    )
