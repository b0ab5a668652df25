"""What was run, whether it came to its end, and its verdict."""

from __future__ import annotations

from datetime import datetime

from lab.core.verdict import Outcome
from lab.record.model import Host, PartRecord, Run
from lab.report.cycles import VERDICTS
from lab.report.fleet_hosts import fleet_text
from lab.report.page import Page
from lab.report.text import clean, counted


def cell_count(run: Run) -> str:
    """ "12 cells"; "4 of 12 cells" of a run that had only a part of them; where a merged record is from."""
    many = len(run.cells)
    count = counted(many, "cell") if run.of_cells is None else f"{many} of {counted(run.of_cells, 'cell')}"
    return f"{count} from {counted(len(run.parts), 'run')}" if run.parts else count


def show_interruption(page: Page, run: Run) -> None:
    """Print that a run did not end by itself."""
    if run.interrupted:
        label, text = "INTERRUPTED", "the report covers what was measured until then"
    elif not run.complete:
        label, text = "CUT OFF", "the history has no end; the report covers what was recorded until then"
    else:
        return
    page.labelled(label, text, label_style="bold yellow", width=11)


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


def show_verdict(page: Page, run: Run) -> None:
    """Print the verdict, with the number of checks, in one line."""
    word, style = VERDICTS[run.outcome]
    bold = style if "bold" in style else f"bold {style}"
    page.labelled(word, f"{run.playbook.name}: {verdict_text(run)}", label_style=bold, width=len(word))


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
            cell_count(run),
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
    page.parts(_host_texts(run.host), "dim")
    show_parts(page, run)


def show_parts(page: Page, run: Run) -> None:
    """Print the runs that a merged record is made of: how many cells each had, and its host. Those of a run
    over hosts are a line for each host."""
    named: dict[str, list[PartRecord]] = {}
    for part in run.parts:
        name = str(part.host.details.get("host", ""))
        named.setdefault(f"host {name}" if name else f"part {part.run}", []).append(part)
    for name, parts in named.items():
        cells = [cell for part in parts for cell in part.cells]
        # One that was lost has no versions.
        host = next((part.host for part in parts if part.host.qemu), parts[0].host)
        texts = [counted(len(cells), "cell"), *filter(None, _host_texts(host))]
        label, _, which = name.partition(" ")
        page.labelled(label, f"{clean(which)}: {' · '.join(texts)}")
    if hosts := fleet_text(run):
        page.labelled("hosts", hosts)


def _host_texts(host: Host) -> list[str]:
    load, cpus = host.details.get("load"), host.details.get("cpus")
    reason = f" ({host.accelerator_reason})" if host.accelerator_reason else ""
    return [
        f"{host.accelerator}{reason}" if host.accelerator else "",
        f"QEMU {host.qemu}" if host.qemu else "",
        f"libvirt {host.libvirt}" if host.libvirt else "",
        f"Linux {host.kernel}" if host.kernel else "",
        " ".join(filter(None, [f"{cpus} ×" if isinstance(cpus, int) else "", host.cpu])),
        f"load {load:.1f}" if isinstance(load, float) else "",
    ]


def _when(started: str) -> str:
    try:
        return datetime.fromisoformat(started).strftime("%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return started
