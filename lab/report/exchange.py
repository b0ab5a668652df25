"""Hand-overs and patches: what was replaced under the guests, whether their memory is the same, and QEMU's
own stamps."""

from __future__ import annotations

from collections.abc import Sequence

from lab.core.quantities import format_magnitude, format_pages
from lab.record.model import CycleRecord, Run
from lab.report.numbers import interval, known_to
from lab.report.page import Page
from lab.report.text import counted

MOST_STEPS = 12
MOST_KINDS = 4

CUT = "user-mode networking cut connections, the freeze did not"


def show_exchange(page: Page, run: Run) -> None:
    cycles = [c for guest in run.guests for c in guest.cycles if not c.control]
    if not cycles:
        return
    _stamps(page, cycles)
    _patch_steps(page, cycles, "" if _patch(page, cycles) else "patch")
    _memory(page, cycles)
    cut = sum(c.cut and c.frozen for c in cycles)  # that a reboot cuts them needs no telling
    if cut:
        text = CUT if cut == len(cycles) else f"{CUT} ({counted(cut, 'cycle')})"
        page.labelled("note", text)


def _stamps(page: Page, cycles: Sequence[CycleRecord]) -> None:
    """Print how the pause compares with QEMU's own stamps, which lie inside of it."""
    pairs = [
        (stamps, felt)
        for stamps, felt in ((c.stamps, c.felt or c.pause) for c in cycles)
        if stamps is not None and felt is not None
    ]
    if not pairs:
        return
    # QEMU stamps RESUME before the guest runs: what is between its stamps is less than the pause, never more.
    below = sum(s.low_ns <= felt.high_ns for s, felt in pairs)
    apart = sorted(felt.value_ns - (s.low_ns + s.high_ns) // 2 for s, felt in pairs)
    middle = apart[len(apart) // 2]
    known = sorted(known_to(felt) for _, felt in pairs)[len(pairs) // 2]
    style = "" if below == len(pairs) else "yellow"
    more = f"{format_magnitude(middle, known)} {'less' if middle >= 0 else 'more'} than the pause"
    if len(pairs) == 1:
        where = "" if below else ", which CONTRADICTS it"
    else:
        share = "all" if below == len(pairs) else f"{below} of"
        where = f" at the median; it is a lower bound in {share} {counted(len(pairs), 'cycle')}"
    page.labelled("stamps", f"QEMU's own RESUME - STOP is {more}{where}", style=style)


def change(before: str, after: str) -> str:
    """ "QEMU 7.2.22 → 10.0.2": a common beginning is printed once."""
    if before == after or not (before and after):
        return f"{before or after}, the same" if before == after else (after or before)
    one, two = before.split(), after.split()
    same = 0
    while same < min(len(one), len(two)) - 1 and one[same] == two[same]:
        same += 1
    return f"{before} → {' '.join(two[same:])}"


def _patch(page: Page, cycles: Sequence[CycleRecord]) -> bool:
    """Print patches that changed something or were not ordinary. True if there were any."""
    kinds: dict[str, int] = {}
    for cycle in cycles:
        changed = change(cycle.version_before, cycle.version_after) if cycle.version_after else ""
        ordinary = not changed and cycle.patch_impact == "freeze"
        if not ordinary:
            impact = "" if cycle.patch_impact == "freeze" else f" (class {cycle.patch_impact})"
            text = f"{cycle.patch}{impact}" + (f": {changed}" if changed else "")
            kinds[text] = kinds.get(text, 0) + 1
    label = "patch"
    for text, count in list(kinds.items())[:MOST_KINDS]:
        page.labelled(label, f"{text}, in {counted(count, 'cycle')}" if len(cycles) > 1 else text)
        label = ""
    if len(kinds) > MOST_KINDS:
        page.labelled("", f"and {len(kinds) - MOST_KINDS} more")
    return bool(kinds)


def _patch_steps(page: Page, cycles: Sequence[CycleRecord], label: str) -> None:
    """Print the patch's steps in the cycle in which they took longest."""
    known = [c for c in cycles if c.patch_steps]
    if not known:
        return
    slowest = max(known, key=lambda c: sum(step.length_ns for step in c.patch_steps))
    steps = slowest.patch_steps
    shown = sorted(steps, key=lambda step: -step.length_ns)[:MOST_STEPS]
    texts = [f"{step.name} {format_magnitude(step.length_ns)}" for step in steps if step in shown]
    if len(steps) > len(shown):
        texts.append(f"{len(steps) - len(shown)} shorter ones")
    which = f"cycle {slowest.index}: " if len(known) > 1 else ""
    page.labelled(label, which + " · ".join(texts))


def _memory(page: Page, cycles: Sequence[CycleRecord]) -> None:
    known = [(c.memory, c) for c in cycles if c.memory is not None]
    if not known:
        return
    memory, worst = max(known, key=lambda pair: (pair[0].differ, pair[0].cost_ns))
    same = memory.differ == 0 and memory.before == memory.after
    text = format_pages(memory.pages, memory.held, memory.differ, memory.rewritten)
    if len(known) > 1:
        text += f", the worst of {counted(len(known), 'cycle')}"
    text += f"; the digests took {format_magnitude(memory.cost_ns)}, which is not part of the pause"
    if worst.felt is not None and len(known) == 1:
        text += f" (with them: {interval(worst.felt)})"
    page.labelled("memory", text, style="" if same else "bold red")
