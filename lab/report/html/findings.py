"""Every finding with what was expected and what was measured, and a link to its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lab.core.verdict import Finding, Outcome
from lab.record.model import Run
from lab.report.html.document import markup
from lab.report.text import counted

MOST_PASSED = 1000
_ORDER = (Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.PASSED)


@dataclass(frozen=True)
class FindingRow:
    """where: cell, guest and cycle. link: the id of the card with its pictures, "" without one."""

    outcome: Outcome
    where: str
    link: str
    finding: Finding


def findings(run: Run, cards: Mapping[tuple[str, str, int], str]) -> Markup:
    """All findings: those that did not pass, or failed as expected, then the others, which are folded. cards:
    ids by cell, guest and cycle."""
    rows = [_row(one, cards) for one in sorted(run.findings, key=lambda f: _ORDER.index(f.outcome))]
    notable = [row for row in rows if row.outcome is not Outcome.PASSED or row.finding.failed_as_expected]
    passed = [row for row in rows if row.outcome is Outcome.PASSED and not row.finding.failed_as_expected]
    return markup(
        "findings.html.j2",
        notable=notable, passed=passed[:MOST_PASSED], left=len(passed[MOST_PASSED:]),
        summary=f"{counted(len(passed), 'check')} passed", several=_several(run, rows),
    ) if rows else Markup()  # fmt: skip


def _several(run: Run, rows: Sequence[FindingRow]) -> bool:
    return any(row.where for row in rows) and (
        len(run.guests) > 1 or any(len(g.cycles) > 1 for g in run.guests)
    )


def _row(finding: Finding, cards: Mapping[tuple[str, str, int], str]) -> FindingRow:
    cycle = f"cycle {finding.cycle}" if finding.cycle >= 0 else ""
    where = ", ".join(filter(None, [finding.cell, finding.guest, cycle]))
    link = cards.get((finding.cell, finding.guest, finding.cycle), "")
    if not link and finding.cell:
        link = cards.get((finding.cell, "", -1), "")
    return FindingRow(finding.outcome, where, link, finding)
