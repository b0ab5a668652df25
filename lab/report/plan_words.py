"""The texts of a plan: methods, patches, predictions and the steps of a cycle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lab.core.announcement import event_type, notice_ns
from lab.core.clock import Interval
from lab.core.clocksource import chosen, limit_ns, lost, why
from lab.core.method import WallClock
from lab.core.plan import (
    Cell,
    CycleSpec,
    HoldPatch,
    Patch,
    Regime,
    RtcTrack,
    TimeFault,
    ToleranceSpec,
)
from lab.core.quantities import format_about, format_as_written
from lab.core.timesync.rules import forecast
from lab.core.timesync_setup import Setup
from lab.core.units import NS_PER_MS, NS_PER_S, format_duration

_CLOCKS = {
    Regime.RESUMED: "clocks stop (regime resumed)",
    Regime.JUMPED: "clocks run on (regime jumped)",
    Regime.MIXED: "clocks stop in part (regime mixed)",
    Regime.RUNNING: "clocks run on",
    None: "clocks restart",
}


@dataclass(frozen=True)
class PlanStep:
    """One of a cycle's steps. by: the value that its text depends on, to distinguish it from other cells'
    texts."""

    name: str
    length: str
    text: str
    by: str = ""


def steps(cell: Cell) -> list[PlanStep]:
    """The steps of each of a cell's cycles."""
    cycle, method = cell.cycle, cell.cycle.method
    first = [
        *_announced(cycle),
        PlanStep("settle", format_duration(cycle.settle_ns), "wait for the guests to settle"),
        PlanStep("measure", format_duration(cycle.before_ns), "offset and drift of every guest"),
    ]
    length, text = patched(cycle.patch)
    if cell.tolerance is not None:
        length, text = (
            f"≤ {format_duration(cell.tolerance.longest_ns)}",
            f"{text}; {searched(cell.tolerance)}",
        )
    patch = PlanStep("patch", length, text)
    last = PlanStep("watch", format_duration(cycle.watch_ns), "the clocks")
    back = PlanStep("resume", "", cell.resync.about, cell.resync)
    if method.boots_anew:
        start = PlanStep(
            "start", "", f"every guest, and wait until it answers; {cell.resync.about}", cell.resync
        )
        return [*first, PlanStep("shut down", "", "every guest"), patch, start, last]
    if method.runs_on and not method.needs_resume:
        return [*first, patch, last]
    freeze = PlanStep("freeze", f"≤ {format_duration(cycle.budget_ns)}", _frozen(cycle), method)
    return [*first, freeze, patch, back, last]


def _announced(cycle: CycleSpec) -> Iterator[PlanStep]:
    spec = cycle.announce
    if spec is not None:
        kind = event_type(spec, cycle.patch)
        most = notice_ns(spec, kind)
        if spec.cancel_after_ns is not None:
            most = min(most, spec.real_ns(spec.cancel_after_ns))
        length = f"≤ {format_as_written(most)}" if most else ""
        yield PlanStep(
            "announce", length, f"the {kind} to every guest of the cycle, and wait until it starts", kind
        )


def _frozen(cycle: CycleSpec) -> str:
    text = cycle.method.traits.plan.format(f" in {cycle.save_to}" if cycle.save_to else "")
    return f"{text}; digests of all RAM before and after" if cycle.prove_memory else text


def patched(patch: Patch) -> tuple[str, str]:
    """The longest duration of a patch, and its description with its class."""
    at_most = f"≤ {format_duration(patch.longest_ns)}" if patch.longest_ns else ""
    if isinstance(patch, HoldPatch):
        at_most = format_duration(patch.duration_ns)
    return at_most, f"{patch.about} (class {patch.impact})"


def searched(spec: ToleranceSpec) -> str:
    """The range of a search."""
    return f"{format_duration(spec.shortest_ns)} to {format_duration(spec.longest_ns)}, as the search has it"


def predicted(cell: Cell, fault: TimeFault | None = None) -> str:
    """The predictions of the method's and the mechanism's rules. fault: that of the NTP server."""
    predicted = cell.cycle.method.predicts
    clocks = _CLOCKS[predicted.regime] + (", all but BOOTTIME" if predicted.boottime_counts else "")
    text = f"{clocks}; time {predicted.wall_clock}; {_repaired(cell, predicted.wall_clock, fault)}"
    other = cell.cycle.method.predicts_on("kvm", next(iter(_chosen(cell) & {"tsc"}), ""))
    return text if other == predicted else f"{text}. On KVM tsc runs on; time {other.wall_clock}"


def _repaired(cell: Cell, wall: WallClock, fault: TimeFault | None) -> str:
    if wall is WallClock.BOOTED:
        return "the boot sets the clock from the RTC, and then: " + cell.resync.about
    if wall is WallClock.NEARLY:
        return "less than a second remains: " + cell.resync.about
    if not cell.cycle.method.freezes:
        return "nothing to repair"
    longest = cell.cycle.patch.longest_ns
    if cell.tolerance is not None:
        pause = Interval(cell.tolerance.shortest_ns, cell.tolerance.longest_ns)
    elif isinstance(cell.cycle.patch, HoldPatch) and longest:
        pause = Interval(longest, longest)
    else:  # nobody knows: from the freeze's own milliseconds to the deadline
        pause = Interval(NS_PER_MS, max(NS_PER_S, longest))
    stopped = wall is not WallClock.RIGHT
    if not cell.resync.repairs and stopped and pause.low_ns < pause.high_ns:
        return "it stays so"
    # Of the configuration that the lab is going to install, and a state that nobody knows yet.
    rtc_stops = any(guest.rtc is RtcTrack.GUEST for guest in cell.guests)
    setup = Setup(cell.resync, config=cell.resync.config("host", 123, "/dev/ptp0"), rtc_stops=rtc_stops)
    if fault is not None and cell.resync.uses_ntp:
        setup = replace(setup, server_fault=fault.text)
    lost_ns = None if stopped else _lost(cell, pause)
    migrated = not cell.cycle.method.keeps_process
    text = forecast(setup, pause, stopped, cell.cycle.watch_ns, lost_ns, migrated=migrated).text
    return f"{text} ({_too_narrow(cell)})" if lost_ns is not None and lost_ns.high_ns else text


def _chosen(cell: Cell) -> set[str]:
    """The clocksources that the guests' kernel options select."""
    return {chosen(guest.kernel_options) for guest in cell.guests}


def _narrowest(cell: Cell) -> str:
    """The clocksource that wraps first, of those that the guests' kernel options select."""
    known = {name: limit for name in sorted(_chosen(cell)) if (limit := limit_ns(name)) is not None}
    return min(known, key=lambda name: known[name], default="")


def _lost(cell: Cell, pause: Interval) -> Interval | None:
    """What clocks that run on through the pause lose. The kernel's version is not known yet."""
    name = _narrowest(cell)
    return lost(name, pause) if name else None


def _too_narrow(cell: Cell) -> str:
    name = _narrowest(cell)
    return f"{why(name)}: correct only up to {format_about(limit_ns(name) or 0)}"
