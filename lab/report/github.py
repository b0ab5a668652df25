"""A run's findings for GitHub Actions: workflow commands that become annotations, and the summary of a job.

The runner takes any line of a step's output that begins with `::` (or has `##[` in it) for a command, of
standard error as well. So while anything is printed that a guest or a playbook may have worded, commands
are stopped with a token that nobody can guess; in the commands below, what they worded is escaped as the
runner's own toolkit does it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

from lab.core.verdict import Finding, Outcome
from lab.record.model import CycleRecord, GuestRecord, Run
from lab.report.numbers import interval
from lab.report.text import bare, clean, cleaned, counted, shortened

MOST_OF_A_KIND = 10
"""GitHub shows so many errors, and so many warnings, of a step."""
MOST_ROWS = 50
MOST_SUMMARY_BYTES = 1 << 20
"""GitHub refuses a larger summary of a step."""

_COMMANDS = {Outcome.FAILED: "error", Outcome.INCONCLUSIVE: "warning"}
_MARKS = {Outcome.PASSED: "✅ passed", Outcome.FAILED: "❌ failed", Outcome.INCONCLUSIVE: "⚠️ inconclusive"}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+\-.!|~@:&$])")


def stop_commands(token: str) -> str:
    """The line from which on no line is a command. token: random."""
    return f"::stop-commands::{token}"


def resume_commands(token: str) -> str:
    """The line that ends it."""
    return f"::{token}::"


def annotation_commands(run: Run, file: str = "") -> Iterator[str]:
    """A command for each of the first findings that are not passed, failed ones first. file: the playbook's
    path in the repository; "" when it is not known."""
    run = cleaned(run)
    for outcome, command in _COMMANDS.items():
        found = [finding for finding in run.findings if finding.outcome is outcome]
        more = len(found) - MOST_OF_A_KIND
        for number, finding in enumerate(found[:MOST_OF_A_KIND], 1):
            text = bare(reason(finding))
            if more > 0 and number == MOST_OF_A_KIND:
                text += f"\nand {counted(more, 'more finding')}: see the summary"
            title = f"{run.playbook.name}: {' '.join(filter(None, [whose(finding), finding.metric]))}"
            properties = {"file": file, "title": bare(title)}
            given = ",".join(f"{name}={_property(value)}" for name, value in properties.items() if value)
            yield f"::{command} {given}::{_data(text)}"


def summary(run: Run) -> str:
    """The run in Markdown: the verdict, its cycles, and its findings that are not passed."""
    run = cleaned(run)
    lines = [f"### freezelab: {_md(run.playbook.name)} — {_MARKS[run.outcome]}", ""]
    host = run.host
    checks = f"{counted(len(run.findings), 'check')} in {counted(len({g.name for g in run.guests}), 'guest')}"
    lines += [
        f"{checks}, {_md(host.accelerator)}, QEMU {_md(host.qemu)}, {_duration(run)}run `{_code(run.id)}`",
        "",
    ]
    cycles = [(guest, cycle) for guest in run.guests for cycle in guest.cycles]
    if cycles:
        lines += ["| guest | cycle | pause | offset at the resume | final offset | verdict |",
                  "|---|---|---|---|---|---|"]  # fmt: skip
        worst = sorted(cycles, key=lambda each: each[1].outcome is Outcome.PASSED)[:MOST_ROWS]
        lines += [_row(guest, cycle) for guest, cycle in worst]
        lines += [f"\nand {len(cycles) - MOST_ROWS} more"] if len(cycles) > MOST_ROWS else []
        lines.append("")
    found = [finding for finding in run.findings if finding.outcome is not Outcome.PASSED]
    found.sort(key=lambda finding: finding.outcome is not Outcome.FAILED)
    for finding in found[:MOST_ROWS]:
        named = " ".join(filter(None, [whose(finding), finding.metric]))
        lines.append(f"- {_MARKS[finding.outcome]} **{_md(named)}**: {_md(reason(finding))}")
    lines += [f"- and {len(found) - MOST_ROWS} more"] if len(found) > MOST_ROWS else []
    return "\n".join([*lines, "", ""])


def _row(guest: GuestRecord, cycle: CycleRecord) -> str:
    offset = cycle.offset
    name = " ".join(filter(None, [guest.cell, guest.name]))
    values = (interval(cycle.pause), interval(offset.at_resume), interval(offset.final))
    cells = (_md(name), str(cycle.index), *(_md(bare(value)) for value in values), _MARKS[cycle.outcome])
    return f"| {' | '.join(cells)} |"


def reason(finding: Finding) -> str:
    return finding.why or f"{finding.measured}, expected {finding.expectation}"


def whose(finding: Finding) -> str:
    cycle = f"cycle {finding.cycle}" if finding.cycle >= 0 else ""
    return " ".join(filter(None, [finding.cell, finding.guest, cycle]))


def _duration(run: Run) -> str:
    try:
        taken = datetime.fromisoformat(run.ended) - datetime.fromisoformat(run.started)
    except ValueError:
        return ""
    return f"{taken.total_seconds():.0f} s, "


def _data(text: str) -> str:
    """The text of a command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """The value of one of its properties."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _md(text: str) -> str:
    """The text, with no meaning to Markdown or HTML: no link, no mention, no end of a table's cell."""
    return _MARKDOWN.sub(lambda match: f"&#{ord(match[1])};", shortened(bare(clean(text)), 300))


def _code(text: str) -> str:
    """The text between backquotes."""
    return shortened(clean(text), 200).replace("`", "'").replace("|", "/")
