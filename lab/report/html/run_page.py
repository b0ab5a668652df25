"""The page of a run: its sections, in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from markupsafe import Markup

from lab.core.plan import Plan
from lab.record.model import Run
from lab.report.cells import show_cells, show_comparisons, show_left_out
from lab.report.cycles import (
    Cell,
    Row,
    behind_cell,
    final_cell,
    in_time_cell,
    pause_cell,
    rows_of,
    show_cycles,
)
from lab.report.files import write_whole
from lab.report.header import show_header, show_interruption, verdict_text
from lab.report.html.blocks import BlockPage, printed
from lab.report.html.cycles import cycle_cards, name_of
from lab.report.html.document import PageSection, PictureIds, Tile, page
from lab.report.network import show_network
from lab.report.notices import show_events
from lab.report.plan import show_plan
from lab.report.predictions import show_predictions
from lab.report.reasons import show_reasons
from lab.report.resync_table import is_resync_matrix, show_resync_table
from lab.report.rollout import show_rollouts
from lab.report.sections import show_details
from lab.report.steps import show_steps
from lab.report.text import cleaned, counted
from lab.report.workloads import show_workloads


def write_html(run: Run, plan: Plan | None, path: Path) -> None:
    """Write the page of a run to `path`, whole or not at all. MachineError when it cannot be written."""
    write_whole(path, run_page(run, plan).encode())


def run_page(run: Run, plan: Plan | None) -> str:
    """The HTML of a run. plan: what its playbook said; None when that is not known."""
    run = cleaned(run)
    facts, warnings = BlockPage(), BlockPage()
    show_header(facts, run)
    show_interruption(warnings, run)
    return page(
        f"{run.playbook.name}: {run.outcome}",
        run.outcome,
        verdict_text(run),
        list(_sections(run, cleaned(plan), PictureIds())),
        name=run.playbook.name,
        facts=[*facts.texts(), run.id],
        warnings=warnings.texts(),
        tiles=list(tiles(run)),
        kicker="report of a run",
    )


def _sections(run: Run, plan: Plan | None, ids: PictureIds) -> Iterator[PageSection]:
    show = partial(_printed, run)
    yield PageSection("reasons", "What to know", show(show_reasons))
    if run.cells:
        yield PageSection("cells", "Cells", show(_cells))
    else:
        yield PageSection("cycles", "Cycles", show(show_cycles) + cycle_cards(run, ids))
    yield PageSection("rollout", "Rollout", show(show_rollouts))
    yield PageSection("announcements", "Announcements", show(show_events))
    yield PageSection("workloads", "Workloads", show(show_workloads))
    if not is_resync_matrix(run):
        yield PageSection("parts", "Where the pause goes", show(show_steps))
    yield PageSection("details", "Details", show(show_network, show_details, show_predictions))
    if plan is not None:
        yield PageSection("playbook", "Playbook", printed(partial(show_plan, plan=plan)))


def _printed(run: Run, *sections: Callable[[BlockPage, Run], None]) -> Markup:
    return printed(*(lambda page, show=show: show(page, run) for show in sections))


def _cells(page: BlockPage, run: Run) -> None:
    if is_resync_matrix(run):
        show_resync_table(page, run)
    else:
        show_cells(page, run)
    show_comparisons(page, run)
    show_left_out(page, [(tuple(one.values.values()), one.why) for one in run.left_out])


def tiles(run: Run) -> Iterator[Tile]:
    """The main figures: those of the only cycle, or the worst of several."""
    rows = [row for row in rows_of(run) if row.cycle is not None and not row.cycle.control]
    if run.cells:
        for outcome in ("passed", "failed", "inconclusive"):
            count = sum(cell.outcome == outcome for cell in run.cells)
            if count:
                yield Tile(outcome, str(count), f"of {counted(len(run.cells), 'cell')}")
        yield Tile("freezes", str(sum(row.cycle is not None and row.cycle.frozen for row in rows)))
        return
    if not rows:
        return

    def worst(label: str, cell: Cell, key: Callable[[Row], int | None]) -> Tile | None:
        known = [(value, row) for row in rows if (value := key(row)) is not None]
        if not known:
            return Tile(label, cell(rows[0])[0]) if len(rows) == 1 else None
        _, row = max(known, key=lambda pair: pair[0])
        return Tile(label, cell(row)[0], name_of(run, row) if len(rows) > 1 else "")

    many = len(rows) > 1
    made = [
        worst("longest pause" if many else "pause", pause_cell(True), _pause),
        worst("furthest behind at resume" if many else "behind at resume", behind_cell(True), _behind),
        worst("in time last" if many else "in time after", in_time_cell(True), _in_time),
        worst("largest final offset" if many else "final offset", final_cell(True), _final),
    ]
    yield from (tile for tile in made if tile is not None)


def _pause(row: Row) -> int | None:
    if row.cycle is None:
        return None
    if row.cycle.outage_ns is not None:
        return row.cycle.outage_ns
    return row.cycle.pause.value_ns if row.cycle.pause is not None else None


def _behind(row: Row) -> int | None:
    at_resume = row.cycle.offset.at_resume if row.cycle is not None else None
    return -at_resume.value_ns if at_resume is not None else None


def _in_time(row: Row) -> int | None:
    resync = row.cycle.resync if row.cycle is not None else None
    if resync is None:
        return None
    return resync.time_ns if resync.time_ns is not None else 1 << 62


def _final(row: Row) -> int | None:
    final = row.cycle.offset.final if row.cycle is not None else None
    return abs(final.value_ns) if final is not None else None
