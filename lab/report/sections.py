"""The sections below the table: budget, closure, resync curve, drift, statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.cells import cell_len

from lab.core.clock import Interval
from lab.core.clock_disturbance import BUSY_SHARE
from lab.core.drift import Drift
from lab.core.quantities import (
    UP,
    format_at_latest,
    format_edge,
    format_length,
    format_magnitude,
    format_ms,
    format_seconds,
    format_step,
)
from lab.core.units import NS_PER_S, format_duration
from lab.record.model import CycleRecord, PointRecord, ResyncRecord, Run
from lab.report.claims import show_claims
from lab.report.curve import show_curve
from lab.report.cycles import Row, rows_of
from lab.report.depth import show_depth
from lab.report.effects import show_effects
from lab.report.exchange import show_exchange
from lab.report.migration import show_migrations
from lab.report.numbers import (
    FINE_PPM,
    NOT_MEASURED,
    bar,
    drift,
    known_to,
    leftover,
    size,
    wanted_window,
)
from lab.report.page import LABEL, Page
from lab.report.resyncs import TOLERANCE_NS, out_again_ns, verdict, watched_ns
from lab.report.stalls import show_stalls
from lab.report.statistics import show_statistics
from lab.report.table import Piece
from lab.report.text import counted, names

LEAST_PLOT = 64
"""A narrower page has no plot."""
MOST_GUESTS = 4
"""With more guests than this, only the most notable one is printed."""


def show_details(page: Page, run: Run) -> None:
    """Print all sections for which the run has data."""
    rows = [row for row in rows_of(run) if row.cycle is not None and not row.cycle.control]
    paused = [row for row in rows if row.cycle is not None and row.cycle.frozen]
    cycles = [row.cycle for row in paused if row.cycle is not None]
    if cycles:
        show_budget(page, run, paused)
        _closure(page, run, paused, cycles)
    if rows and not run.cells:
        _resync(page, run, rows)
        show_drift(page, run)
    show_claims(page, run)
    show_effects(page, run)
    show_exchange(page, run)
    show_stalls(page, run)
    show_migrations(page, run)
    _noise(page, run)
    _busy_host(page, run)
    _clocksources(page, run)
    show_depth(page, run)
    if not run.cells:
        _boot(page, run)
    show_statistics(page, run, [s for s in run.statistics if s.kind != "step"])


def _whose(run: Run, row: Row) -> str:
    """The name of a row, as far as there are several."""
    parts = [row.guest.cell] if row.guest.cell else []
    parts += [row.guest.name] if len({guest.name for guest in run.guests}) > 1 else []
    if row.cycle is not None and any(len(guest.cycles) > 1 for guest in run.guests):
        parts.append(f"cycle {row.cycle.index}")
    return ", ".join(parts)


def _with(text: str, whose: str) -> str:
    return f"{text} ({whose})" if whose else text


def show_budget(page: Page, run: Run, rows: Sequence[Row]) -> None:
    """Print how much of the budget was used, at most. rows: cycles with a freeze, at least one."""
    used, row = max(
        ((row.cycle.used_ns, row) for row in rows if row.cycle and row.cycle.used_ns is not None),
        key=lambda pair: pair[0] or 0,
        default=(None, rows[0]),
    )
    limit = row.cycle.budget_ns if row.cycle is not None else 0
    text = f"{format_duration(limit)}"
    if used is None:
        page.labelled("budget", f"{text}, used: {NOT_MEASURED}", style="yellow")
        return
    used_text = f"{format_seconds(used, 2, UP)} used"
    if len(rows) > 1:
        used_text = _with(f"{used_text} at most", _whose(run, row))
    over = used > limit
    if not page.draws:
        page.labelled("budget", f"{text}, {used_text}{', OVER' if over else ''}")
        return
    full, free = bar(used / max(1, limit), max(8, min(40, page.width - 62)))
    lead: list[Piece] = [(f"{text}  ", ""), (full, "red" if over else "cyan"), (free, "dim"), ("  ", "")]
    page.labelled(
        "budget", f"{used_text}{', OVER' if over else ''}", before=lead, style="bold red" if over else ""
    )


def _closure(page: Page, run: Run, rows: Sequence[Row], cycles: Sequence[CycleRecord]) -> None:
    known = [row for row in rows if row.cycle and row.cycle.closure_ns is not None and row.cycle.closure]
    if not known:
        page.labelled("closure", f"{NOT_MEASURED}: only the hypervisor bounds the pause", style="yellow")
        return
    open_ones = [row for row in known if row.cycle and not row.cycle.closes]
    row = max(open_ones or known, key=lambda r: abs((r.cycle.closure_ns or 0) if r.cycle else 0))
    cycle = row.cycle
    if cycle is None or cycle.closure_ns is None or cycle.closure is None:
        return
    text = leftover(cycle.closure_ns, cycle.closure)
    if len(rows) > 1:
        closing = sum(c.closes for c in cycles)
        count = "all" if closing == len(cycles) else f"{closing} of {len(cycles)}"
        text = f"{count} close; worst {', '.join(filter(None, [text, _whose(run, row)]))}"
    else:
        text = f"{text}; witnesses: {', '.join(cycle.agreeing) or 'none'}"
    page.labelled("closure", text, style="yellow" if open_ones or len(known) < len(rows) else "")


def _slowest(rows: Sequence[Row]) -> Row | None:
    def key(row: Row) -> tuple[int, int, int]:
        resync = row.cycle.resync if row.cycle else None
        final = row.cycle.offset.final if row.cycle else None
        off = abs(final.value_ns) if final else 0
        if resync is None:
            return -1, 0, 0
        return ["synced", "undecided", "not synced"].index(resync.outcome), resync.time_ns or 0, off

    known = [row for row in rows if row.cycle and row.cycle.resync]
    return max(known, key=key, default=None)


def _resync(page: Page, run: Run, rows: Sequence[Row]) -> None:
    """Print one curve for each of a few guests, that of its slowest cycle; for more guests that of the
    slowest cycle of all."""
    groups = [list(rows)]
    if len(run.guests) <= MOST_GUESTS:
        groups = [[row for row in rows if row.guest.name == guest.name] for guest in run.guests]
    label = "resync"
    wide = max(cell_len(guest.name) for guest in run.guests)
    for group in groups:
        row = _slowest(group)
        if row is None or row.cycle is None or row.cycle.resync is None:
            continue
        text, lead = resync_line(page, row.cycle.resync, row.cycle), list[Piece]()
        alone = len(rows) == 1
        if len(group) > 1:
            word = "slowest" if row.cycle.resync.time_ns is not None else "worst"
            text = _with(text, f"{word}: {_whose(run, row)}")
        elif row.cycle.resync.said:
            text += f"; {row.cycle.resync.said}"
            if row.cycle.resync.said.startswith("failed") and row.cycle.resync.correction == "step":
                text += "; the clock was set nevertheless"
        if len(groups) > 1:
            lead = [(row.guest.name.ljust(wide + 2), "")]
        page.labelled(label, text, before=lead)
        if alone:
            _alone(page, row.cycle, row.cycle.resync)
        label = ""


def _alone(page: Page, cycle: CycleRecord, resync: ResyncRecord) -> None:
    """Print the curve of a single cycle, the times at which it reached each distance, and the forecast."""
    if page.draws and page.width >= LEAST_PLOT:
        points, shown = drawn_points(cycle, resync)
        show_curve(page, points, resync.steps or (), shown, resync.tolerance_ns or TOLERANCE_NS, LABEL)
    if resync.reached:
        known = [f"{format_edge(r.limit_ns)} {_reached(r.time)}" for r in resync.reached]
        page.labelled("reached", f"within {', '.join(known)}")
    forecast = resync.forecast
    if forecast is not None:
        text, style = verdict(forecast)
        if text.endswith(forecast.text):  # undecided, for what its text says
            page.labelled("predicted", text, style=style)
        else:
            page.labelled("predicted", forecast.text, before=[(text, style), ("  ", "")])


def _reached(time: Interval | None) -> str:
    if time is None:
        return "not reached"
    return f"after {format_at_latest(time.high_ns)}" if time.high_ns else "at once"


def drawn_points(cycle: CycleRecord, resync: ResyncRecord) -> tuple[list[PointRecord], int]:
    """The points of a curve that are drawn, the offset at the resume first, and the end of the plot."""
    first, watched = cycle.offset.at_resume, watched_ns(resync)
    start = [PointRecord(0, first.low_ns, first.high_ns)] if first else []
    shown = watched
    if resync.time_ns is not None:
        shown = min(watched, max(4 * resync.time_ns, 2 * (out_again_ns(resync) or 0), NS_PER_S))
    return [*start, *resync.curve], shown


def _steps(resync: ResyncRecord, bound_ns: int) -> str:
    """ "one step of +6 001.9 ms", "4 steps, the largest of +6 001.9 ms"; "a step" when steps were not
    counted by the guest itself. bound_ns: how well a step is known then, which is from offsets alone."""
    known = 0 if resync.steps else bound_ns
    largest = "" if resync.step_ns is None else f" of {format_step(resync.step_ns, known)}"
    count = len(resync.steps) if resync.steps else 0
    if count > 1:
        return f"{count} steps, the largest{largest}"
    return f"{'one' if count else 'a'} step{largest}"


def resync_line(page: Page, resync: ResyncRecord, cycle: CycleRecord) -> str:
    """ "6.0 s to 9.4 ms in 21 ms, one step of +6 001.9 ms"."""
    arrow = "→" if page.draws else "to"
    first, final = cycle.offset.at_resume, cycle.offset.final
    if first is None and final is None:
        return NOT_MEASURED
    start, end = size(first), size(final)
    if resync.time_ns is not None:
        text = f"{start} {arrow} {end}, in time after {format_at_latest(resync.time_ns)}"
        if (out := out_again_ns(resync)) is not None:
            text += f", out again until {format_length(out)}"
    else:
        word = "not in time" if resync.outcome == "not synced" else resync.outcome
        text = f"{start} {arrow} {end}, {word} after {format_length(watched_ns(resync))}"
    steps = _steps(resync, known_to(first) + known_to(final))
    moved = {"step": steps, "slew": "slewed", "step and slew": f"slewed, and {steps}"}
    if resync.correction in moved:
        text += f", {moved[resync.correction]}"
    if resync.slew_ppm is not None and resync.correction in ("slew", "step and slew"):
        text += f" at up to {abs(resync.slew_ppm) / 1000:.3g} ms/s"
    return text


def _hull(given: Sequence[Drift]) -> Drift | None:
    """The hull of all drifts. Its window is the shortest one."""
    if not given:
        return None
    low, high = min(d.low for d in given), max(d.high for d in given)
    if len(given) == 1:
        return given[0]
    return Drift((low + high) / 2, low, high, min(d.window_ns for d in given))


def _over(rate: Drift | None, many: bool) -> str:
    return drift(rate) if rate is None or many else f"{drift(rate)} over {format_length(rate.window_ns)}"


def show_drift(page: Page, run: Run) -> None:
    """Print the drift of each guest, before and after the freeze, with its window."""
    label = "drift"
    groups = [(guest.name, [c for c in guest.cycles if not c.control]) for guest in run.guests]
    if len(groups) > MOST_GUESTS:
        groups = [("", [cycle for _, cycles in groups for cycle in cycles])]
    for name, cycles in groups:
        if not cycles:
            continue
        many = len(cycles) > 1
        before = _hull([c.drift.before for c in cycles if c.drift.before])
        after = _hull([c.drift.after for c in cycles if c.drift.after])
        text = f"{_over(before, many)} before, {_over(after, many)} after"
        if many:
            text += f", in all {len(cycles)} cycles"
        window = wanted_window(after) if after else None
        if window is not None:
            text += f"; ± {FINE_PPM:g} ppm needs {format_length(window)}"
        if before is None and after is None:
            text = NOT_MEASURED
        page.labelled(label, f"{name}: {text}" if len(groups) > 1 else text)
        label = ""


def _noise(page: Page, run: Run) -> None:
    control = [cycle for guest in run.guests for cycle in guest.cycles if cycle.control]
    if not control:
        return
    closures = [max(abs(c.closure.low_ns), abs(c.closure.high_ns)) for c in control if c.closure is not None]
    bounds = [
        (c.offset.before.high_ns - c.offset.before.low_ns) // 2
        for c in control
        if c.offset.before is not None
    ]
    text = f"lag without a pause {f'at most {format_ms(max(closures), UP)} ms' if closures else NOT_MEASURED}"
    text += f", offsets known to {f'± {format_ms(max(bounds), UP)} ms' if bounds else NOT_MEASURED}"
    page.labelled("noise", f"{text} ({counted(len(control), 'control cycle')})")


def _busy_host(page: Page, run: Run) -> None:
    """Print how long QEMU waited for a CPU, where that is more than on an idle host."""
    shares = [c.cpu_wait_share for g in run.guests for c in g.cycles if c.cpu_wait_share is not None]
    if not shares or max(shares) < BUSY_SHARE:
        return
    least = f"{min(shares) * 100:.0f} to " if len(shares) > 1 else ""
    text = (
        f"QEMU waited for a CPU for {least}{max(shares) * 100:.0f} % of the time, which may delay corrections"
    )
    if stolen := max((c.steal_ns or 0 for g in run.guests for c in g.cycles), default=0):
        text += f"; a guest's kernel counted {format_magnitude(stolen)} as stolen"
    page.labelled("busy host", text, style="dim")


def _clocksources(page: Page, run: Run) -> None:
    """Print the guests' clocksources before their first pause."""
    known: dict[str, dict[str, None]] = {}
    for guest in run.guests:
        first = next((cycle.clocksource for cycle in guest.cycles if cycle.clocksource is not None), None)
        if first is not None and first.before:
            known.setdefault(first.before, {})[guest.name] = None
    if len(known) == 1:
        page.labelled("clocksource", next(iter(known)), style="dim")
    elif known:
        sources = [f"{name} ({names(list(who))})" for name, who in known.items()]
        page.labelled("clocksource", ", ".join(sources), style="dim")


def _boot(page: Page, run: Run) -> None:
    times: dict[str, list[str]] = {}
    for guest in run.guests:
        facts = [_timing(name, value) for name, value in guest.boot.items() if not name.startswith(_STARTED)]
        if facts:
            how = _started(guest.boot)
            times.setdefault(f"{how}{': ' if how else ''}{', '.join(facts)}", []).append(guest.name)
    if not times:
        return
    several = len(run.guests) > 1
    shown = [f"{names(who)} {what}" if several else what for what, who in times.items()]
    more = len(shown) - MOST_GUESTS
    shown = [*shown[:MOST_GUESTS], *([f"{more} more"] if more > 0 else [])]
    page.labelled("boot", "; ".join(shown), style="dim")


_STARTED = ("started", "because", "domain", "uuid", "vcpus", "memory_bytes", "probe")
"""How the names begin of what is no time of a start."""


def _started(boot: Mapping[str, object]) -> str:
    """How a guest was started; "" in histories of an older version."""
    if boot.get("started") == "golden":
        return "from a golden guest"
    if boot.get("started") == "cold":
        return f"booted, because {boot['because']}" if boot.get("because") else "booted"
    if boot.get("started") == "own":
        return f"domain {boot.get('domain', '')}, which ran already"
    return ""


_UNITS: dict[str, Callable[[float], str]] = {
    "_ns": format_magnitude,
    "_s": lambda v: f"{v:.1f} s",
    "_ms": lambda v: f"{v:.0f} ms",
}


_PLACES = {
    "to_probe_s": "to the probe",
    "to_ssh_s": "to SSH",
    "from_golden_s": "to its identity",
    "set_up_s": "for the set-up",
}


def _timing(name: str, value: object) -> str:
    """ "to_probe_s": 18.03 -> "18.0 s to the probe"."""
    if name == "clock_within_ms" and isinstance(value, int | float):
        return f"clock set to ± {value:.0f} ms"
    for suffix, shown in _UNITS.items():
        if name.endswith(suffix) and isinstance(value, int | float):
            return f"{shown(value)} {_PLACES.get(name, name.removesuffix(suffix).replace('_', ' '))}"
    return f"{name.replace('_', ' ')} {value}"
