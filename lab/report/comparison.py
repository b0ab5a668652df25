"""Output of `freezelab compare`: what is worse first, then the figures with their differences, the verdicts
that changed, and what the numbers cannot show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from math import ceil, isfinite

from rich.console import Console

from lab.core.comparison import (
    Change,
    FigureChange,
    FigureKey,
    FigureKind,
    Level,
    RunComparison,
    RunFigures,
    RunMachine,
    VerdictChange,
)
from lab.core.quantities import (
    DOWN,
    NEAREST,
    UP,
    Rounding,
    format_at_latest,
    format_at_least,
    format_ms,
    format_rate,
)
from lab.core.units import NBSP
from lab.core.verdict import Outcome
from lab.record.model import Measure
from lab.report.cycles import VERDICTS
from lab.report.history import when
from lab.report.numbers import interval
from lab.report.page import Page
from lab.report.table import ALWAYS, Column, Piece, Table, forms
from lab.report.text import cleaned, counted, names, shortened

MOST_FIGURES = 20
"""With more, the figures within noise are counted and not listed."""

FIGURES: Mapping[FigureKind, str] = {
    FigureKind.PAUSE: "pause",
    FigureKind.OUTAGE: "outage",
    FigureKind.OFFSET_AT_RESUME: "offset at resume",
    FigureKind.FINAL_OFFSET: "final offset",
    FigureKind.IN_TIME: "in time after",
    FigureKind.DRIFT: "drift",
    FigureKind.WORKLOAD_OUTAGE: "outage of",
    FigureKind.WORKLOAD_RECOVERY: "recovery of",
    FigureKind.WORKLOAD_LATENCY: "latency p99 of",
    FigureKind.TOLERANCE: "tolerance of",
}
_CHANGES: Mapping[Change, Piece] = {
    Change.WORSE: ("WORSE", "bold red"),
    Change.BETTER: ("better", "green"),
    Change.NOISE: ("noise", "dim"),
    Change.BOUNDS: ("within bounds", "yellow"),
    Change.RUNS: ("within runs", "yellow"),
    Change.TOO_FEW: ("too few", "dim"),
}
_ELSEWHERE: Mapping[Change, Piece] = {
    Change.WORSE: ("differs", "yellow"),
    Change.BETTER: ("differs", "yellow"),
}
"""On another machine nothing is worse."""


def render_comparison(
    runs: Sequence[RunFigures], comparisons: Sequence[RunComparison], console: Console, *, every: bool = False
) -> None:
    """Print the runs, the baseline first, and each comparison. every: list all figures."""
    page = Page(console)
    runs, comparisons = cleaned(list(runs)), cleaned(list(comparisons))
    show_runs(page, runs)
    for comparison in comparisons:
        page.blank()
        show_comparison(page, comparison, titled=len(comparisons) > 1, every=every)


def show_runs(page: Page, runs: Sequence[RunFigures]) -> None:
    """The runs, and their medians side by side when there are more than two without a matrix."""
    rows = list(zip(_labels(runs), runs, strict=True))
    apart = not all(run.machine.is_same(runs[0].machine) for run in runs)
    machines = Column[tuple[str, RunFigures]](
        "machine", lambda row: (machine_text(row[1].machine), ""), rank=2
    )
    page.table(
        Table(
            [
                Column("", lambda row: (row[0], "dim")),
                forms(
                    Column("id", lambda row: (row[1].id, "bold"), rank=5),
                    Column("id", lambda row: (shortened(row[1].id, 34), "bold")),
                ),
                Column("when", lambda row: (when(row[1].started), ""), rank=1),
                Column("playbook", lambda row: (row[1].playbook, ""), rank=3),
                *([] if apart else [machines]),
                Column("outcome", lambda row: _outcome(row[1])),
            ],
            rows,
        )
    )
    if apart:
        for label, run in zip(_labels(runs), runs, strict=True):
            page.labelled(label, machine_text(run.machine))
    keys = list(dict.fromkeys(key for run in runs for key in run.figures))
    if len(runs) > 2 and not any(key.cell for key in keys):
        page.blank()
        first = Column[FigureKey]("median", lambda key: (_name(key.kind, key.subject), ""))
        sides = [
            Column[FigureKey](head, partial(_side, run), right=True)
            for head, run in zip(_labels(runs), runs, strict=True)
        ]
        page.table(Table([first, *sides], keys))


def _labels(runs: Sequence[RunFigures]) -> list[str]:
    return ["baseline", *(f"run {at}" for at in range(1, len(runs)))]


def _side(run: RunFigures, key: FigureKey) -> Piece:
    values = run.figures.get(key)
    return (level_text(key.kind, Level.of(values)), "") if values else ("–", "dim")


def _outcome(run: RunFigures) -> Piece:
    word, style = VERDICTS[run.outcome]
    return (word if run.complete else f"{word} (not complete)"), style


def machine_text(machine: RunMachine) -> str:
    """ "AMD EPYC, 2 CPUs, 24 GiB, a1b2c3d4"."""
    cpus = counted(machine.cpus, "CPU") if machine.cpus else ""
    return ", ".join(filter(None, [machine.cpu, cpus, f"{machine.memory_gib} GiB", machine.id[:8]]))


def show_comparison(
    page: Page, comparison: RunComparison, *, titled: bool = False, every: bool = False
) -> None:
    """One run beside its baseline."""
    lead = [f"run {comparison.run}"] if titled else []
    worse = comparison.is_worse
    page.parts([*lead, *headline(comparison)], first_style="bold red" if worse and not titled else "bold")
    if not comparison.same_machine:
        page.labelled(
            "machine",
            "another one than the baseline's: figures that differ may do so because of that",
            label_style="yellow",
        )
    if not comparison.same_playbook:
        page.labelled("playbook", "its content differs from the baseline's", label_style="yellow")
    for text in comparison.differs:
        page.labelled("differs", text)
    for label, cells in (("gone", comparison.only_before), ("new", comparison.only_after)):
        if cells and cells != ("",):
            page.labelled(label, f"{counted(len(cells), 'cell')}: {names(cells)}")
    _show_figures(page, comparison, every)
    _show_verdicts(page, comparison)
    for text in notes(comparison):
        page.labelled("note", text)


def headline(comparison: RunComparison) -> list[str]:
    """How many figures and verdicts are worse, and better, in short facts."""
    kinds = Counter(figure.change for figure in comparison.figures)
    up, down = kinds[Change.WORSE], kinds[Change.BETTER]
    figures = [f"{counted(up, 'figure')} worse", f"{down} better"]
    if not comparison.same_machine:
        figures = [f"{counted(up + down, 'figure')} of another machine by more than noise"]
    worse = len(comparison.worse_verdicts)
    verdicts = f"{counted(len(comparison.verdicts), 'verdict')} changed"
    if worse:
        verdicts += f", {worse} for the worse"
    return [verdicts, *figures] if worse and not comparison.regressed else [*figures, verdicts]


def _show_figures(page: Page, comparison: RunComparison, every: bool) -> None:
    figures = comparison.figures
    if not figures:
        page.labelled("figures", "none that both have", label_style="yellow")
        return
    shown = figures
    if len(figures) > page.most(MOST_FIGURES) and not every:
        quiet = (Change.NOISE, Change.TOO_FEW)
        shown = tuple(figure for figure in figures if figure.is_factor or figure.change not in quiet)
    page.blank()
    with_cells = any(figure.key.cell or figure.is_factor for figure in shown)
    levels = [
        Column[FigureChange]("cycles", _cycles, right=True, rank=1),
        Column[FigureChange]("before", lambda figure: _level(figure, figure.before), right=True, rank=3),
        Column[FigureChange]("after", lambda figure: _level(figure, figure.after), right=True, rank=4),
    ]
    columns = [
        Column[FigureChange](
            "figure", lambda figure: (_name(figure.key.kind, figure.key.subject), "bold"), rank=ALWAYS
        ),
        *(levels if any(figure.before is not None for figure in shown) else []),
        forms(
            Column[FigureChange]("difference", lambda figure: _difference(figure, True), right=True, rank=5),
            Column[FigureChange]("difference", lambda figure: _difference(figure, False), right=True),
        ),
        Column[FigureChange]("p", lambda figure: (_p(figure), "dim"), right=True, rank=2),
        Column[FigureChange]("", lambda figure: _change(figure, comparison.same_machine)),
    ]
    if with_cells:
        columns.insert(
            0,
            forms(
                Column("cell", _cell, rank=4.5),
                Column("cell", lambda figure: (shortened(_cell(figure)[0], 16), "")),
            ),
        )
    page.table(Table(columns, shown))
    if len(shown) < len(figures):
        kinds = Counter(figure.change for figure in figures if figure not in set(shown))
        page.parts(
            [
                f"not listed: {kinds[Change.NOISE]} within noise" if kinds[Change.NOISE] else "",
                f"{kinds[Change.TOO_FEW]} with too few cycles" if kinds[Change.TOO_FEW] else "",
                "--all lists them",
            ],
            style="dim",
        )


def _cell(figure: FigureChange) -> Piece:
    return ("all cells", "bold") if figure.is_factor else (figure.key.cell, "")


def _name(kind: FigureKind, subject: str) -> str:
    return f"{FIGURES[kind]} {subject}" if subject else FIGURES[kind]


def _cycles(figure: FigureChange) -> Piece:
    if figure.before is None or figure.after is None:
        return "", ""
    return f"{figure.before.count}, {figure.after.count}", "dim"


def _level(figure: FigureChange, level: Level | None) -> Piece:
    return ("", "") if level is None else (level_text(figure.key.kind, level), "")


def level_text(kind: FigureKind, level: Level) -> str:
    """ "12.1 ± 0.4 ms", "0.13 s" (at the latest), "over 8 s"."""
    if not isfinite(level.value):
        return f"over {format_at_least(int(level.low))}"
    if kind is FigureKind.IN_TIME:
        return format_at_latest(ceil(level.value))
    high = level.high if isfinite(level.high) else level.value
    if kind is FigureKind.DRIFT:
        return format_rate(level.value, level.low, high).removeprefix("+")
    if level.low == level.high:
        return f"{format_ms(level.value)} ms"
    text = interval(Measure(round(level.value), int(level.low), round(high)))
    return text if isfinite(level.high) else f"{text.partition(' ±')[0]} ms or more"


def _difference(figure: FigureChange, limits: bool) -> Piece:
    """ "+1.9 [+1.5, +2.3] ms", "× 1.38 [1.32, 1.42]"; "over +7876.0 ms" when one has no upper bound;
    with no more digits than the bounds of the two warrant."""
    found, style = figure.difference, "" if figure.change in (Change.WORSE, Change.BETTER) else "dim"
    bound = max((_half(level) for level in (figure.before, figure.after) if level is not None), default=0)

    def number(value: float, rounding: Rounding = NEAREST) -> str:
        if not isfinite(value):
            return "∞" if value > 0 else "-∞"
        if figure.is_factor:
            return f"{value:.2f}"
        if figure.key.kind is FigureKind.DRIFT:
            digits = 0 if bound >= 10 else 1
            return f"{rounding.to(round(value * 10**6), 10 ** (6 - digits)) / 10**digits:+.{digits}f}"
        return format_ms(value, rounding, "+", bound)

    unit = "" if figure.is_factor else " ppm" if figure.key.kind is FigureKind.DRIFT else " ms"
    times = "× " if figure.is_factor else ""
    if not isfinite(found.value):
        word, limit = ("over", found.low) if found.value > 0 else ("under", found.high)
        known = limit is not None and isfinite(limit)
        return f"{word} {times}{number(limit)}{unit}" if limit is not None and known else "–", style
    text = f"{times}{number(found.value)}"
    if limits and found.low is not None and found.high is not None:
        text += f" [{number(found.low, DOWN)}, {number(found.high, UP)}]"
    return f"{text}{unit}", style


def _half(level: Level) -> float:
    """Half the width of what the level is known to; 0 without a bound."""
    return (level.high - level.low) / 2 if isfinite(level.high) else 0


def _p(figure: FigureChange) -> str:
    if figure.p is None:
        return "–"
    return "< 0.001" if figure.p < 0.001 else f"{figure.p:.3f}"


def _change(figure: FigureChange, same_machine: bool) -> Piece:
    words = _CHANGES if same_machine else {**_CHANGES, **_ELSEWHERE}
    return words[figure.change]


def _show_verdicts(page: Page, comparison: RunComparison) -> None:
    if not comparison.verdicts:
        return
    page.blank()
    ordered = sorted(comparison.verdicts, key=lambda verdict: not verdict.worse)
    shown = ordered[: page.most(MOST_FIGURES)]
    page.table(
        Table(
            [
                Column("verdict of", _whose, rank=4),
                forms(
                    Column("check", lambda one: (f"{one.key.metric}: {one.key.expectation}", ""), rank=1),
                    Column("check", lambda one: (one.key.metric, "")),
                ),
                Column("before", lambda one: (_outcomes(one.before), "")),
                Column("after", lambda one: (_outcomes(one.after), "")),
                Column("", lambda one: ("WORSE", "bold red") if one.worse else ("better", "green")),
            ],
            shown,
        )
    )
    if len(shown) < len(ordered):
        page.parts([f"and {len(ordered) - len(shown)} more: --json has all"], style="dim")


def _whose(one: VerdictChange) -> Piece:
    return " · ".join(filter(None, [one.key.cell, one.key.guest])) or "the run", "bold"


def _outcomes(counts: Mapping[Outcome, int]) -> str:
    """ "failed 3, passed 7"; one cycle has no number."""
    if not counts:
        return "not checked"
    if sum(counts.values()) == 1:
        return next(iter(counts)).value
    return ", ".join(f"{outcome.value} {count}" for outcome, count in counts.items())


def notes(comparison: RunComparison) -> list[str]:
    """What a reader has to know of the test, in sentences."""
    found = []
    kinds = Counter(figure.change for figure in comparison.figures)
    if few := [figure for figure in comparison.figures if figure.change is Change.TOO_FEW]:
        sizes = sorted({f"{f.before.count} and {f.after.count}" for f in few if f.before and f.after})
        needed = few[0].needed
        cycles = "cycle" if sizes == ["1 and 1"] else "cycles"
        found.append(
            f"{' or '.join(sizes[:3])} {cycles} of a figure cannot show any difference; {needed} in each run "
            "could"
        )
    if kinds[Change.BOUNDS]:
        found.append("within bounds: the values differ by more than noise, but not once their bounds count")
    if kinds[Change.RUNS]:
        found.append("within runs: a run of the baseline was as far off")
    if comparison.tests:
        tested = "1 figure was tested" if comparison.tests == 1 else f"{comparison.tests} figures were tested"
        corrected = "" if comparison.tests == 1 else ", and p is corrected for that (Holm)"
        found.append(
            f"{tested}{corrected}: any false alarm has a probability of at most 5{NBSP}%. Intervals are of "
            f"95{NBSP}% each. A difference says that the runs differ, not why: the cycles of one run share "
            "its boot and its host's load"
        )
    return found
