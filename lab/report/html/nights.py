"""The last nights as a page: which playbook passed when, and why the others did not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from markupsafe import Markup

from lab.core.night import NightVerdict, PlaybookNight
from lab.core.quantities import format_length
from lab.core.verdict import Outcome
from lab.errors import RecordError
from lab.record.nights import Night
from lab.report.files import write_whole
from lab.report.html.blocks import BlockPage, printed
from lab.report.html.document import PageSection, Tile, markup, page
from lab.report.nights import night_state, show_part, when
from lab.report.text import clean, cleaned, counted

_OUTCOMES = {
    NightVerdict.PASSED: Outcome.PASSED,
    NightVerdict.INCONCLUSIVE: Outcome.INCONCLUSIVE,
    NightVerdict.INTERRUPTED: Outcome.INCONCLUSIVE,
}


def outcome_of(verdict: NightVerdict | None) -> Outcome:
    """The colour and sign of a verdict: what is neither passed nor undecided has failed."""
    if verdict is None:
        return Outcome.INCONCLUSIVE
    return _OUTCOMES.get(verdict, Outcome.FAILED)


def write_nights_page(
    nights: Sequence[Night], damaged: Sequence[RecordError], path: Path, *, running: bool
) -> None:
    """Write the page, whole or not at all. nights: the latest first. running: whether the first of them may
    be under way. MachineError when it cannot be written."""
    write_whole(path, nights_page(nights, damaged, running=running).encode())


def nights_page(nights: Sequence[Night], damaged: Sequence[RecordError], *, running: bool) -> str:
    """The page's HTML. All texts of runs and files are shown as text."""
    shown = [cleaned(night) for night in nights]
    last = shown[0] if shown else None
    passed = sum(night.verdict is NightVerdict.PASSED for night in shown)
    return page(
        "Nights of freezelab",
        None if last is None or (last.verdict is None and running) else outcome_of(last.verdict),
        "no nights yet" if last is None else _headline(last, running),
        [
            PageSection("nights", "Playbooks by night", _calendar(shown, running)),
            PageSection("reasons", "What there is to tell of them", _reasons(shown, running)),
        ],
        name="Nights",
        warnings=[clean(f"{counted(len(damaged), 'night')} cannot be read: {damaged[0]}")] if damaged else [],
        tiles=[Tile("passed", f"{passed} of {len(shown)}", "nights")] if shown else [],
    )


def _headline(last: Night, running: bool) -> str:
    """Its verdict is beside it where it is one of a run's."""
    state = night_state(last, running)
    title = f"the night of {when(last.started)}"
    return title if state in {outcome.value for outcome in Outcome} else f"{title}: {state}"


def _calendar(nights: Sequence[Night], running: bool) -> Markup:
    """A row for each night, a column for each playbook."""
    if not nights:
        return Markup()
    playbooks = list(dict.fromkeys(part.playbook for night in nights for part in night.playbooks))
    rows = []
    for number, night in enumerate(nights):
        parts = {part.playbook: part for part in night.playbooks}
        cells = [_cell(parts.get(name)) for name in playbooks]
        rows.append((night, when(night.started), night_state(night, running and not number), cells))
    return markup("nights.html.j2", playbooks=playbooks, rows=rows, outcome_for=outcome_of)


def _cell(part: PlaybookNight | None) -> tuple[Outcome | None, str, str]:
    """(outcome, verdict, a word beside it)."""
    if part is None:
        return None, "", ""
    return outcome_of(part.verdict), part.verdict.value, format_length(part.took_ns) if part.took_ns else ""


def _reasons(nights: Sequence[Night], running: bool) -> Markup:
    """For each night with more than its verdicts to tell: a heading, and why playbooks did not pass."""
    found = []
    for number, night in enumerate(nights):
        content = printed(*(partial(_show, part) for part in night.playbooks if part.has_remarks))
        if content:
            title = f"{when(night.started)}: {night_state(night, running and not number)}"
            found.append((f"night-{night.id}", title, content))
    return markup("reasons.html.j2", nights=found) if found else Markup()


def _show(part: PlaybookNight, on: BlockPage) -> None:
    show_part(on, part)
