"""Statistics over repeated cycles: median, p95 and largest value, with the limits of order statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lab.core.quantities import format_table_ms
from lab.record.model import Limits, Run, Statistic
from lab.report.numbers import known_to, limits
from lab.report.page import Page
from lab.report.table import Column, Table, forms


def show_statistics(page: Page, run: Run, given: Sequence[Statistic]) -> None:
    """Print median, p95 and max with their 95 % limits; "–" where there are too few cycles for a limit."""
    if not given:
        return
    page.blank()
    known = {id(s): _known_to(run, s) for s in given}

    def bound(statistic: Statistic) -> int:
        return known[id(statistic)]

    page.table(
        Table(
            [
                Column("ms", lambda s: (f"control: {s.metric}" if s.kind == "control" else s.metric, "")),
                Column("cycles", lambda s: (str(s.count), ""), right=True),
                *_with_limits("median", lambda s: s.median, bound),
                *_with_limits("p95", lambda s: s.p95, bound),
                Column("max", lambda s: (format_table_ms(s.max, bound_ns=bound(s)), ""), right=True),
            ],
            given,
        )
    )


def _known_to(run: Run, statistic: Statistic) -> int:
    """How well the values of a statistic are known, in nanoseconds: the median of their bounds. 0 for bounds,
    which are exact themselves."""
    cycles = [
        c for g in run.guests for c in g.cycles
        if c.control == (statistic.kind == "control") and (c.frozen or c.control)
    ]  # fmt: skip
    bounds: dict[str, list[int]] = {
        "pause": [known_to(c.pause) for c in cycles if c.pause],
        "|closure|": [(c.closure.high_ns - c.closure.low_ns) // 2 for c in cycles if c.closure],
        "time to sync": [
            r.time_ns - r.time_low_ns
            for c in cycles
            if (r := c.resync) is not None and r.time_ns is not None and r.time_low_ns is not None
        ],
        "|final offset|": [known_to(c.offset.final) for c in cycles if c.offset.final],
    }
    bounds["pause - stamps"] = bounds["pause"]
    known = sorted(bounds.get(statistic.metric, []))
    return known[len(known) // 2] if known else 0


def _with_limits(
    head: str, of: Callable[[Statistic], Limits], bound: Callable[[Statistic], int]
) -> list[Column[Statistic]]:
    """The forms of a quantile's column: with limits beside it, with limits below it, without limits."""
    within = "95 % limits"

    def value(s: Statistic) -> str:
        return format_table_ms(of(s).value, bound_ns=bound(s))

    def beside(s: Statistic) -> str:
        return limits(of(s), bound(s))

    return [
        forms(
            Column(head, lambda s: (value(s), ""), right=True, rank=1),
            Column(f"{head}\n{within}", lambda s: (f"{value(s)}\n{beside(s)}", ""), right=True, rank=2),
            Column(head, lambda s: (value(s), ""), right=True),
        ),
        Column(within, lambda s: (beside(s), "dim"), right=True, rank=1),
    ]
