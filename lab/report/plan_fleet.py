"""A plan's fleet: its guests, its availability sets with their domains, and the rollout's waves.

For a fleet of any size this takes about two screens; the number of omitted entries is printed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from itertools import groupby

from lab.core.plan import DomainKind, Gate, GateKind, GuestSpec, Plan, Rollout
from lab.core.rollout import Wave, waves
from lab.core.units import format_duration
from lab.report.page import Page
from lab.report.table import ALWAYS, Column, Piece, T, Table, forms
from lab.report.text import counted

MOST_SETS = 6
MOST_DOMAINS = 24  # rows of all sets together
MOST_WAVES = 24
MOST_SPANS = (6, 4, 3, 2, 1)  # names or spans of names in a cell, as many as there is room for
_NUMBERED = re.compile(r"(.*?-)(0|[1-9][0-9]*)")


def spans(names: Sequence[str]) -> list[str]:
    """Names, with consecutive numbers combined: "web-0 to web-7", "db"."""
    found: list[str] = []
    for _, run in groupby(enumerate(names), key=_kin):
        several = [name for _, name in run]
        if len(several) > 2:
            found.append(f"{several[0]} to {several[-1]}")
        else:
            found += several
    return found


def _kin(numbered: tuple[int, str]) -> Hashable:
    """A key that is equal for consecutive names: that of web-3 as the fifth name is that of web-4 as the
    sixth."""
    index, name = numbered
    match = _NUMBERED.fullmatch(name)
    return (match[1], int(match[2]) - index) if match else (name, -1, index)


def listed(names: Sequence[str], most: int) -> str:
    """ "web-0, web-4", at most `most` names or ranges, and the number of omitted guests."""
    shown = spans(names)
    if len(shown) <= most:
        return ", ".join(shown)
    singles = list(names[:most])
    return f"{', '.join(singles)} and {len(names) - len(singles)} more"


def alike(guests: Sequence[GuestSpec], facts: Callable[[GuestSpec], Hashable]) -> list[list[GuestSpec]]:
    """Groups of consecutive guests with the same facts."""
    return [list(group) for _, group in groupby(guests, key=facts)]


def _as_many_as_fit(head: str, cell: Callable[[int], Callable[[T], Piece]]) -> Column[T]:
    """A column of names. cell: makes a cell of at most so many names."""
    *more, least = MOST_SPANS
    return forms(
        *(Column(head, cell(most), rank=rank) for rank, most in enumerate(more)), Column(head, cell(least))
    )


def sets(page: Page, guests: Sequence[GuestSpec]) -> None:
    """Print each availability or scale set as a table of its guests: update domains down, fault domains
    across."""
    members: dict[str, list[GuestSpec]] = {}
    for guest in guests:
        if guest.availability_set:
            members.setdefault(guest.availability_set, []).append(guest)
    left = MOST_DOMAINS
    for at, (name, inside) in enumerate(members.items()):
        if not left or at == MOST_SETS:
            rest = list(members.values())[at:]
            page.put((f"and {counted(len(rest), 'set')} more, of {sum(map(len, rest))} guests", "dim"))
            page.blank()
            return
        left -= _set(page, name, inside, left)
        page.blank()


def _set(page: Page, name: str, guests: Sequence[GuestSpec], most: int) -> int:
    """Print one set; the result is the number of its rows, at most `most`."""
    updates = sorted({guest.update_domain for guest in guests})
    faults = sorted({guest.fault_domain for guest in guests})
    counts = [counted(len(guests), "guest")]
    counts += [counted(len(updates), "update domain"), counted(len(faults), "fault domain")]
    kind = "scale set" if guests[0].scale_set else "availability set"
    page.parts([f"{kind} {name}", *counts], first_style="bold")
    shown = updates[:most]
    placed: dict[tuple[int, int], list[str]] = {}
    for guest in guests:
        placed.setdefault((guest.update_domain, guest.fault_domain), []).append(guest.name)

    def fault_domain(fault: int) -> Column[int]:
        def cell(most: int) -> Callable[[int], Piece]:
            return lambda update: (listed(placed.get((update, fault), []), most), "")

        return _as_many_as_fit(f"{DomainKind.FAULT.short} {fault}", cell)

    first = Column[int]("", lambda update: (f"  {DomainKind.UPDATE.short} {update}", ""))
    page.table(Table([first, *map(fault_domain, faults)], shown, gaps={3: ALWAYS}))
    if len(shown) < len(updates):
        page.put((f"  and {counted(len(updates) - len(shown), 'update domain')} more", "dim"))
    return len(shown)


def rollout(page: Page, plan: Plan) -> None:
    """Print the waves in their order, and the gates between them; nothing without a rollout."""
    spec = plan.rollout
    if spec is None:
        return
    gone = waves(plan.guests, spec)
    each = f"{counted(len(gone), 'wave')} of guests frozen together"
    page.labelled("rollout", f"{each}, {_way(plan, spec)}", label_style="bold", width=len("rollout"))
    if spec.shuffled and spec.seed is None:
        page.labelled("  order", "with a seed that the run chooses and records", label_style="", width=16)
    else:
        _waves(page, spec, gone)
    if spec.between_ns:
        text = f"{format_duration(spec.between_ns)} from the end of a wave to the next announcement"
        page.labelled("  between", text, label_style="", width=16)
    if spec.gates:
        page.labelled("  gates", _gates(spec), label_style="", width=16)
        for label, text in (_gate(gate, plan) for gate in spec.gates):
            page.labelled(f"    {label}", text, label_style="", width=16)
    else:
        page.labelled(
            "  gates", "none: only a cycle that cannot continue stops the rollout", label_style="", width=16
        )
    page.blank()


def _way(plan: Plan, spec: Rollout) -> str:
    """The order of the rollout in words."""
    order = (
        f"shuffled with seed {spec.seed}"
        if spec.seed is not None
        else "shuffled"
        if spec.shuffled
        else "in order"
    )
    one = f"one {spec.by.replace('-', ' ')}"
    if len({guest.availability_set for guest in plan.guests}) < 2:
        return f"{one} after another, {order}"
    if spec.together:
        return f"{one} of each availability set at a time, {order}"
    return f"{one} after another, {order}, set after set"


def _waves(page: Page, spec: Rollout, gone: Sequence[Wave]) -> None:
    shown = gone[:MOST_WAVES]

    def domains(most: int) -> Callable[[Wave], Piece]:
        def cell(wave: Wave) -> Piece:
            each = [f"{name} {spec.by.short} {number}" for name, number in wave.domains]
            more = f" and {len(each) - most} more" if len(each) > most else ""
            return ", ".join(each[:most]) + more, ""

        return cell

    def guests(most: int) -> Callable[[Wave], Piece]:
        return lambda wave: (listed(wave.guests, most), "")

    number = Column[Wave]("", lambda wave: (f"  {wave.number:>2}", "bold"), right=True)
    page.table(Table([number, _as_many_as_fit("", domains), _as_many_as_fit("", guests)], shown))
    if len(shown) < len(gone):
        page.put((f"  and {counted(len(gone) - len(shown), 'wave')} more", "dim"))


def _gates(spec: Rollout) -> str:
    whole = "all of these hold" if len(spec.gates) > 1 else "this holds"
    return f"after each wave, within {format_duration(spec.gate_within_ns)} {whole}, or the rollout stops:"


def _gate(gate: Gate, plan: Plan) -> tuple[str, str]:
    words = {
        GateKind.CLOCK: f"± {format_duration(plan.expectations.tolerance_ns)}",
        GateKind.COMMAND: gate.text,
        GateKind.HTTP: f"{gate.text} answers 2xx",
        GateKind.MEMBERS: "the set's other guests answer and pass the gates above",
    }
    asked = f" (in {listed(gate.on, 4)})" if gate.on else ""
    return gate.kind, f"{words[gate.kind]}{asked}"
