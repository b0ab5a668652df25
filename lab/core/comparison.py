"""Runs compared: which figures differ by more than noise, and which verdicts changed.

A figure is a magnitude of which less is better: a pause, an offset, a time until in time; of the longest
pause that a workload tolerates, more is. Its values are one for each cycle with a freeze: the worst guest's,
because guests that are frozen together share what the host does at that time, and are no repetitions. `shift`
has the test. The probability of any false alarm in a comparison is at most 5 %, over all of its figures
together.

Cycles of one run also share its boot, its host's load and its day. So the difference of two runs says that
they differ, not why. Of a baseline of several runs, more is known: a figure has changed only if the new run's
median lies beyond that of every run of the baseline, too.

Runs of different machines are never one sample: a baseline is reduced to the runs of one machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from lab.core.benchmark import Bounded
from lab.core.shift import ALPHA, Shift, can_reject, enough, holm, shift
from lab.core.stats import bounded_quantile
from lab.core.verdict import Outcome

ACCELERATOR = "accelerator"
"""The member of a run's setting by which runs of one machine are kept apart."""


class FigureKind(StrEnum):
    """The figures that cycles are compared by. All but DRIFT are nanoseconds."""

    PAUSE = "pause"
    OUTAGE = "outage"
    OFFSET_AT_RESUME = "offset-at-resume"
    FINAL_OFFSET = "final-offset"
    IN_TIME = "in-time"
    DRIFT = "drift"
    WORKLOAD_OUTAGE = "workload-outage"
    WORKLOAD_RECOVERY = "workload-recovery"
    WORKLOAD_LATENCY = "workload-latency"
    TOLERANCE = "tolerance"

    @property
    def unit(self) -> str:
        return "ppm" if self is FigureKind.DRIFT else "ns"

    @property
    def more_is_better(self) -> bool:
        return self is FigureKind.TOLERANCE


@dataclass(frozen=True)
class RunMachine:
    """The machine of a run. id: a digest of its machine-id(5), "" in older records."""

    id: str = ""
    cpu: str = ""
    cpus: int = 0
    memory_gib: int = 0

    def is_same(self, other: RunMachine) -> bool:
        """Whether it is the same one, as far as the records tell."""
        alike = replace(self, id="") == replace(other, id="")
        return alike and (self.id == other.id or not (self.id and other.id))


@dataclass(frozen=True, order=True)
class FigureKey:
    """cell: of the matrix, "" without one. subject: the workload, "" for a figure of guests."""

    cell: str
    kind: FigureKind
    subject: str = ""


@dataclass(frozen=True, order=True)
class VerdictKey:
    """What was checked. guest, cell: "" for the whole run."""

    cell: str
    guest: str
    metric: str
    expectation: str


@dataclass(frozen=True)
class RunFigures:
    """What is compared of a run. id: of a run of the state folder its folder's name, by which commands find
    it. setting: what may differ on one machine, by name. figures: a value for each cycle. verdicts: the
    outcomes of each check, one for each cycle. cells: the outcome of each cell that the plan has; without a
    matrix that of the run, as ""."""

    id: str
    playbook: str
    digest: str
    started: str
    outcome: Outcome
    machine: RunMachine = RunMachine()
    setting: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[FigureKey, Sequence[Bounded]] = field(default_factory=dict)
    verdicts: Mapping[VerdictKey, Sequence[Outcome]] = field(default_factory=dict)
    cells: Mapping[str, Outcome] = field(default_factory=dict)
    complete: bool = True


class Change(StrEnum):
    """WORSE, BETTER: more than noise. BOUNDS: the values differ by more than noise, their bounds do not.
    RUNS: the cycles differ by more than noise, but not from every run of the baseline. TOO_FEW: so few cycles
    cannot show any difference."""

    WORSE = "worse"
    BETTER = "better"
    NOISE = "noise"
    BOUNDS = "within bounds"
    RUNS = "within runs"
    TOO_FEW = "too few"


@dataclass(frozen=True)
class Level:
    """A figure in one run or baseline: the median over its cycles. low, high: the hull of the bounds of its
    95 % limits, or of all values where there are too few for limits. Infinite: never."""

    count: int
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[Bounded]) -> Level:
        """Of one value or more."""
        middle = bounded_quantile(values, 0.5)
        low = min(v[0] for v in values) if middle.low is None else middle.low
        high = max(v[2] for v in values) if middle.high is None else middle.high
        return cls(len(values), middle.value, low, high)


@dataclass(frozen=True)
class FigureChange:
    """A figure, compared. key.cell "" in a matrix: all cells together, and then the difference is a factor.
    before, after: None for all cells together. p: corrected for the number of tests; None: not tested.
    needed: how many cycles each side needs to show a difference, when these are too few; else 0."""

    key: FigureKey
    before: Level | None
    after: Level | None
    difference: Shift
    change: Change
    p: float | None = None
    is_factor: bool = False
    needed: int = 0


@dataclass(frozen=True)
class VerdictChange:
    """A check whose worst outcome changed. before, after: how often each outcome came, the worst first;
    empty: it was not checked. worse: it is worse now, or was not checked any more in the same playbook."""

    key: VerdictKey
    before: Mapping[Outcome, int]
    after: Mapping[Outcome, int]
    worse: bool


@dataclass(frozen=True)
class RunComparison:
    """A run beside its baseline. baseline: the ids of the runs that were used; left_out: of those that were
    not, and why. differs: what of the setting differs, "what: before, after". same_machine: False: no figure
    says which of the two runs is better, only that the machines differ. tests: how many figures were tested.
    """

    baseline: tuple[str, ...]
    run: str
    same_machine: bool
    same_playbook: bool
    differs: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    figures: tuple[FigureChange, ...] = ()
    verdicts: tuple[VerdictChange, ...] = ()
    only_before: tuple[str, ...] = ()
    only_after: tuple[str, ...] = ()
    tests: int = 0

    @property
    def regressed(self) -> tuple[FigureChange, ...]:
        """Figures that are worse, by more than noise. None on another machine: that is no regression."""
        return tuple(f for f in self.figures if f.change is Change.WORSE and self.same_machine)

    @property
    def worse_verdicts(self) -> tuple[VerdictChange, ...]:
        return tuple(verdict for verdict in self.verdicts if verdict.worse)

    @property
    def is_worse(self) -> bool:
        """A figure is worse, on one machine, or a verdict is, on any."""
        return bool(self.regressed or self.worse_verdicts)


def comparable(one: RunFigures, other: RunFigures) -> bool:
    """True for runs of one playbook, by its name or its content, and for matrices with a cell in common."""
    same = one.playbook == other.playbook or bool(one.digest and one.digest == other.digest)
    return same or bool((one.cells.keys() & other.cells.keys()) - {""})


def compare_runs(baseline: Sequence[RunFigures], run: RunFigures) -> RunComparison:
    """The run beside its baseline, of which those on the run's machine and accelerator count; if there is
    none, the first alone. ValueError when none of the baseline is comparable."""
    apart = [_apart(one, run) for one in baseline]
    used = [one for one, why in zip(baseline, apart, strict=True) if not why]
    if not used:
        used = [one for one in baseline if comparable(one, run)][:1]
    if not used:
        raise ValueError("no run of the same playbook, and no cell with the same id")
    left_out = [(one.id, why) for one, why in zip(baseline, apart, strict=True) if one not in used]
    cells_before = set[str]().union(*(one.cells for one in used))
    figures, tests = _figures(used, run)
    return RunComparison(
        tuple(one.id for one in used),
        run.id,
        used[0].machine.is_same(run.machine),
        all(one.digest == run.digest for one in used),
        tuple(_settings(used, run)),
        tuple(left_out),
        figures,
        tuple(_verdicts(used, run)),
        tuple(sorted(cells_before - run.cells.keys())),
        tuple(sorted(run.cells.keys() - cells_before)),
        tests,
    )


def _apart(one: RunFigures, run: RunFigures) -> str:
    """Why a run of the baseline is not pooled with others for this run; "" when it is."""
    if not comparable(one, run):
        return "another playbook"
    if not one.machine.is_same(run.machine):
        return "another machine"
    if one.setting.get(ACCELERATOR) != run.setting.get(ACCELERATOR):
        return "another accelerator"
    return ""


def _settings(used: Sequence[RunFigures], run: RunFigures) -> Iterator[str]:
    for name, after in run.setting.items():
        before = dict.fromkeys(one.setting.get(name, "") for one in used)
        if list(before) != [after]:
            yield f"{name}: {', '.join(value or 'unknown' for value in before)}, then {after or 'unknown'}"


def _figures(used: Sequence[RunFigures], run: RunFigures) -> tuple[tuple[FigureChange, ...], int]:
    """The figures that both sides have, each cell's and those of all cells together; the number of tests."""
    pooled: dict[FigureKey, list[Bounded]] = {}
    for one in used:
        for key, values in one.figures.items():
            pooled.setdefault(key, []).extend(values)
    keys = [key for key, values in run.figures.items() if values and pooled.get(key)]
    made: list[FigureChange] = []
    for kind, subject in dict.fromkeys((key.kind, key.subject) for key in keys):
        cells = [key for key in keys if (key.kind, key.subject) == (kind, subject)]
        if len(cells) > 1:
            together = shift([(pooled[key], run.figures[key]) for key in cells], ratio=True)
            if together is not None:
                made.append(
                    FigureChange(
                        FigureKey("", kind, subject), None, None, together, Change.NOISE, is_factor=True
                    )
                )
        for key in cells:
            found = shift([(pooled[key], run.figures[key])])
            if found is not None:
                before, after = Level.of(pooled[key]), Level.of(run.figures[key])
                made.append(FigureChange(key, before, after, found, Change.NOISE))
    chosen, level = can_reject([figure.difference.least_p for figure in made])
    needed = enough(level)
    tested = [figure for figure, can in zip(made, chosen, strict=True) if can]
    ps = iter(
        zip(
            holm([figure.difference.p for figure in tested]),
            holm([figure.difference.p_value for figure in tested]),
            strict=True,
        )
    )
    done = tuple(
        _judged(figure, *next(ps), used, run)
        if can
        else replace(figure, change=Change.TOO_FEW, needed=needed)
        for figure, can in zip(made, chosen, strict=True)
    )
    return done, len(tested)


def _judged(
    figure: FigureChange, p: float, p_value: float, used: Sequence[RunFigures], run: RunFigures
) -> FigureChange:
    difference = figure.difference
    change = Change.NOISE
    if p <= ALPHA:
        up = difference.p_up < difference.p_down
        change = Change.BETTER if up is figure.key.kind.more_is_better else Change.WORSE
        if not _beyond_each_run(figure, used, run, up=up):
            change = Change.RUNS
    elif p_value <= ALPHA:
        change = Change.BOUNDS
    return replace(figure, change=change, p=p)


def _beyond_each_run(figure: FigureChange, used: Sequence[RunFigures], run: RunFigures, *, up: bool) -> bool:
    """Whether the run's median is beyond that of each run of the baseline; for all cells together, whether
    the median factor is on the same side of 1 for each. True for a baseline of one run, whose spread over
    runs is not known."""
    if len(used) < 2:
        return True
    key = figure.key
    apart = []
    for one in used:
        if figure.is_factor:
            cells = [k for k in one.figures if (k.kind, k.subject) == (key.kind, key.subject)]
            factor = shift([(one.figures[k], run.figures.get(k, ())) for k in cells], ratio=True)
            apart += [] if factor is None else [factor.value - 1]
        elif one.figures.get(key):
            apart.append(Level.of(run.figures[key]).value - Level.of(one.figures[key]).value)
    return all(by > 0 if up else by < 0 for by in apart)


_WORST = (Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.PASSED)


def _counts(outcomes: Sequence[Outcome]) -> dict[Outcome, int]:
    return {outcome: count for outcome in _WORST if (count := list(outcomes).count(outcome))}


def _verdicts(used: Sequence[RunFigures], run: RunFigures) -> Iterator[VerdictChange]:
    """The checks whose worst outcome is one that no run of the baseline had. Checks of cells that only one
    side has are left out."""
    cells = set[str]().union(*(one.cells for one in used)) & run.cells.keys() | {""}
    same = all(one.digest == run.digest for one in used)
    keys = dict.fromkeys(key for one in (*used, run) for key in one.verdicts)
    for key in keys:
        if key.cell not in cells:
            continue
        after = _counts(run.verdicts.get(key, ()))
        earlier = [_counts(one.verdicts.get(key, ())) for one in used]
        now, then = _worst(after), [_worst(before) for before in earlier]
        if now in then:
            continue
        before = _counts([outcome for one in used for outcome in one.verdicts.get(key, ())])
        if (now is Outcome.PASSED or now is None) and (not before or (not same and now is None)):
            continue  # a check that is new, or that another playbook has not
        worst_before = max(map(_rank, then))
        yield VerdictChange(key, before, after, _rank(now) > worst_before)


def _worst(counts: Mapping[Outcome, int]) -> Outcome | None:
    return next(iter(counts), None)


def _rank(outcome: Outcome | None) -> int:
    """Passed, not checked, inconclusive, failed."""
    return {Outcome.PASSED: 0, None: 1, Outcome.INCONCLUSIVE: 2, Outcome.FAILED: 3}[outcome]
