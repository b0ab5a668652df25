"""The pictures of each cycle: its timeline, the witnesses, the resync curve, and where the pause goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lab.core.verdict import Outcome
from lab.record.model import CycleRecord, Run
from lab.report.cycles import Row, in_time_cell, pause_cell, rows_of
from lab.report.html.document import PictureIds, markup
from lab.report.html.parts import pause_bars
from lab.report.html.resync import resync_curve
from lab.report.html.timeline import timeline, witnesses

MOST_CARDS = 60
"""The number of cycles that have pictures, the worst ones first; all are in the table."""
OPEN = 2
"""With more cycles than this, only the first card is open."""


@dataclass(frozen=True)
class CycleCard:
    """A cycle and its pictures. line: its main figures, for a card that is closed."""

    id: str
    name: str
    row: Row
    line: str
    pictures: Markup
    opened: bool

    @property
    def cycle(self) -> int:
        return self.row.cycle.index if self.row.cycle is not None else -1

    @property
    def outcome(self) -> Outcome:
        return self.row.outcome


def name_of(run: Run, row: Row) -> str:
    """ "web-0, cycle 2"; without the cycle when each guest has one."""
    parts = [row.guest.name]
    if row.cycle is not None and any(len(guest.cycles) > 1 for guest in run.guests):
        parts.append(f"cycle {row.cycle.index}")
    return ", ".join(parts)


def pictures(run: Run, row: Row, ids: PictureIds) -> Markup:
    """All pictures of one cycle; empty when it has nothing to draw."""
    cycle = row.cycle
    if cycle is None:
        return Markup()
    whose = ", ".join(filter(None, [row.guest.cell, name_of(run, row)]))
    event = (
        next((e for e in run.events if e.id == cycle.event and e.cell == cycle.cell), None)
        if cycle.event
        else None
    )
    drawn = [
        timeline(whose, cycle, event, row.guest.name, ids) if not cycle.control else Markup(),
        witnesses(whose, cycle, ids) if not cycle.control else Markup(),
        resync_curve(whose, cycle, ids),
        parts_of(cycle, ids),
    ]
    return Markup().join(drawn)


def parts_of(cycle: CycleRecord, ids: PictureIds) -> Markup:
    """Where the pause of one cycle goes."""
    parts = [(step.name, float(step.length_ns)) for step in cycle.steps]
    return pause_bars("Where the pause goes", [("from the stop call to the first packet", parts)], ids)


def _order(row: Row) -> tuple[int, bool]:
    """Those that did not pass first, control cycles last."""
    return row.worst_first[0], row.cycle is not None and row.cycle.control


def summary(row: Row) -> str:
    """ "5 006.4 ± 0.6 ms, in time after 21 ms (step)"."""
    if row.cycle is None:
        return "no cycle"
    texts = [pause_cell(True)(row)[0]]
    if row.cycle.resync is not None:
        in_time = in_time_cell(True)(row)[0]
        texts.append(f"in time after {in_time}" if in_time[:1].isdigit() else f"in time: {in_time}")
    return ", ".join(texts)


def _cards(run: Run, rows: Sequence[Row], ids: PictureIds) -> Iterator[CycleCard]:
    for number, row in enumerate(rows):
        drawn = pictures(run, row, ids)
        if drawn:
            opened = len(rows) <= OPEN or number == 0
            yield CycleCard(ids.new(), name_of(run, row), row, summary(row), drawn, opened)


def cycle_cards(run: Run, ids: PictureIds) -> tuple[Markup, dict[tuple[str, str, int], str]]:
    """A card for each cycle, those that did not pass first; empty without cycles. And the cards' ids, by
    cell, guest and cycle."""
    rows = [row for row in rows_of(run) if row.cycle is not None]
    shown = sorted(rows, key=_order)[:MOST_CARDS]
    cards = list(_cards(run, shown, ids))
    left = len(rows) - len(shown)
    named = {(card.row.guest.cell, card.row.guest.name, card.cycle): card.id for card in cards}
    return (markup("cycles.html.j2", cards=cards, left=left) if cards else Markup()), named
