"""The predictions of freeze methods beside the measurements."""

from __future__ import annotations

from collections.abc import Sequence

from lab.core.timesync.compare import CLAIMS
from lab.record.model import CycleRecord, Predicted, Run
from lab.report.page import Page
from lab.report.table import Column, Piece, Table

_MARKS: dict[bool | None, Piece] = {
    True: ("yes", "green"),
    False: ("NO", "bold magenta"),
    None: ("?", "yellow"),
}


def of_method(cycle: CycleRecord) -> list[Predicted]:
    """The predictions of the freeze method. Those of the resync mechanism are beside its curve."""
    return [one for one in cycle.predictions if one.claim not in CLAIMS]


def _cycles(run: Run) -> dict[str, list[CycleRecord]]:
    """The cycles of each method, without control cycles."""
    found: dict[str, list[CycleRecord]] = {}
    for guest in run.guests:
        for cycle in guest.cycles:
            if not cycle.control and of_method(cycle):
                found.setdefault(cycle.method, []).append(cycle)
    return found


def _worst(given: Sequence[Predicted]) -> Predicted:
    """The most important prediction: a contradiction, else an undecided one."""
    return min(given, key=lambda one: (False, None, True).index(one.agrees))


def show_predictions(page: Page, run: Run) -> None:
    """Print a table when the run has several methods; otherwise nothing, as surprises are printed anyway."""
    methods = _cycles(run)
    if len(methods) < 2:
        return
    rows: list[tuple[str, Predicted, Piece]] = []
    for method, cycles in methods.items():
        claims = dict.fromkeys(p.claim for cycle in cycles for p in of_method(cycle))
        for number, claim in enumerate(claims):
            given = [p for cycle in cycles for p in of_method(cycle) if p.claim == claim]
            one = _worst(given)
            mark, style = _MARKS[one.agrees]
            if len(given) > 1 and one.agrees is not True:
                mark += f" ({sum(p.agrees is one.agrees for p in given)} of {len(given)})"
            rows.append((method if page.plain or not number else "", one, (mark, style)))
    page.blank()
    page.table(
        Table(
            [
                Column("method", lambda row: (row[0], "bold")),
                Column("", lambda row: (row[1].claim, "dim")),
                Column("predicted", lambda row: (row[1].predicted, ""), rank=1),
                Column("measured", lambda row: (row[1].measured, "")),
                Column("as predicted", lambda row: row[2]),
            ],
            rows,
        )
    )


def surprises(cycle: CycleRecord) -> list[str]:
    """One line for each prediction that certainly failed."""
    return [
        f"{one.claim}: {cycle.method} predicts {one.predicted}; measured: {one.measured}"
        for one in of_method(cycle)
        if one.agrees is False
    ]
