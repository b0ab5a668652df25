"""Output of `freezelab plan`: a playbook in words, with every default filled in. Nothing is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console

from lab.core.parallel_cells import batches
from lab.core.placement import HostsForecast
from lab.core.plan import Cell, GuestSpec, Plan, RolloutEnd
from lab.core.plan_warnings import overruns
from lab.core.quantities import format_length
from lab.core.rollout import waves
from lab.core.units import format_duration, format_size
from lab.errors import FreezelabError
from lab.report.network import network_line
from lab.report.page import Page
from lab.report.plan_cells import cells, image_name, share
from lab.report.plan_fleet import alike, listed, rollout, sets
from lab.report.plan_notice import announcement, longest_notice_ns
from lab.report.plan_notice import expected as noticed
from lab.report.plan_setup import setups
from lab.report.plan_words import PlanStep, predicted, steps
from lab.report.plan_workloads import workloads
from lab.report.table import ALWAYS, Column, Piece, Table
from lab.report.text import clean, cleaned, counted

MOST_GUESTS = 20
MOST_WAYS = 12  # different texts of one step, or different predictions

_ENDS = {RolloutEnd.COMPLETE: "all domains", RolloutEnd.STOPPED: "a gate stops it"}


def render_plan(
    plan: Plan,
    console: Console,
    obstacles: Sequence[FreezelabError] = (),
    own: Sequence[tuple[str, str]] = (),
    over_hosts: tuple[Sequence[HostsForecast], str] = ((), ""),
) -> None:
    """Print what a run of `plan` would do. obstacles: why it cannot be run here. own: (guest, what is known
    of it) of domains of the user's own. over_hosts: what it takes on several hosts, and the run from which
    that is known."""
    plan = cleaned(plan)
    page = Page(console)
    page.parts([plan.name], first_style="bold")
    show_plan(page, plan, own)
    page.blank()
    copied = any(cell.cycle.method.traits.copies_memory for cell in plan.parts)
    booting = "building images, booting and copying memory" if copied else "building images and booting"
    waiting = waiting_ns(plan)
    approvals = any(c.cycle.announce and c.cycle.announce.cloud.traits.approvals for c in plan.parts)
    for_what = "without an approval" if approvals else "for the notice"
    most = f", up to {format_length(waiting)} longer {for_what}" if waiting else ""
    for why in overruns(plan):
        page.labelled("note", clean(why), label_style="yellow", width=4)
    for obstacle in obstacles:
        page.labelled(
            "missing", "; ".join(map(clean, str(obstacle).split("\n"))), label_style="bold red", width=8
        )
    page.parts(
        [
            f"takes about {format_length(duration_ns(plan))}{most}, not counting {booting}",
            "nothing was changed",
        ]
    )
    forecasts, run = over_hosts
    if forecasts:
        page.parts(
            [
                *(
                    f"{one.hosts} hosts: {format_length(one.all_ns)}, {one.times_as_fast:.1f} times as fast"
                    for one in forecasts
                ),
                f"by run {clean(run)}",
            ]
        )


def show_plan(page: Page, plan: Plan, own: Sequence[tuple[str, str]] = ()) -> None:
    """Print guests, steps, predictions and expectations of a plan that is `cleaned`."""
    if plan.about:
        page.labelled("", plan.about, width=-2)
    page.blank()
    _guests(page, plan)
    for guest, text in own:
        page.labelled(guest, clean(text), label_style="bold", width=len(guest))
    page.blank()
    setups(page, plan)
    sets(page, plan.guests)
    if plan.cells:
        cells(page, plan)
        page.blank()
    rollout(page, plan)
    workloads(page, plan)
    announcement(page, plan)
    _cycles(page, plan)
    page.blank()
    _predictions(page, plan)
    page.blank()
    page.put(("expected", "bold"))
    for label, text in _expectations(plan):
        page.labelled(f"  {label}", text, label_style="", width=16)


def duration_ns(plan: Plan) -> int:
    """The estimated duration of all cycles of all cells: commands may end before their deadline. Gates are
    assumed to hold at once, and announcements to be approved at once."""
    gone = len(waves(plan.guests, plan.rollout)) if plan.rollout else 1
    between = plan.rollout.between_ns * (gone - 1) * plan.repeat if plan.rollout else 0
    return between + sum(max(_cell_ns(cell, gone) for cell in batch) for batch in batches(plan))


def waiting_ns(plan: Plan) -> int:
    """The additional time when nothing approves the announcements."""
    gone = len(waves(plan.guests, plan.rollout)) if plan.rollout else 1
    return sum(
        max(longest_notice_ns(cell.cycle) * cell.repeat * gone for cell in batch) for batch in batches(plan)
    )


def _cell_ns(cell: Cell, waves_of: int) -> int:
    """A search takes its time at the most."""
    freezes = cell.repeat * waves_of if cell.tolerance is None else 0
    search = cell.tolerance.budget_ns if cell.tolerance is not None else 0
    return _cycle_ns(cell) * (freezes + cell.control) + search


def _cycle_ns(cell: Cell) -> int:
    cycle = cell.cycle
    patch = cycle.patch.longest_ns
    if not cycle.method.boots_anew:  # a guest that is down has no budget
        patch = min(patch, cycle.budget_ns)
    started = cycle.announce.started_ns if cycle.announce else 0
    return max(cycle.settle_ns + cycle.before_ns, started) + patch + cycle.watch_ns


def _guests(page: Page, plan: Plan) -> None:
    known: dict[str, GuestSpec] = {}
    for guest in (guest for cell in plan.parts for guest in cell.guests):
        known.setdefault(guest.name, guest)
    guests = list(known.values())
    axes = {axis for cell in plan.cells for axis, _ in cell.values}

    def cell_or(axis: str, text: str) -> Piece:
        return ("by cell", "dim") if axis in axes else (text, "")

    def of_ours(guest: GuestSpec, axis: str, text: str) -> Piece:
        if not guest.is_own:
            return cell_or(axis, text)
        return (f"domain {guest.domain}" if axis == "image" else "", "")

    facts: list[Column[GuestSpec]] = [
        Column("image", lambda guest: of_ours(guest, "image", image_name(guest.image)), rank=3),
        Column("vCPUs", lambda guest: of_ours(guest, "vcpus", str(guest.vcpus)), right=True),
        Column("memory", lambda guest: of_ours(guest, "memory", format_size(guest.memory_bytes)), right=True),
    ]
    if any(guest.fill for guest in guests) or "fill" in axes:
        facts.append(Column("filled", lambda guest: cell_or("fill", share(guest.fill)), right=True))
    if any(guest.huge_pages for guest in guests):
        facts.append(Column("huge\npages", lambda guest: ("yes" if guest.huge_pages else "no", "")))
    if any(guest.watchdog for guest in guests):
        facts.append(Column("watchdog", lambda guest: (guest.watchdog or "", "")))
    if any(guest.bridge for guest in guests):
        facts.append(Column("network", lambda guest: (_network(guest), "")))
    if any(guest.compute_name and not guest.scale_set for guest in guests):
        facts.append(Column("to events", lambda guest: (guest.event_name, "")))
    domains: list[Column[GuestSpec]] = [
        Column("fault\ndomain", lambda guest: (str(guest.fault_domain), ""), right=True, rank=2),
        Column("update\ndomain", lambda guest: (str(guest.update_domain), ""), right=True, rank=2),
    ]
    in_sets = any(guest.availability_set for guest in guests)
    # Guests of a fleet have their domains in the tables of their sets.
    groups = (
        alike(guests, lambda guest: tuple(fact.cell(guest) for fact in facts))
        if in_sets
        else [[g] for g in guests]
    )
    shown, rest = groups[:MOST_GUESTS], groups[MOST_GUESTS:]

    def of_first(column: Column[GuestSpec]) -> Column[list[GuestSpec]]:
        return Column(column.head, lambda group: column.cell(group[0]), column.right, column.rank)

    page.table(
        Table(
            [
                Column(
                    "guests" if in_sets else "guest",
                    lambda group: (listed([guest.name for guest in group], 2), "bold"),
                ),
                *map(of_first, facts if in_sets else [*facts, *domains]),
            ],
            shown,
            gaps={3: 1, 2: ALWAYS},
        )
    )
    if rest:
        page.parts([f"and {sum(map(len, rest))} more, {len(guests)} in all"], "dim")
    if plan.golden and not all(guest.is_own for guest in guests):
        page.parts(["start from a golden guest, which the first run boots"])
    if line := network_line(plan):
        page.labelled("network", line, label_style="", width=7)


def _network(guest: GuestSpec) -> str:
    return f"{guest.address} on {guest.bridge}" if guest.bridge else "user-mode"


def _cycles(page: Page, plan: Plan) -> None:
    """Print the steps, once for all cells that have the same ones."""
    groups: dict[tuple[str, ...], list[list[PlanStep]]] = {}
    methods: dict[tuple[str, ...], dict[str, None]] = {}
    for cell in plan.parts:
        made = steps(cell)
        names = tuple(step.name for step in made)
        groups.setdefault(names, []).append(made)
        methods.setdefault(names, {})[cell.cycle.method] = None
    for number, (names, group) in enumerate(groups.items()):
        if number:
            page.blank()
        only = f" with method {', '.join(methods[names])}" if len(groups) > 1 else ""
        _heading(page, plan, only)
        for at, several in enumerate(zip(*group, strict=True), 1):
            _step(page, at, list(dict.fromkeys(several)))


def _heading(page: Page, plan: Plan, only: str) -> None:
    count = counted(plan.repeat, "cycle") if plan.tolerance is None else "tries"
    each = "each" if plan.tolerance is None else "the first"
    cycles = f"{count} a cell{only}" if plan.cells else f"{count} a wave" if plan.rollout else count
    if plan.control:
        text = f"after {plan.control} without the freeze (control), {each}:"
        page.labelled(cycles, text, label_style="bold", width=len(cycles))
    else:
        page.put((cycles, "bold"), (f", {each}:" if plan.repeat > 1 or plan.tolerance else ":", ""))


def _step(page: Page, number: int, ways: list[PlanStep]) -> None:
    """Print one step; ways: its variants in different cells."""
    for at, step in enumerate(ways[:MOST_WAYS]):
        lead = f"  {number}  {step.name:<9}" if not at else " " * 14
        text = f"{step.by}: {step.text}" if len(ways) > 1 and step.by else step.text
        length = step.length if not at or step.length != ways[at - 1].length else ""
        page.labelled(f"{lead} {length:>9}", text, label_style="", width=24)
    if len(ways) > MOST_WAYS:
        page.labelled("", f"and {len(ways) - MOST_WAYS} more", style="dim", width=24)


def _predictions(page: Page, plan: Plan) -> None:
    """Print one line for each different prediction, with the methods or cells that it belongs to."""
    both = len({cell.resync for cell in plan.parts}) > 1
    lines: dict[tuple[str, str], None] = {}
    for cell in plan.parts:
        label = f"{cell.cycle.method}, {cell.resync}" if both else cell.cycle.method
        lines[label, predicted(cell, plan.ntp_fault)] = None
    page.put(("predicted", "bold"))
    width = max(16, 2 + max(len(label) for label, _ in lines))
    for label, text in list(lines)[:MOST_WAYS]:
        page.labelled(f"  {label}", text, label_style="", width=width)
    if len(lines) > MOST_WAYS:
        page.labelled("", f"and {len(lines) - MOST_WAYS} more", style="dim", width=width)


def _expectations(plan: Plan) -> Iterator[tuple[str, str]]:
    methods = {cell.cycle.method for cell in plan.parts}
    anew = [method.boots_anew for method in methods]
    if any(method.freezes for method in methods):
        always = "witnesses agree, budget kept, patch succeeds, guest not rebooted"
        yield "always", f"{always} (with reboot: rebooted)" if any(anew) else always
    else:
        boot = "guest rebooted" if all(anew) else "guest not rebooted"
        yield "always", f"patch succeeds, {boot}"
    expect = plan.expectations
    if expect.regime is not None:
        yield "regime", expect.regime
    low, high = expect.pause_at_least_ns, expect.pause_at_most_ns
    limits = [
        f"at least {format_duration(low)}" if low is not None else "",
        f"at most {format_duration(high)}" if high is not None else "",
    ]
    if any(limits):
        yield "pause", ", ".join(filter(None, limits))
    if expect.stall_at_most_ns is not None:
        yield "stall", f"at most {format_duration(expect.stall_at_most_ns)}"
    if expect.in_time_within_ns is not None:
        within, tolerance = format_duration(expect.in_time_within_ns), format_duration(expect.tolerance_ns)
        hold_text = format_duration(expect.hold_ns)
        yield "in time", f"within {within} of the resume: ± {tolerance}, for {hold_text}"
    if expect.as_predicted:
        yield "resync", "as predicted; inconclusive where that needs a longer watch"
    if expect.final_offset_ns is not None:
        yield "final offset", f"at most {format_duration(expect.final_offset_ns)}, in either direction"
    if expect.drift_ppm is not None:
        yield "drift", f"at most {expect.drift_ppm:g} ppm after the resync"
    if plan.cycle.announce and (text := noticed(expect.notice)):
        yield "notice", text
    if plan.rollout:
        yield "rollout", _ENDS[expect.rollout]
    if expect.skew_ns is not None:
        yield "skew", f"the guests of a wave stop, and resume, within {format_duration(expect.skew_ns)}"
    if expect.clean_kernel_log:
        yield "kernel log", "no lockup, no stall, no unstable clocksource"
    if expect.must_fail is not None:
        named = ", ".join(metric.value for metric in expect.must_fail.metrics)
        yield "outcome", f"failed: only {named}" if named else "failed: any check"
