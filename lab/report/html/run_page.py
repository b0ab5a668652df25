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
from lab.report.html.clocks import clock_pictures
from lab.report.html.cycles import cycle_cards, name_of
from lab.report.html.document import PageSection, PictureIds, Tile, page
from lab.report.html.downloads import downloads
from lab.report.html.findings import findings
from lab.report.html.fleet import rollout_pictures
from lab.report.html.machine import show_machine
from lab.report.html.matrix import cell_cards, heat_table
from lab.report.html.parts import pause_bars
from lab.report.html.workloads import searches, workload_pictures
from lab.report.network import show_network
from lab.report.notices import show_events
from lab.report.plan import show_plan
from lab.report.predictions import show_predictions
from lab.report.reasons import show_reasons
from lab.report.resync_table import is_resync_matrix, show_resync_table
from lab.report.rollout import show_rollouts
from lab.report.sections import show_details
from lab.report.steps import median_parts, show_steps
from lab.report.text import cleaned, counted
from lab.report.workloads import show_workloads


def write_html(run: Run, plan: Plan | None, path: Path) -> None:
    """Write the page of a run to `path`, whole or not at all. MachineError when it cannot be written."""
    write_whole(path, run_page(run, plan).encode())


def run_page(run: Run, plan: Plan | None) -> str:
    """The HTML of a run. plan: what its playbook said; None when that is not known."""
    raw, run = run, cleaned(run)
    facts, warnings = BlockPage(), BlockPage()
    show_header(facts, run)
    show_interruption(warnings, run)
    return page(
        f"{run.playbook.name}: {run.outcome}",
        run.outcome,
        verdict_text(run),
        list(_sections(run, raw, cleaned(plan), PictureIds())),
        name=run.playbook.name,
        facts=[*facts.texts(), run.id],
        warnings=warnings.texts(),
        tiles=list(tiles(run)),
        kicker="report of a run",
    )


def _sections(run: Run, raw: Run, plan: Plan | None, ids: PictureIds) -> Iterator[PageSection]:
    show = partial(_printed, run)
    yield PageSection("reasons", "What to know", show(show_reasons))
    if run.cells:
        cards, named = cell_cards(run, ids)
        links = {(cell, "", -1): id for cell, id in named.items()}
        yield PageSection("matrix", "Matrix", heat_table(run, named) + show(_comparisons) + cards)
        yield PageSection("cells", "All cells", show(_cells))
    else:
        cards, links = cycle_cards(run, ids)
        yield PageSection("cycles", "Cycles", show(show_cycles) + cards)
    yield PageSection("rollout", "Rollout", rollout_pictures(run, ids) + show(show_rollouts))
    yield PageSection("announcements", "Announcements", show(show_events))
    yield PageSection("workloads", "Workloads", _workloads(run, ids))
    yield PageSection("parts", "Where the pause goes", _parts(run, ids))
    yield PageSection("clocks", "Offset and drift", clock_pictures(run, ids))
    yield PageSection("details", "Details", show(show_network, show_details, show_predictions))
    yield PageSection("checks", "Checks", findings(run, links))
    if plan is not None:
        about = "The playbook as it was run, with every default filled in."
        yield PageSection("playbook", "Playbook", printed(partial(show_plan, plan=plan)), about)
    yield PageSection("machine", "Machine and calibration", show(show_machine))
    yield PageSection("files", "Files", downloads(raw, run), "In the page itself: nothing is fetched.")


def _workloads(run: Run, ids: PictureIds) -> Markup:
    """The searches, then the pictures, then the tables."""
    tried = Markup('<div class="figures">{}</div>').format(searches(run, ids)) if run.tolerances else Markup()
    return tried + workload_pictures(run, ids) + printed(partial(show_workloads, run=run, tries=False))


def _parts(run: Run, ids: PictureIds) -> Markup:
    """A bar of medians for each cell, or over all cycles, and the table."""
    if run.cells:
        parts = median_parts(run)
        bars = [
            (
                cell,
                [(name, parts.medians[cell, name]) for name in parts.names if (cell, name) in parts.medians],
            )
            for cell in parts.cells
        ]
    else:
        medians = [s for s in run.statistics if s.kind == "step"]
        bars = [("the median of each part", [(s.metric, s.median.value) for s in medians])] if medians else []
    return pause_bars("", bars, ids) + _printed(run, show_steps)


def _printed(run: Run, *sections: Callable[[BlockPage, Run], None]) -> Markup:
    return printed(*(lambda page, show=show: show(page, run) for show in sections))


def _cells(page: BlockPage, run: Run) -> None:
    if is_resync_matrix(run):
        show_resync_table(page, run)
    else:
        show_cells(page, run)


def _comparisons(page: BlockPage, run: Run) -> None:
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
