"""From the history of a cycle to what a workload is judged by: its samples, and the pause of the guests that
were frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lab.core.clock import Interval
from lab.core.history import WorkloadSampled
from lab.core.result import CycleResult
from lab.core.timeline import Call
from lab.core.workload.judge import WorkloadWindow


def window_of(
    sampled: WorkloadSampled, frozen: Mapping[str, tuple[Call, Call]], pause: Interval | None = None
) -> WorkloadWindow:
    """The window of a cycle. frozen: stop and resume of each guest that was. pause: the longest of theirs;
    None: by the calls."""
    window = WorkloadWindow(
        cycle=sampled.cycle,
        began_ns=sampled.began_raw_ns,
        ended_ns=sampled.ended_raw_ns,
        requests=sampled.requests,
        deliveries=sampled.deliveries,
        looks=sampled.looks,
        events=sampled.events,
        period_ns=sampled.period_ns,
        gauges=sampled.gauges,
        stamps=sampled.stamps,
        bound_ns=sampled.clock_bound_ns,
    )
    if not frozen:
        return window
    calls = frozen.values()
    paused = Interval(
        min(stop.called.raw_ns for stop, _ in calls), max(resume.returned.raw_ns for _, resume in calls)
    )
    by_calls = [
        Interval(
            max(0, resume.called.raw_ns - stop.returned.raw_ns), resume.returned.raw_ns - stop.called.raw_ns
        )
        for stop, resume in calls
    ]
    longest = pause or max(by_calls, key=lambda one: one.high_ns)
    stood = {
        guest: Interval(stop.returned.raw_ns, resume.called.raw_ns)
        for guest, (stop, resume) in frozen.items()
        if stop.returned.raw_ns < resume.called.raw_ns
    }
    return replace(window, frozen=True, paused=paused, pause=longest, stood=stood)


def window_in(sampled: WorkloadSampled, results: Sequence[CycleResult]) -> WorkloadWindow:
    """The same from the judged cycles of the guests that it depends on."""
    calls, pauses = dict[str, tuple[Call, Call]](), []
    in_time, stepped = list[int | None](), list[int]()
    for result in results:
        obs = result.observation
        if not obs.frozen or obs.stop is None or obs.resume is None:
            continue
        calls[obs.guest] = obs.stop, obs.resume
        if result.pause is not None:
            pauses.append(result.pause.pause)
        stepped += _steps(result, obs.resume.returned.raw_ns)
        time = result.resync.time if result.resync is not None else None
        in_time.append(None if time is None else obs.resume.returned.raw_ns + time.high_ns)
    longest = max(pauses, key=lambda one: one.high_ns, default=None)
    known = [time for time in in_time if time is not None]
    all_in_time = max(known) if known and len(known) == len(in_time) else None
    window = window_of(sampled, calls, longest)
    moved = {
        one.observation.guest
        for one in results
        if one.observation.called_off or one.observation.rescues or one.observation.stop_inferred
    }
    stood = {guest: span for guest, span in window.stood.items() if guest not in moved}
    return replace(window, in_time_ns=all_in_time, stepped_ns=tuple(sorted(stepped)), stood=stood)


def _steps(result: CycleResult, resumed_raw_ns: int) -> list[int]:
    """Host MONOTONIC_RAW of the steps of the guest's REALTIME after its resume. They are known on the guest's
    MONOTONIC_RAW, which differs from the host's by some milliseconds over minutes."""
    sampler, resumed = result.observation.sampler, result.resumed_guest
    if sampler is None or resumed is None:
        return []
    return [
        resumed_raw_ns + step.at_raw_ns - resumed.mid_ns
        for step in sampler.steps
        if step.at_raw_ns >= resumed.low_ns
    ]
