"""The report of a run, for a terminal or as plain lines.

From top to bottom: the run and its host, the table, details of its numbers, why something has not passed, and
the verdict as the last line.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from rich.console import Console

from lab.core.verdict import Outcome
from lab.record.model import Run
from lab.report.accuracy import show_accuracy
from lab.report.cells import show_cells, show_comparisons, show_left_out
from lab.report.cycles import VERDICTS, show_cycles
from lab.report.network import show_network
from lab.report.notices import show_events
from lab.report.page import Page
from lab.report.predictions import show_predictions
from lab.report.reasons import show_reasons
from lab.report.resync_table import is_resync_matrix, show_resync_table
from lab.report.rollout import show_rollouts
from lab.report.sections import show_details
from lab.report.steps import show_steps
from lab.report.text import clean, cleaned, counted
from lab.report.workloads import show_workloads


def render(run: Run, console: Console, folder: Path | None = None) -> None:
    """Print the report of `run`. folder: the place of its history, printed below it."""
    run = cleaned(run)
    page = Page(console)
    show_interruption(page, run)
    show_header(page, run)
    show_accuracy(page, run)
    page.blank()
    if is_resync_matrix(run):
        show_resync_table(page, run)
    elif run.cells:
        show_cells(page, run)
    if run.cells:
        show_comparisons(page, run)
        show_left_out(page, [(tuple(one.values.values()), one.why) for one in run.left_out])
    else:
        show_cycles(page, run)
    show_rollouts(page, run)
    show_events(page, run)
    show_workloads(page, run)
    page.blank()
    show_network(page, run)
    show_details(page, run)
    if not is_resync_matrix(run):
        show_steps(page, run)
        show_predictions(page, run)
    show_reasons(page, run)
    page.blank()
    if folder is not None:
        command, path = f"freezelab report {run.id}", clean(str(folder))
        page.parts([command, path if len(path) <= page.width else ""], "dim")
    _verdict(page, run)


def show_interruption(page: Page, run: Run) -> None:
    """Print that a run did not end by itself."""
    if run.interrupted:
        page.labelled(
            "INTERRUPTED",
            "the report covers what was measured until then",
            label_style="bold yellow",
            width=11,
        )
    elif not run.complete:
        page.labelled(
            "CUT OFF", "the history has no end; the report covers what was recorded until then",
            label_style="bold yellow", width=11,
        )  # fmt: skip


def show_header(page: Page, run: Run) -> None:
    """Print what was run, when, and on which host."""
    cycles = [cycle for guest in run.guests for cycle in guest.cycles]
    frozen = [cycle for cycle in cycles if not cycle.control]
    first = frozen[0] if frozen else None
    many = max((sum(not c.control for c in g.cycles) for g in run.guests), default=0)
    control = max((sum(c.control and not c.cancelled for c in g.cycles) for g in run.guests), default=0)
    cancelled = max((sum(c.cancelled for c in g.cycles) for g in run.guests), default=0)
    if run.cells:
        _cells_header(page, run, len(frozen))
        return
    peers = sum(guest.peer for guest in run.guests)
    mechanism = first.resync.mechanism if first is not None and first.resync is not None else ""
    page.parts(
        [
            run.playbook.name,
            counted(len(run.guests) - peers, "guest"),
            counted(peers, "peer") if peers else "",
            counted(many, "cycle") if many > 1 else "",
            f"{control} control" if control else "",
            f"{cancelled} called off" if cancelled else "",
            first.method if first is not None else "",
            first.patch if first is not None else "",
            f"resync {mechanism}" if mechanism else "",
            _when(run.started),
        ],
        first_style="bold",
    )
    _host(page, run)


def _cells_header(page: Page, run: Run, cycles: int) -> None:
    """Print the common facts of all cells."""
    page.parts(
        [
            run.playbook.name,
            counted(len(run.cells), "cell"),
            counted(cycles, "cycle"),
            *(
                text
                for values, text in (
                    ({c.method for c in run.cells}, run.cells[0].method),
                    ({c.patch for c in run.cells}, run.cells[0].patch),
                    ({c.resync for c in run.cells}, f"resync {run.cells[0].resync}"),
                )
                if len(values) == 1
            ),
            _when(run.started),
        ],
        first_style="bold",
    )
    _host(page, run)


def _host(page: Page, run: Run) -> None:
    host, details = run.host, run.host.details
    reason = f" ({host.accelerator_reason})" if host.accelerator_reason else ""
    load, cpus = details.get("load"), details.get("cpus")
    page.parts(
        [
            f"{host.accelerator}{reason}" if host.accelerator else "",
            f"QEMU {host.qemu}" if host.qemu else "",
            f"libvirt {host.libvirt}" if host.libvirt else "",
            f"Linux {host.kernel}" if host.kernel else "",
            " ".join(filter(None, [f"{cpus} ×" if isinstance(cpus, int) else "", host.cpu])),
            f"load {load:.1f}" if isinstance(load, float) else "",
        ],
        "dim",
    )


def _when(started: str) -> str:
    try:
        return datetime.fromisoformat(started).strftime("%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return started


def verdict_text(run: Run) -> str:
    """ "1 of 27 checks failed, 2 undecided", "all 13 checks"."""
    counts = {outcome: sum(f.outcome is outcome for f in run.findings) for outcome in Outcome}
    total, failed = len(run.findings), counts[Outcome.FAILED]
    open_ones = counts[Outcome.INCONCLUSIVE]
    parts = []
    if failed:
        parts.append(f"{failed} of {counted(total, 'check')} failed")
    if open_ones:
        parts.append(
            f"{open_ones} of {counted(total, 'check')} undecided" if not failed else f"{open_ones} undecided"
        )
    if expected := sum(f.failed_as_expected for f in run.findings):
        parts.append(f"{expected} failed as expected")
    return ", ".join(parts if failed or open_ones else [f"all {counted(total, 'check')}", *parts])


def _verdict(page: Page, run: Run) -> None:
    word, style = VERDICTS[run.outcome]
    bold = style if "bold" in style else f"bold {style}"
    page.labelled(word, f"{run.playbook.name}: {verdict_text(run)}", label_style=bold, width=len(word))
