"""Why a run has not passed, one line for each reason, and surprises of a run that has."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lab.core.clocksource import OPTION
from lab.core.handlers import HANDLER
from lab.core.mechanism import ResyncMechanism
from lab.core.method import FreezeMethod
from lab.core.quantities import format_about, format_magnitude
from lab.core.resync_findings import AS_PREDICTED
from lab.core.units import NS_PER_MS
from lab.core.verdict import Finding, Outcome
from lab.record.model import CycleRecord, Run
from lab.report import predictions
from lab.report.cycles import VERDICTS
from lab.report.numbers import behind
from lab.report.page import Page
from lab.report.resyncs import measured
from lab.report.text import names, ranges

MOST_REASONS = 24
ALL_CYCLES = "all cycles"

_OF_THE_RUN = (
    "observation",
    "run",
    "history",
    "cycles",
    "cell",
    "freeze",
    "memory",
    OPTION,
    AS_PREDICTED,
    HANDLER,
)
"""Metrics whose reasons need no further context."""

_CLAIM = re.compile(r"claims ± ([0-9.]+) ms")
NOTABLE_NS = 10 * NS_PER_MS
"""The least offset before the freeze, or overshoot, that gets a line."""


@dataclass
class _Reason:
    """Findings that differ only in their numbers. first: the text of the first one."""

    label: str
    style: str
    first: str
    cycles: dict[str, list[int]] = field(default_factory=dict)
    texts: set[str] = field(default_factory=set)
    cells: dict[str, None] = field(default_factory=dict)

    def add(self, guest: str, cycle: int, text: str, cell: str = "") -> None:
        self.cycles.setdefault(guest, []).append(cycle)
        if cell:
            self.cells[cell] = None
        self.texts.add(text)


_QUANTITY = re.compile(r"(?:[+-]?[0-9][0-9.,\u00a0]*(?:[ \u00a0](?:ns|µs|ms|s|min|h|ppm|%)\b)?[ \u00a0]?)+")


def _shape(text: str) -> str:
    """A text without its numbers and their units: the key by which reasons are combined."""
    return _QUANTITY.sub("#", text)


def _who(run: Run, reason: _Reason) -> str:
    """ "web-0, cycles 3, 7-9"; only as much as is needed to identify it in this run."""
    guests = [name for name in reason.cycles if name]
    known = {guest.name for guest in run.guests}
    parts = []
    if reason.cells:
        everywhere = len(reason.cells) == len(run.cells) and len(reason.cells) > 2
        parts.append("all cells" if everywhere else names(list(reason.cells)))
    if len(known) > 1 and guests:
        everyone = len(guests) == len(known) and len(guests) > 2
        parts.append("all guests" if everyone else names(guests))
    if len(reason.cells) > 1:
        return ", ".join(parts)  # their cycles have nothing to do with each other
    spread = any(len(guest.cycles) > 1 for guest in run.guests)
    numbers = {number for given in reason.cycles.values() for number in given if number >= 0}
    if spread and numbers:
        word = "cycle" if len(numbers) == 1 else "cycles"
        everywhere = numbers == {c.index for g in run.guests for c in g.cycles}
        parts.append(ALL_CYCLES if everywhere and len(numbers) > 2 else f"{word} {ranges(sorted(numbers))}")
    return ", ".join(parts)


def _reasons(run: Run) -> list[_Reason]:
    found: dict[tuple[object, ...], _Reason] = {}
    order = (Outcome.FAILED, Outcome.INCONCLUSIVE)
    elsewhere = {finding.why for finding in run.findings if finding.metric != "run"}
    for outcome in order:
        for finding in run.findings:
            if finding.metric == "run" and finding.why in elsewhere:
                continue  # what ended the run is a guest's own problem, which has a line
            if finding.outcome is outcome:
                # The table says what was predicted; a line for each cell would say it again.
                short = run.cells and finding.metric == AS_PREDICTED and outcome is Outcome.INCONCLUSIVE
                text = finding.measured if short else _text(finding)
                label, style = VERDICTS[outcome]
                key = (outcome, finding.metric, _shape(text), finding.cycle < 0)
                reason = found.setdefault(key, _Reason(label, style, text))
                reason.add(finding.guest, finding.cycle, text, finding.cell)
    for finding in run.findings:
        if finding.failed_as_expected:
            why = (finding.why or finding.measured).removeprefix(finding.metric).strip()
            text = f"{finding.metric} fails: {why}"
            key = (finding.outcome, finding.metric, _shape(text), finding.cycle < 0)
            reason = found.setdefault(key, _Reason("as expected", "green", text))
            reason.add(finding.guest, finding.cycle, text, finding.cell)
    return list(found.values())


def _text(finding: Finding) -> str:
    why = finding.why or f"{finding.measured}, expected {finding.expectation}"
    if finding.metric in _OF_THE_RUN or finding.metric.split(" ", 1)[0] in why:
        return why
    return f"{finding.metric}{',' if ': ' in why else ':'} {why}"


def surprises(run: Run) -> list[_Reason]:
    """Results that contradict the mechanism's own rules, whether or not they were expected."""
    found: dict[tuple[str, str], _Reason] = {}
    failed = {
        (f.cell, f.guest, f.cycle)
        for f in run.findings
        if f.metric == AS_PREDICTED and f.outcome is Outcome.FAILED
    }
    for guest in run.guests:
        for cycle in guest.cycles:
            reported = (cycle.cell, guest.name, cycle.index) in failed
            unpredicted = [] if reported else _unpredicted(cycle)
            for text in (*unpredicted, *_surprises(cycle), *predictions.surprises(cycle)):
                reason = found.setdefault(("", _shape(text)), _Reason("surprise", "magenta", text))
                reason.add(guest.name, cycle.index, text, cycle.cell)
    return list(found.values())


_BY_RTC = frozenset(mechanism.value for mechanism in ResyncMechanism if mechanism.reads_rtc)


def _surprises(cycle: CycleRecord) -> Iterator[str]:
    resync, offset = cycle.resync, cycle.offset
    before = offset.before
    if (
        before is not None
        and min(abs(before.low_ns), abs(before.high_ns)) > NOTABLE_NS
        and before.low_ns * before.high_ns > 0
    ):
        word = "" if before.value_ns > 0 else " behind"
        yield f"already {behind(before)}{word} before the freeze"
    if resync is not None and cycle.frozen:
        if resync.backward_steps:
            count = resync.backward_steps
            yield f"the guest's clock was stepped backward {'once' if count == 1 else f'{count} times'}"
        # An RTC's seconds are as far ahead as they were forecast to be: that is no surprise.
        foreseen = resync.mechanism in _BY_RTC and resync.forecast is not None and resync.forecast.agrees
        if resync.overshoot_ns > NOTABLE_NS and not foreseen:
            yield f"the correction overshot by {format_magnitude(resync.overshoot_ns)}"
        claim = _CLAIM.search(resync.said)
        final = offset.final
        # It was made after the last reading: where claims were collected and dated, they are held there.
        if claim and final is not None and not cycle.audits:
            certain = min(abs(final.low_ns), abs(final.high_ns)) if final.low_ns * final.high_ns > 0 else 0
            if certain > float(claim[1]) * NS_PER_MS:
                word = "" if final.value_ns > 0 else " behind"
                yield f"{resync.said}, is {behind(final)}{word}"
    if cycle.frozen and cycle.regime is not None:
        measured = [name for name in ("lag", "gap", "silence") if getattr(cycle.witnesses, name) is not None]
        expected = {"resumed": ("lag", "silence"), "jumped": ("gap", "silence"), "mixed": ("lag", "silence")}
        for name in expected.get(cycle.regime, ()):
            # A guest that goes to sleep by itself is silent before its machine stands still.
            if name == "silence" and (cycle.cut or FreezeMethod(cycle.method).sleeps):
                continue
            if name in measured and name not in cycle.agreeing:
                if name == "silence" and (longer := cycle.silent_after_ns):
                    late = "the guest, or its packets, came late"
                    yield f"silence outlasted the pause by at least {format_magnitude(longer)}: {late}"
                else:
                    yield f"{name} contradicts the other witnesses of the pause"
    if cycle.rtc_moved is not None:
        side = "ahead" if cycle.rtc_moved.value_ns > 0 else "back"
        yield f"the guest's RTC moved {side} by {format_about(abs(cycle.rtc_moved.value_ns))}"
    if cycle.clocksource is not None and cycle.clocksource.before != cycle.clocksource.after:
        yield f"the clocksource changed from {cycle.clocksource.before} to {cycle.clocksource.after}"


def _unpredicted(cycle: CycleRecord) -> Iterator[str]:
    forecast = cycle.resync.forecast if cycle.resync is not None and cycle.frozen else None
    if forecast is not None and forecast.agrees is False:
        how = forecast.verdict.removeprefix("surprise").lstrip(": ")
        yield f"predicted: {forecast.text}; measured: {measured(cycle)[0]}{f' ({how})' if how else ''}"


def show_reasons(page: Page, run: Run, most_lines: int | None = None) -> None:
    """Print the reasons: failed ones first, then inconclusive ones, then surprises. most_lines: so many lines
    of the page at most, as far as there are more reasons than one."""
    reported: Sequence[_Reason] = [*_reasons(run), *surprises(run)]
    if not reported:
        return
    if most_lines is None:
        page.blank()
    most, begun = page.most(MOST_REASONS), page.lines
    for number, reason in enumerate(reported[:most]):
        who = _who(run, reason)
        text = f"{who}: {reason.first}" if who else reason.first
        times = sum(len(numbers) for numbers in reason.cycles.values())
        if len(reason.texts) > 1:
            text += f" (the first of {times})"
        elif ALL_CYCLES in who:  # elsewhere the cycles are named
            text += f" ({times} times)"
        used = page.lines - begun + page.height(reason.label, text) + (number + 1 < len(reported))
        if most_lines is not None and number and used > most_lines:
            page.labelled("", f"and {len(reported) - number} more", style="dim")
            return
        page.labelled(reason.label, text, label_style=reason.style)
    if len(reported) > most:
        page.labelled("", f"and {len(reported) - most} more in run.json")
