"""Nights: playbooks that are run unattended, and what their results are held against.

A night's verdict is not that of its runs. A run is judged by its playbook's expectations, a night also by
what is usual: it fails when a figure is worse than in the baseline by more than noise, and when a verdict is
not that of the baseline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf

from lab.core.comparison import Change, FigureChange, Level, RunComparison
from lab.core.quantities import format_about
from lab.core.units import NS_PER_S
from lab.core.verdict import Outcome

MINUTE_NS = 60 * NS_PER_S

FACTOR = 3
"""A playbook may take so many times as long as it took before, or as is estimated. A busy host makes a run
some two times as long; what hangs takes for ever."""

SPARE_NS = 15 * MINUTE_NS
"""Beyond that: for an image that has to be built again, and a short wait for another run."""

FIRST_SPARE_NS = 60 * MINUTE_NS
"""The same for the first night."""

BOOT_NS = 5 * MINUTE_NS
"""For each guest of the first night: what an emulated one may take to boot."""


class NightVerdict(StrEnum):
    """The verdict of a night, and of a playbook in it. INVALID: the playbook is gone or has mistakes. ERROR:
    the host, a guest or a time limit ended it."""

    PASSED = "passed"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"
    ERROR = "error"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def exit_code(self) -> int:
        codes = {"passed": 0, "failed": 1, "invalid": 2, "inconclusive": 3, "error": 4, "interrupted": 130}
        return codes[self.value]

    @classmethod
    def of(cls, outcome: Outcome) -> NightVerdict:
        return cls(outcome.value)


_ORDER = tuple(NightVerdict)


def worst_verdict(verdicts: Iterable[NightVerdict]) -> NightVerdict:
    """The last in the order of NightVerdict; inconclusive without any."""
    return max(verdicts, key=_ORDER.index, default=NightVerdict.INCONCLUSIVE)


@dataclass(frozen=True)
class NightCheck:
    """One thing that was held against the baseline, or against the playbook. subject: what, "verdict" or a
    figure, with its guest and cell. usual: the baseline's; tonight: this run's; "" for either that has none.
    why: a sentence, "" when it passed."""

    subject: str
    verdict: NightVerdict
    usual: str = ""
    tonight: str = ""
    why: str = ""


@dataclass(frozen=True)
class PlaybookNight:
    """A playbook's part of a night. playbook: its name, or what was asked for when it cannot be read. run:
    the id of its run, "" when none was begun. outcome: the run's; None when it has none. took_ns, limit_ns:
    from its start to its end, and at most; 0 when it was not started. baseline: the ids of the runs that it
    was compared with. why: what ended it, "" when it ended by itself. notes: other remarks."""

    playbook: str
    verdict: NightVerdict
    run: str = ""
    outcome: Outcome | None = None
    took_ns: int = 0
    limit_ns: int = 0
    baseline: tuple[str, ...] = ()
    checks: tuple[NightCheck, ...] = ()
    why: str = ""
    notes: tuple[str, ...] = ()

    @property
    def reasons(self) -> list[str]:
        """Why it did not pass, a sentence each."""
        return [*filter(None, [self.why]), *(check.why for check in self.checks if check.why)]

    @property
    def has_remarks(self) -> bool:
        """Whether there is more to tell of it than its verdict."""
        return bool(self.reasons or self.notes)


def time_limit_ns(took_ns: Sequence[int], estimate_ns: int, guests: int) -> int:
    """How long a playbook may take. took_ns: how long it took in the last nights; without any, the estimate
    for its cycles counts, and its number of guests, which have to boot."""
    if took_ns:
        return FACTOR * max(took_ns) + SPARE_NS
    return FACTOR * estimate_ns + FIRST_SPARE_NS + guests * BOOT_NS


def verdict_check(outcome: Outcome, usual: Iterable[Outcome]) -> NightCheck:
    """The run's verdict, held against the baseline's verdicts. Without any it has to be passed; with them it
    has to be one of them, whatever they are."""
    known = list(dict.fromkeys(usual))
    before = " or ".join(known)
    if not known:
        why = "" if outcome is Outcome.PASSED else f"the run {_ended(outcome)}"
        return NightCheck("verdict", NightVerdict.of(outcome), "", outcome.value, why)
    if outcome in known:
        return NightCheck("verdict", NightVerdict.PASSED, before, outcome.value)
    changed = f"the run {_ended(outcome)}, and its baseline {_ended(known[0])}"
    if outcome is Outcome.PASSED:  # a control that no longer fails shows nothing any more
        changed += ": if that is meant, set the baseline again"
        return NightCheck("verdict", NightVerdict.FAILED, before, outcome.value, changed)
    return NightCheck("verdict", NightVerdict.of(outcome), before, outcome.value, changed)


def _ended(outcome: Outcome) -> str:
    return "was inconclusive" if outcome is Outcome.INCONCLUSIVE else outcome.value


def comparison_checks(compared: RunComparison) -> list[NightCheck]:
    """The checks whose verdict is worse than in the baseline, and all figures that were tested."""
    found = []
    for change in compared.worse_verdicts:
        subject = " ".join(filter(None, (change.key.metric, change.key.expectation)))
        before, after = _outcomes(change.before), _outcomes(change.after)
        verdict = next((NightVerdict.of(one) for one in change.after), NightVerdict.INCONCLUSIVE)
        why = f"{subject}{_of(change.key.guest, change.key.cell)}: {before} in the baseline, {after} now"
        found.append(
            NightCheck(subject + _of(change.key.guest, change.key.cell), verdict, before, after, why)
        )
    found += (
        _figure_check(figure, worse=figure in compared.regressed)
        for figure in compared.figures
        if figure.change is not Change.TOO_FEW
    )
    return found


def comparison_notes(compared: RunComparison) -> list[str]:
    """What a reader of the checks should know."""
    found = [f"changed since the baseline: {text}" for text in compared.differs]
    if not compared.same_playbook:
        found.append("the playbook has changed since its baseline; a new one: freezelab baseline set RUN")
    found += (f"{name} is not compared: {why}" for name, why in compared.left_out)
    if not compared.same_machine:
        found.append("the baseline is of another machine: its figures are no measure for this one")
    if few := [figure for figure in compared.figures if figure.change is Change.TOO_FEW]:
        names = ", ".join(dict.fromkeys(_name(figure) for figure in few))
        needed = max(figure.needed for figure in few)
        found.append(f"too few cycles to show a difference of {names}: {needed} on each side would do")
    return found


def _figure_check(figure: FigureChange, *, worse: bool) -> NightCheck:
    before, after = _level(figure, figure.before), _level(figure, figure.after)
    if not worse:
        return NightCheck(_name(figure), NightVerdict.PASSED, before, after)
    by = f"{figure.difference.value:.3g} times" if figure.is_factor else f"{before} before, {after} now"
    p = f"{figure.p:.2g}" if figure.p else "0"
    why = f"{_name(figure)} is worse than in the baseline by more than noise: {by} (p = {p})"
    return NightCheck(_name(figure), NightVerdict.FAILED, before, after, why)


def _name(figure: FigureChange) -> str:
    key = figure.key
    cell = " over all cells" if figure.is_factor else _of("", key.cell)
    return f"{key.kind.value.replace('-', ' ')}{_of(key.subject, '')}{cell}"


def _of(subject: str, cell: str) -> str:
    return f"{f' of {subject}' if subject else ''}{f' in {cell}' if cell else ''}"


def _level(figure: FigureChange, level: Level | None) -> str:
    if level is None:
        return ""
    if level.value == inf:
        return "never"
    return format_about(level.value) if figure.key.kind.unit == "ns" else f"{level.value:.3g} ppm"


def _outcomes(counts: Mapping[Outcome, int]) -> str:
    """ "failed", "2 failed, 3 passed"; "not checked" without any."""
    if len(counts) == 1:
        return next(iter(counts)).value
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "not checked"
