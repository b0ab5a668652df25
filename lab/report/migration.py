"""Live migrations: how long they took, and the pause beside the downtime that QEMU reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from lab.core.brown_out import BrownOut
from lab.core.migration import MigrationReport
from lab.core.quantities import format_length, format_magnitude
from lab.core.units import NS_PER_MS
from lab.record.model import CycleRecord, Run
from lab.report.page import Page

MOST_LINES = 12
LABEL = "migration"


@dataclass(frozen=True)
class _Migrated:
    """A cycle with a live migration. whose: "" when there is no other. by: who reports the downtime."""

    whose: str
    by: str
    cycle: CycleRecord
    report: MigrationReport


def _migrated(run: Run) -> list[_Migrated]:
    several = len(run.guests) > 1 or any(len(guest.cycles) > 1 for guest in run.guests)
    found = []
    for guest in run.guests:
        for cycle in guest.cycles:
            if cycle.migration is not None:
                cell = f"{guest.cell}, " if guest.cell else ""
                whose = f"{cell}{guest.name}, cycle {cycle.index}: " if several else ""
                by = "libvirt" if guest.boot.get("started") == "own" else "QEMU"
                found.append(_Migrated(whose, by, cycle, cycle.migration))
    return found


def times_downtime(cycle: CycleRecord) -> tuple[float, float, float] | None:
    """The pause over the downtime that QEMU or libvirt reports: value and bounds. That is a difference of two
    times in whole milliseconds, so it is known to a millisecond. None without both."""
    report, pause = cycle.migration, cycle.felt or cycle.pause
    if report is None or report.downtime_ns is None or pause is None or report.downtime_ns <= 0:
        return None
    downtime = report.downtime_ns
    high = pause.high_ns / (downtime - NS_PER_MS) if downtime > NS_PER_MS else float("inf")
    return pause.value_ns / downtime, pause.low_ns / (downtime + NS_PER_MS), high


def _size(number: int) -> str:
    return f"{number / (1 << 20):.0f} MiB"


def show_migration_totals(page: Page, run: Run) -> None:
    """Print one line for all of the run's migrations; nothing without one."""
    found = _migrated(run)
    if not found:
        return
    if len(found) == 1:
        page.labelled(LABEL, _told(found[0]))
        if found[0].cycle.brown_out is not None:
            page.labelled("", _slower(found[0].cycle.brown_out))
        return
    done = [(one.cycle, one.report) for one in found if one.report.status == "completed"]
    text = f"{len(done)} of {len(found)} completed"
    if done:
        took = sorted(report.took_ns for _, report in done)
        text += f", {format_length(took[0])} to {format_length(took[-1])}"
        if ratios := sorted(ratio[0] for cycle, _ in done if (ratio := times_downtime(cycle)) is not None):
            by = " or ".join(sorted({f"{one.by}'s" for one in found}))
            text += f"; pauses {ratios[0]:.1f} to {ratios[-1]:.1f} times {by} downtime"
    page.labelled(LABEL, text)


def show_migrations(page: Page, run: Run) -> None:
    """Print a line for each migration, and what was seen while it ran."""
    label = LABEL
    found = _migrated(run)
    for one in found[:MOST_LINES]:
        page.labelled(label, f"{one.whose}{_told(one)}")
        label = ""
        for text in (_course(one.report), _slower(one.cycle.brown_out)):
            if text:
                page.labelled(label, text)
    if len(found) > MOST_LINES:
        page.labelled(label, f"and {len(found) - MOST_LINES} more")


def _told(one: _Migrated) -> str:
    """ "1.4 s, 3 passes, 123 MiB sent; QEMU's downtime 8 ms, the pause is 1.4 times that (1.2 to 1.6)"."""
    cycle, report = one.cycle, one.report
    text = f"{format_length(report.took_ns)}, {report.passes} {'pass' if report.passes == 1 else 'passes'}"
    text += f", {_size(report.transferred)} sent"
    if report.status != "completed":
        return f"{text}; {report.status}"
    if report.downtime_ns is None:
        return text
    text += f"; {one.by}'s downtime {format_magnitude(report.downtime_ns)}"
    if (ratio := times_downtime(cycle)) is not None:
        most = f"to {ratio[2]:.1f}" if isfinite(ratio[2]) else "or more"
        text += f", the pause is {ratio[0]:.1f} times that ({ratio[1]:.1f} {most})"
    return text


def _slower(found: BrownOut | None) -> str:
    """ "brown-out: it worked at 71 % of its speed before (64 to 78 %), at worst 40 %, in pre-copy"."""
    if found is None:
        return ""
    phases = []
    for phase, speed in (("in pre-copy", found.pre_copy), ("in post-copy", found.post_copy)):
        if speed is not None:
            phases.append(
                f"at {speed.value * 100:.0f} % of its speed before ({speed.low * 100:.0f} to "
                f"{speed.high * 100:.0f} %), at worst {speed.worst * 100:.0f} %, {phase}"
            )
    if not phases:
        return "brown-out: not measured, there is too little to compare"
    return f"brown-out: the guest worked {'; '.join(phases)}"


def _course(report: MigrationReport) -> str:
    """What changed while it ran; "" when nothing is known of that."""
    rates = [s.dirty_bytes_s for s in report.samples if s.dirty_bytes_s >= 1 << 19]
    throttle = [s.throttle for s in report.samples]
    facts = []
    if rates:
        facts.append(f"the guest dirtied {_range([round(rate / (1 << 20)) for rate in rates])} MiB/s")
    if any(throttle):
        facts.append(f"its vCPUs were throttled by up to {max(throttle)} %")
    return ", ".join(facts)


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"
