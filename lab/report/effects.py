"""The effects of a pause besides the clock: timers, clocks that went backward, BOOTTIME, RTC, kernel
messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.core.effects import Backward, Timers
from lab.core.quantities import format_edge, format_magnitude
from lab.core.units import NS_PER_MS
from lab.record.model import CycleRecord, EffectsRecord, Run
from lab.report.numbers import interval
from lab.report.page import Page
from lab.report.table import Column, Piece, Table, forms
from lab.report.text import counted

MOST_LINES = 6
MOST_ROWS = 8


@dataclass(frozen=True)
class _GuestCycle:
    """A cycle and its guest."""

    who: str
    cycle: CycleRecord


def _watched(run: Run) -> list[_GuestCycle]:
    several = len({guest.name for guest in run.guests}) > 1
    found = []
    for guest in run.guests:
        for cycle in guest.cycles:
            names = [guest.cell, guest.name if several and not guest.cell else ""]
            names.append(f"cycle {cycle.index}" if len(guest.cycles) > 1 else "")
            found.append(_GuestCycle(", ".join(filter(None, names)), cycle))
    return found


def show_effects(page: Page, run: Run) -> None:
    """Print all effects for a single cycle; for several cycles the unexpected ones and the worst timers."""
    watched = _watched(run)
    one = len(watched) == 1
    for each in watched:
        if one and each.cycle.effects is not None:
            _timers(page, each.cycle.effects.timers)
    if not one:
        _worst_timers(page, watched)
    _clocks(page, watched)
    _boottime(page, watched, one)
    _rtc(page, watched, one)
    _kernel(page, watched)


ABOVE = 1 << 62
"""The upper edge of the last bucket, which has none."""


def _decades(fleet: Timers) -> dict[int, int]:
    """The numbers of timers that were late by at most 1 ms, 10 ms, 100 ms, and so on, by upper edge, without
    empty ones."""
    found: dict[int, int] = {}
    for number, (edge_ns, count) in enumerate(fleet.buckets):
        upper = 1
        while upper < edge_ns:
            upper *= 10
        upper = ABOVE if number and number + 1 == len(fleet.buckets) else upper
        if count:
            found[upper] = found.get(upper, 0) + count
    return found


_Timers = tuple[Timers, Mapping[int, int]]
"""Timers of a kind, and the distribution of their lateness."""


def _timers(page: Page, fleets: Sequence[Timers]) -> None:
    if not fleets:
        return
    merged = [_decades(fleet) for fleet in fleets]
    edges = sorted({edge_ns for counts in merged for edge_ns in counts})
    last = max((fleet.buckets[-2][0] for fleet in fleets if len(fleet.buckets) > 1), default=0)
    heads = [f"> {format_edge(last)}" if e == ABOVE else f"≤ {format_edge(e)}" for e in edges]

    def decade(edge_ns: int, head: str) -> Column[_Timers]:
        def cell(row: _Timers) -> Piece:
            count = row[1].get(edge_ns, 0)
            return f"{count}", "" if count else "dim"

        return forms(
            Column(head, cell, right=True, rank=1),
            Column(head.replace(" ", "\n", 1), cell, right=True, rank=2),
        )

    columns: list[Column[_Timers]] = [
        forms(
            Column("timers, late by", lambda row: (row[0].kind, ""), rank=2),
            Column("timers", lambda row: (row[0].kind, "")),
        ),
        *(decade(e, head) for e, head in zip(edges, heads, strict=True)),
        Column("worst", lambda row: (format_magnitude(row[0].worst_ns), ""), right=True),
        Column("at once", lambda row: (_at_once(row[0]) or "–", ""), right=True),
    ]
    if any(fleet.early for fleet in fleets):
        columns.append(Column("early", _early, right=True))
    page.blank()
    page.table(Table(columns, list(zip(fleets, merged, strict=True))))
    page.blank()


def _early(row: _Timers) -> Piece:
    return f"{row[0].early}", "magenta" if row[0].early else "dim"


def _at_once(fleet: Timers) -> str:
    return f"{fleet.at_once} of {fleet.timers}" if fleet.at_once else ""


def _worst_timers(page: Page, watched: Sequence[_GuestCycle]) -> None:
    fleets = [(one.who, fleet) for one in watched if one.cycle.effects for fleet in one.cycle.effects.timers]
    if not fleets:
        return
    who, fleet = max(fleets, key=lambda pair: pair[1].worst_ns)
    text = f"at most {format_magnitude(fleet.worst_ns)} late by their own clock ({fleet.kind}, {who})"
    whose, most = max(fleets, key=lambda pair: pair[1].at_once)
    if most.at_once:
        text += f"; at most {_at_once(most)} at once ({most.kind}, {whose})"
    early = sum(f.early for _, f in fleets)
    text += f"; {early} fired early" if early else ""
    page.labelled("timers", text, style="magenta" if early else "")


def _by_clock(given: Sequence[Backward]) -> dict[str, list[Backward]]:
    found: dict[str, list[Backward]] = {}
    for one in given:
        found.setdefault(one.clock, []).append(one)
    return found


def _clocks(page: Page, watched: Sequence[_GuestCycle]) -> None:
    """Print the number of readings of each clock, and each time that it went backward."""
    looked = [(one.who, b) for one in watched if one.cycle.effects for b in one.cycle.effects.clocks]
    label = "backward"
    for clock, given in _by_clock([b for _, b in looked]).items():
        looks, between = sum(b.looks for b in given), sum(b.looks for b in given if b.from_cpu != b.to_cpu)
        count = sum(b.backward for b in given)
        across = f", {'all' if between == looks else between} from vCPU to vCPU" if between else ""
        if not count:
            page.labelled(label, f"{clock}: never, in {counted(looks, 'check')}{across}")
        else:
            who, worst = max(
                ((w, b) for w, b in looked if b.clock == clock), key=lambda pair: pair[1].worst_ns
            )
            alone = worst.from_cpu == worst.to_cpu
            hands = f"vCPU {worst.from_cpu}" + ("" if alone else f" to {worst.to_cpu}")
            where = ", ".join(filter(None, [hands, who]))
            by = format_magnitude(worst.worst_ns)
            text = f"{clock}: {count} of {counted(looks, 'check')}, by at most {by}"
            page.labelled(label, f"{text} ({where})", style="magenta")
        label = ""


SAME_NS = NS_PER_MS
"""The tolerated difference: BOOTTIME and MONOTONIC are read one after the other."""


def _boottime(page: Page, watched: Sequence[_GuestCycle], one: bool) -> None:
    known = []
    for each in watched:
        ns = each.cycle.effects.boot_minus_mono_ns if each.cycle.effects is not None else None
        known += [(each.who, ns)] if ns is not None else []
    left = [(who, ns) for who, ns in known if abs(ns) > SAME_NS]
    if known and not left:
        page.labelled(
            "boottime", "equal to MONOTONIC" if one else f"equal to MONOTONIC in all {len(known)} cycles"
        )
    label = "boottime"
    for who, ns in left[:MOST_ROWS]:
        text = f"{'gained' if ns > 0 else 'lost'} {format_magnitude(ns)} compared with MONOTONIC"
        page.labelled(label, f"{text} ({who})" if who else text)
        label = ""


def _rtc(page: Page, watched: Sequence[_GuestCycle], one: bool) -> None:
    known = [(each.who, each.cycle.effects) for each in watched if each.cycle.effects is not None]
    looked = [(who, e) for who, e in known if e.rtc_before is not None or e.rtc_after is not None]
    if not looked:
        return
    moved = [(who, e) for who, e in looked if _moved(e)]
    shown = looked if one else moved
    label = "rtc"
    for who, e in shown[:MOST_ROWS]:
        before, after = (interval(each, signed=True) for each in (e.rtc_before, e.rtc_after))
        text = f"RTC - REALTIME {before} before, {after} after"
        page.labelled(label, f"{text} ({who})" if who else text)
        label = ""
    if len(shown) > MOST_ROWS:
        page.labelled("", f"and {len(shown) - MOST_ROWS} more", style="dim")
    if not shown:
        page.labelled(label, f"constant distance from REALTIME in all {len(looked)} cycles")


def _moved(effects: EffectsRecord) -> bool:
    """True when the RTC's distance from REALTIME certainly changed."""
    one, two = effects.rtc_before, effects.rtc_after
    return one is not None and two is not None and (one.high_ns < two.low_ns or two.high_ns < one.low_ns)


def _kernel(page: Page, watched: Sequence[_GuestCycle]) -> None:
    """Print kernel messages as evidence, each once, harmless ones last."""
    lines: dict[tuple[str, bool], list[str]] = {}
    for harmless in (False, True):
        for each in watched:
            for line in each.cycle.kernel_notes if harmless else each.cycle.kernel_stalls:
                lines.setdefault((line, harmless), []).append(each.who)
    label = "kernel log"
    for (line, harmless), who in list(lines.items())[:MOST_LINES]:
        names = [name for name in dict.fromkeys(who) if name]
        words = ["harmless"] if harmless else []
        words += [f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}"] if names else []
        where = f" ({'; '.join(words)})" if words else ""
        page.labelled(label, f"{line}{where}", style="dim" if harmless else "magenta")
        label = ""
    if len(lines) > MOST_LINES:
        page.labelled("", f"and {len(lines) - MOST_LINES} more lines in run.json", style="dim")
