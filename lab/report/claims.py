"""The claims of the guests' own programs about their clocks, compared with the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lab.core.quantities import format_at_latest, format_between
from lab.record.model import AuditRecord, CycleRecord, Run
from lab.report.page import Page
from lab.report.table import Piece
from lab.report.text import counted

MOST_WRONG = 12


def claim_text(audit: AuditRecord) -> Piece:
    """One source in one line."""
    unsynced = (
        f"; claimed to be unsynchronised for up to {format_at_latest(audit.unsynced_ns)}"
        if audit.unsynced_ns
        else ""
    )
    if audit.wrong:
        worst = audit.example or f"understated its error by {format_at_latest(audit.worst_ns)}"
        return (
            f"{worst}; wrong for {format_between(audit.wrong_low_ns, audit.wrong_high_ns)}{unsynced}",
            "magenta",
        )
    if not audit.judged and audit.unsynced_ns:
        length, number = format_at_latest(audit.unsynced_ns), counted(audit.claims, "claim")
        return f"claimed to be unsynchronised for up to {length} ({number}, none judged)", ""
    if not audit.judged:
        return f"{counted(audit.claims, 'claim')}, none could be judged{unsynced}", "yellow"
    open_ones = f", {audit.judged} could be judged" if audit.judged < audit.claims else ""
    return f"never understated its error ({counted(audit.claims, 'claim')}{open_ones}){unsynced}", ""


def _audited(run: Run) -> list[tuple[str, CycleRecord, AuditRecord]]:
    """The audits as (guest or cell, cycle, audit), wrong ones in the order of the run."""
    several = len({guest.name for guest in run.guests}) > 1
    found = []
    for guest in run.guests:
        for cycle in guest.cycles:
            many = len([c for c in guest.cycles if c.audits]) > 1
            names = [
                guest.cell,
                guest.name if several and not guest.cell else "",
                f"cycle {cycle.index}" if many else "",
            ]
            found += [(", ".join(filter(None, names)), cycle, audit) for audit in cycle.audits]
    return found


def show_claims(page: Page, run: Run) -> None:
    """Print every source for a single cycle; for several cycles the wrong claims, and the number of right
    ones."""
    audited = _audited(run)
    if not audited:
        return
    if len({cycle_id for cycle_id, _, _ in audited}) == 1:
        _lines(page, [(audit.source, audit) for _, _, audit in audited], "claims")
        return
    wrong = [(who, audit) for who, _, audit in audited if audit.wrong]
    right = [audit for _, _, audit in audited if audit.judged and not audit.wrong]
    unjudged = sum(not audit.judged for _, _, audit in audited)
    if run.cells:
        page.blank()
    if wrong:
        label = "wrong claims"
        for who, audit in wrong[:MOST_WRONG]:
            text, style = claim_text(replace(audit, unsynced_ns=0))
            page.labelled(label, f"{who}: {audit.source} {text}", style=style)
            label = ""
        if len(wrong) > MOST_WRONG:
            page.labelled("", f"and {len(wrong) - MOST_WRONG} more in run.json", style="dim")
    parts = []
    if right:
        sources = ", ".join(dict.fromkeys(audit.source for audit in right))
        others = "no other claim understated the error"
        first = others if wrong else "no claim understated the error"
        parts.append(f"{first}: {counted(sum(audit.claims for audit in right), 'claim')} by {sources}")
    if unjudged:
        parts.append(f"{counted(unjudged, 'source')} could not be judged")
    if parts:
        page.labelled("" if wrong else "claims", "; ".join(parts), style="dim" if wrong else "")


def _lines(page: Page, given: Sequence[tuple[str, AuditRecord]], label: str) -> None:
    wide = max(len(source) for source, _ in given)
    for source, audit in given:
        text, style = claim_text(audit)
        lead: list[Piece] = [(f"{source:<{wide}}  ", "bold" if audit.wrong else "")]
        page.labelled(label, text, before=lead, style=style)
        label = ""
