"""What `freezelab plan` prints: a playbook in words, with every default filled in. Nothing is done."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from rich.console import Console

from lab.core.plan import (
    CommandPatch,
    Expectations,
    FreezeMethod,
    GuestSpec,
    HoldPatch,
    Patch,
    Plan,
    Regime,
    ResyncMechanism,
)
from lab.core.resync import predict
from lab.core.units import format_duration, format_size
from lab.report.numbers import about
from lab.report.page import Column, Grid, Page
from lab.report.text import cleaned, counted

MOST_GUESTS = 20

_FREEZE = {
    FreezeMethod.SUSPEND: "suspend every guest (libvirt)",
    FreezeMethod.SIGSTOP: "stop every guest's QEMU process (SIGSTOP)",
    FreezeMethod.SAVE_RESTORE: "save every guest to a file, and restore it from there (libvirt)",
    FreezeMethod.IN_PLACE: "replace every guest's QEMU process, its RAM left in place",
    FreezeMethod.GUEST_SLEEP: "have every guest go to sleep (S3, by its agent)",
    FreezeMethod.REBOOT: "shut every guest down, and start it again",
    FreezeMethod.NONE: "freeze nothing",
}
_CLOCKS = {
    Regime.RESUMED: "their clocks stop with them",
    Regime.JUMPED: "their clocks run on",
    Regime.MIXED: "their clocks stop in part",
    Regime.RUNNING: "their clocks run on",
}
_RESYNC = {
    ResyncMechanism.NONE: "nothing repairs their clocks",
    ResyncMechanism.AGENT: "set their time through the guest agent",
    ResyncMechanism.CHRONY: "chronyd in each guest follows the host's",
}


def render_plan(plan: Plan, console: Console) -> None:
    """Print what a run of `plan` would do."""
    plan = cleaned(plan)
    page = Page(console)
    page.parts([plan.name], first_style="bold")
    if plan.about:
        page.labelled("", plan.about, width=-2)
    page.blank()
    _guests(page, plan.guests)
    page.blank()
    _cycle(page, plan)
    page.blank()
    page.put(("expected", "bold"))
    for label, text in _expectations(plan.expectations):
        page.labelled(f"  {label}", text, label_style="", width=16)
    page.blank()
    page.parts(
        [f"takes about {about(duration_ns(plan))}, without building images and booting", "nothing was done"]
    )


def duration_ns(plan: Plan) -> int:
    """Of all cycles, as far as the plan knows: a command may end before its deadline."""
    cycle = plan.cycle
    patch = min(_length_ns(cycle.patch), cycle.budget_ns)
    still = cycle.settle_ns + cycle.before_ns + patch + cycle.watch_ns
    return still * (plan.repeat + plan.control)


def _length_ns(patch: Patch) -> int:
    return patch.longest_ns


def _guests(page: Page, guests: tuple[GuestSpec, ...]) -> None:
    columns = [
        Column("guest"), Column("image"), Column("vCPUs", True), Column("memory", True),
        Column("fault\ndomain", True), Column("update\ndomain", True),
    ]  # fmt: skip
    wide, narrow = Grid(columns, gap=3), Grid([columns[0], *columns[2:4]])
    for guest in guests[:MOST_GUESTS]:
        name, memory = (guest.name, "bold"), (format_size(guest.memory_bytes), "")
        vcpus, fault, update = ((str(n), "") for n in (guest.vcpus, guest.fault_domain, guest.update_domain))
        wide.rows.append([name, (guest.image, ""), vcpus, memory, fault, update])
        narrow.rows.append([name, vcpus, memory])
    if not page.grid(wide, narrow):
        page.squeezed(narrow)
    if len(guests) > MOST_GUESTS:
        page.parts([f"and {len(guests) - MOST_GUESTS} more, {len(guests)} in all"], "dim")


def _cycle(page: Page, plan: Plan) -> None:
    cycle = plan.cycle
    cycles = counted(plan.repeat, "cycle")
    if plan.control:
        text = f"after {plan.control} without the freeze (control), each:"
        page.labelled(cycles, text, label_style="bold", width=len(cycles))
    else:
        page.put((cycles, "bold"), (", each:" if plan.repeat > 1 else ":", ""))
    for number, (name, length, text) in enumerate(
        (
            ("settle", format_duration(cycle.settle_ns), "let the guests come to rest"),
            ("measure", format_duration(cycle.before_ns), "offset and drift of every guest"),
            (
                "freeze",
                f"≤ {format_duration(cycle.budget_ns)}",
                f"{_FREEZE[cycle.method]}; {_clocks(cycle.method)}",
            ),
            ("patch", *_patch(cycle.patch)),
            ("resume", "", _RESYNC[plan.resync]),
            ("watch", format_duration(cycle.watch_ns), f"the clocks; predicted: {_predicted(plan)}"),
        ),
        1,
    ):
        page.labelled(f"  {number}  {name:<8} {length:>9}", text, label_style="", width=23)


def _patch(patch: Patch) -> tuple[str, str]:
    if isinstance(patch, CommandPatch):
        return f"≤ {format_duration(patch.deadline_ns)}", f"run on the host: {shlex.join(patch.argv)}"
    if isinstance(patch, HoldPatch):
        return format_duration(patch.duration_ns), "hold: the host is left as it is"
    return f"≤ {format_duration(patch.longest_ns)}" if patch.longest_ns else "", patch.label


def _clocks(method: FreezeMethod) -> str:
    regime = method.expected_regime
    return _CLOCKS[regime] if regime is not None else "their clocks start anew"


def _predicted(plan: Plan) -> str:
    stopped = plan.cycle.method.expected_regime is Regime.RESUMED
    return predict(plan.resync, _length_ns(plan.cycle.patch), stopped)


def _expectations(expect: Expectations) -> Iterator[tuple[str, str]]:
    yield "always", "cycles close, the budget is kept, the patch succeeds, the guest is the same boot"
    if expect.regime is not None:
        yield "regime", expect.regime
    low, high = expect.pause_at_least_ns, expect.pause_at_most_ns
    limits = [
        f"at least {format_duration(low)}" if low is not None else "",
        f"at most {format_duration(high)}" if high is not None else "",
    ]
    if any(limits):
        yield "pause", ", ".join(filter(None, limits))
    if expect.in_time_within_ns is not None:
        within, tolerance = format_duration(expect.in_time_within_ns), format_duration(expect.tolerance_ns)
        hold = format_duration(expect.hold_ns)
        yield "in time again", f"within {within} of the resume: ± {tolerance}, kept for {hold}"
    if expect.final_offset_ns is not None:
        yield "final offset", f"at most {format_duration(expect.final_offset_ns)} either way"
    if expect.drift_ppm is not None:
        yield "drift", f"at most {expect.drift_ppm:g} ppm after the resync"
    if expect.clean_kernel_log:
        yield "kernel log", "no lockup, no stall, no unstable clocksource"
