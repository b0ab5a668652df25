"""The report of a run on one screen: the verdict, the table, what a reader has to know, what to do next.

`freezelab report -v` has all sections (`terminal`). Both are made of the same parts. What does not fit here
is counted, and never left out in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.cells import cell_len

from lab.core.clock_disturbance import BUSY_SHARE
from lab.core.verdict import Outcome
from lab.record.model import CycleRecord, Run
from lab.report.accuracy import COMMAND
from lab.report.cells import show_cells, show_comparisons
from lab.report.cycles import Row, rows_of, show_cycles
from lab.report.depth import show_depth
from lab.report.fleet_hosts import fleet_text
from lab.report.header import cell_count, show_interruption, show_verdict
from lab.report.matrix_grid import MOST_CELLS, show_grid
from lab.report.migration import show_migration_totals
from lab.report.notices import announced_text, show_events
from lab.report.page import LABEL, Page
from lab.report.reasons import show_reasons
from lab.report.resync_table import count_cells, is_resync_matrix, rows_needed, show_resync_table
from lab.report.rollout import show_rollouts
from lab.report.sections import resync_line, show_budget, show_drift
from lab.report.stalls import show_stalls
from lab.report.statistics import show_statistics
from lab.report.text import clean, counted, names
from lab.report.tolerances import show_tolerances
from lab.report.workloads import show_workload_totals

SCREEN = 28
"""The lines of a page, as far as it can be cut to them: a terminal of 30 lines has a prompt as well."""
MOST_ROWS = 8
WORST_ROWS = 4
MOST_EVENTS = 2
MOST_WAVES = 8
MOST_SEARCHES = 10
LEAST_REASONS = 3
FOLDER = "folder"
KEY_STATISTICS = ("pause", "time to sync", "|final offset|", "outage")


def show_summary(page: Page, run: Run, folder: Path | None, name: str) -> None:
    """Print the page. folder: where the run's history is; None: no hint to it. name: for commands."""
    show_verdict(page, run)
    _facts(page, run)
    page.blank()
    _table(page, run)
    page.blank()
    _key_figures(page, run)
    hints = _hints(run, folder, name)
    _to_know(page, run, SCREEN - len(hints) - 1)
    page.blank()
    _next(page, hints)


def _facts(page: Page, run: Run) -> None:
    """Print what was done, and where, in a line or two."""
    cycles = _frozen(run)
    first = cycles[0] if cycles else None
    methods = {c.method for c in cycles}
    # A hold that is an axis is no part of the patch's name.
    patches = {c.patch for c in cycles} if not any("hold" in cell.values for cell in run.cells) else set()
    mechanisms = {c.resync.mechanism for c in cycles if c.resync is not None}
    many = max((sum(not c.control for c in g.cycles) for g in run.guests), default=0)
    peers = sum(guest.peer for guest in run.guests)
    page.parts(
        [
            cell_count(run) if run.cells else counted(len(run.guests) - peers, "guest"),
            counted(peers, "peer") if peers else "",
            counted(len(cycles), "cycle") if run.cells else counted(many, "cycle") if many > 1 else "",
            first.method if first is not None and len(methods) == 1 else "",
            first.patch if first is not None and len(patches) == 1 else "",
            f"resync {next(iter(mechanisms))}" if len(mechanisms) == 1 else "",
            run.host.accelerator,
            f"{run.started[:19].replace('T', ' ')} UTC",
        ],
        "dim",
    )
    show_interruption(page, run)


def _frozen(run: Run) -> list[CycleRecord]:
    return [cycle for guest in run.guests for cycle in guest.cycles if not cycle.control]


def _table(page: Page, run: Run) -> None:
    """Print the table of the run's kind."""
    if run.cells:
        if not _is_search_matrix(run):
            _matrix(page, run)
        if run.rollouts:  # of a fleet over hosts
            page.blank()
            show_rollouts(page, run, MOST_WAVES)
    elif run.rollouts:
        show_rollouts(page, run, MOST_WAVES)
        if any(row.outcome is not Outcome.PASSED for row in rows_of(run)):  # else the waves say it all
            page.blank()
            show_cycles(page, run, WORST_ROWS, WORST_ROWS)
    else:
        rows, most = rows_of(run), MOST_ROWS // 2 if run.workloads else MOST_ROWS
        show_cycles(page, run, most, WORST_ROWS)
        if len(rows) > most and not run.tolerances:  # whose pauses differ on purpose
            show_statistics(
                page,
                run,
                [s for s in run.statistics if s.kind == "freeze" and s.metric in KEY_STATISTICS],
            )
    if run.events and not run.rollouts:
        show_events(page, run, MOST_EVENTS)
    elif run.events:
        page.labelled("announced", announced_text(run.events))
    if not _is_search_matrix(run):
        show_workload_totals(page, run, MOST_ROWS)
    show_tolerances(page, run, MOST_SEARCHES)


def _is_search_matrix(run: Run) -> bool:
    """True when the table of what was searched says it all: its rows are the workloads of all cells."""
    return bool(run.cells and run.tolerances)


def _matrix(page: Page, run: Run) -> None:
    """Print a row for each cell; a grid of cells where there are too many of them."""
    if is_resync_matrix(run):
        if rows_needed(run) > MOST_CELLS and show_grid(page, run):
            count_cells(page, run)
        else:
            show_resync_table(page, run, MOST_CELLS)
        return
    if len(run.cells) <= MOST_CELLS or not show_grid(page, run):
        show_cells(page, run, MOST_CELLS)
    if len(run.comparisons) <= MOST_ROWS:
        show_comparisons(page, run)


def _key_figures(page: Page, run: Run) -> None:
    """Print the budget; of a single cycle its way back as well."""
    rows = [row for row in rows_of(run) if row.cycle is not None and not row.cycle.control]
    paused = [row for row in rows if row.cycle is not None and row.cycle.frozen]
    if paused:
        show_budget(page, run, paused)
    show_stalls(page, run)
    show_migration_totals(page, run)
    if len(rows) == 1 and rows[0].cycle is not None and rows[0].cycle.resync is not None:
        cycle, resync = rows[0].cycle, rows[0].cycle.resync
        forecast = resync.forecast
        text = resync_line(page, resync, cycle)
        if forecast is not None and forecast.agrees:
            text += f"; as predicted: {forecast.text}"
        page.labelled("clock", text)
    if not run.cells and any(finding.metric.startswith("drift") for finding in run.findings):
        show_drift(page, run)


def _to_know(page: Page, run: Run, until: int) -> None:
    """Print findings, surprises and what was not measured, up to line `until` of the page."""
    notes = _notes(run)
    heights = sum(page.height(label, text) for label, text, _ in notes)
    show_depth(page, run)
    show_reasons(page, run, most_lines=max(LEAST_REASONS, until - page.lines - heights))
    for label, text, style in notes:
        page.labelled(label, text, style=style)


def _notes(run: Run) -> list[tuple[str, str, str]]:
    """What a reader has to know beside the findings, as (label, text, style)."""
    notes = []
    wrong = [audit for guest in run.guests for cycle in guest.cycles for audit in cycle.audits if audit.wrong]
    if wrong:
        worst = max(wrong, key=lambda audit: audit.worst_ns)
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        text = f"{worst.source} {worst.example or 'understated its error'}{more}"
        notes.append(("wrong claims", text, "magenta"))
    if missing := _not_measured(run):
        notes.append(("not measured", missing, "yellow"))
    notes += [
        ("refused", f"{cell.id}, as it may be: {cell.why.removeprefix('refused: ')}", "")
        for cell in run.cells
        if cell.refused and cell.outcome is Outcome.PASSED
    ]
    if hosts := fleet_text(run):
        notes.append(("hosts", hosts, ""))
    if run.left_out:
        reasons = counted(len({one.why for one in run.left_out}), "reason")
        notes.append(("left out", f"{counted(len(run.left_out), 'combination')}, for {reasons}", ""))
    shares = [c.cpu_wait_share for c in _frozen(run) if c.cpu_wait_share is not None]
    if shares and max(shares) >= BUSY_SHARE:
        share = f"{max(shares) * 100:.0f} %"
        notes.append(("busy host", f"QEMU waited for a CPU for up to {share} of the time", "yellow"))
    if run.calibration is None and any(part.calibration for part in run.parts):
        pass  # each host has its own, or has none; show_accuracy() has them
    elif run.calibration is None:
        notes.append(("calibration", f"none: {COMMAND} measures the lab's own error here", "yellow"))
    elif run.calibration.stale:
        notes.append(("calibration", f"out of date: {run.calibration.stale}: {COMMAND}", "yellow"))
    return notes


def _not_measured(run: Run) -> str:
    """What is missing in cycles with a freeze, beside what the table shows as missing."""
    rows: Sequence[Row] = [row for row in rows_of(run) if row.cycle is not None and not row.cycle.control]
    told = any(f.metric == "closure" and f.outcome is not Outcome.PASSED for f in run.findings)
    missing: dict[str, set[str]] = {}
    for row in rows:
        cycle = row.cycle
        if cycle is None or cycle.outage_ns is not None:
            continue
        lacking = {
            "closure": cycle.frozen and cycle.closure is None and not told,
            "offset before": cycle.offset.before is None,
            "drift after": cycle.drift.before is not None and cycle.drift.after is None,
            "time in the budget": cycle.frozen and cycle.used_ns is None,
        }
        for what, lacks in lacking.items():
            if lacks:
                missing.setdefault(what, set()).add(row.guest.name)
    everybody = {row.guest.name for row in rows}
    return ", ".join(
        what if who == everybody else f"{what} ({names(sorted(who), 3)})" for what, who in missing.items()
    )


def _hints(run: Run, folder: Path | None, name: str) -> list[tuple[str, str]]:
    """What to do next, as (label, command); the run's folder at the end."""
    if folder is None:
        return []
    hints = [("more", f"freezelab report {name} -v"), ("words", "freezelab explain TERM")]
    if run.tolerances and not all(one.complete for one in run.tolerances):
        hints.append(("go on", f"freezelab run --resume {name}"))
    return [*hints, (FOLDER, clean(str(folder)))]


def _next(page: Page, hints: Sequence[tuple[str, str]]) -> None:
    """Print the hints. A command or a path is never broken, so that it can be copied: what is too long for
    the page beside its label stands alone; a path that is too long for that is left out."""
    for label, text in hints:
        if LABEL + 2 + cell_len(text) <= page.width:
            page.labelled(label, text)
        elif cell_len(text) <= page.width or label != FOLDER:
            page.put((text, ""))
