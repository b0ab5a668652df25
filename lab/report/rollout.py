"""A rollout: a row for each wave, its progress, and the proof that domains were down one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lab.core.quantities import DOWN, UP, format_at_latest, format_at_least, format_ms, format_seconds
from lab.core.rollout_result import ROLLOUT
from lab.core.verdict import Outcome
from lab.record.model import OneAtATime, RolloutRecord, Run, WaveRecord
from lab.report.cycles import VERDICTS
from lab.report.notices import approvals, has_approvals
from lab.report.numbers import interval
from lab.report.page import Page
from lab.report.table import ALWAYS, Column, Piece, Table, forms
from lab.report.text import counted, names

MOST_WAVES = 24
NONE: Piece = ("–", "dim")

_Cell = Callable[[WaveRecord], Piece]
_STATES: dict[str, Piece] = {
    "stopped": ("stopped", "bold yellow"),
    "cut off": ("cut off", "yellow"),
    "not begun": ("not begun", "dim"),
}


def _domains(most: int) -> _Cell:
    def cell(wave: WaveRecord) -> Piece:
        return names([f"{domain.set} {domain.number}" for domain in wave.domains], most), "bold"

    return cell


def _notice(wave: WaveRecord) -> Piece:
    return NONE if wave.notice_ns is None else (format_seconds(wave.notice_ns), "")


def _approved(wave: WaveRecord) -> Piece:
    return approvals(wave.events)


def _pause(wave: WaveRecord) -> Piece:
    if wave.state == "not begun":
        return NONE
    if wave.pause is None:
        return "not measured", "yellow"
    if wave.guests == 1:
        return interval(wave.pause, unit=False), ""
    # Of several guests it is a spread, and no bound.
    low, high = format_ms(wave.pause.low_ns, DOWN), format_ms(wave.pause.high_ns, UP)
    return f"{low} … {high}", ""


def _skew(wave: WaveRecord) -> Piece:
    """The largest skew of its domains, upper bound, of the stop and of the resume."""
    pairs = [(d.stop_skew, d.resume_skew) for d in wave.domains if d.stop_skew or d.resume_skew]
    stops = [stop.high_ns for stop, _ in pairs if stop is not None]
    resumes = [resume.high_ns for _, resume in pairs if resume is not None]
    if not stops or not resumes:
        return NONE
    return f"{format_ms(max(stops), UP)}/{format_ms(max(resumes), UP)}", ""


def _in_time(wave: WaveRecord) -> Piece:
    if wave.state == "not begun":
        return NONE
    return (format_at_latest(wave.in_time_ns), "") if wave.in_time_ns is not None else ("unknown", "yellow")


def _gates(wave: WaveRecord) -> Piece:
    if not wave.gates:
        return NONE
    passed = sum(gate.ok for gate in wave.gates)
    return f"{passed} of {len(wave.gates)}", "" if passed == len(wave.gates) else "red"


def _outcome(wave: WaveRecord) -> Piece:
    return VERDICTS[wave.outcome] if wave.state == "done" else _STATES[wave.state]


def _columns(waves: Sequence[WaveRecord], rollout: RolloutRecord, run: Run) -> list[Column[WaveRecord]]:
    """The columns, without those that are empty in all waves."""
    by = rollout.by.replace("-", " ") + "s"
    domains = ((by, 4, 1), (by, 3, 2), ("domains", 3, 4), ("domains", 2, ALWAYS))
    columns = [
        Column("wave", lambda wave: (str(wave.number), ""), right=True),
        forms(*(Column(head, _domains(most), rank=rank) for head, most, rank in domains)),
        Column("guests", lambda wave: (str(wave.guests), ""), right=True, rank=5),
        Column("notice", _notice, right=True, rank=9),
        *([Column("approved", _approved, right=True, rank=4)] if has_approvals(run) else []),
        Column("pause, ms", _pause, right=True),
        Column("skew, ms\nstop/resume", _skew, right=True, rank=7),
        Column("in time\nby", _in_time, right=True, rank=6),
        Column("gates", _gates, right=True, rank=8),
        Column("outcome", _outcome),
    ]
    may_be_empty = (_notice, _approved, _skew, _gates)
    return [
        column
        for column in columns
        if column.cell not in may_be_empty or any(column.cell(wave) != NONE for wave in waves)
    ]


def show_rollouts(page: Page, run: Run, most: int = MOST_WAVES) -> None:
    """Print every rollout with at most so many waves, and the proof over all of them."""
    for rollout in run.rollouts:
        page.blank()
        _show(page, run, rollout, most)
    if run.one_at_a_time is not None:
        _proof(page, run.one_at_a_time)


def _show(page: Page, run: Run, rollout: RolloutRecord, most: int) -> None:
    done = sum(wave.state == "done" for wave in rollout.waves)
    page.parts(
        [
            f"rollout by {rollout.by.replace('-', ' ')}",
            f"{done} of {counted(len(rollout.waves), 'wave')} done",
            f"shuffled by seed {rollout.seed}" if rollout.seed is not None else "",
            rollout.ended or "no end on record",
        ]
    )
    waves: Sequence[WaveRecord] = rollout.waves
    if len(waves) > page.most(most):
        waves = _worth_showing(waves, most // 2)
        page.parts([f"{len(waves)} of {counted(len(rollout.waves), 'wave')}: exceptions first"], "dim")
    page.table(Table(_columns(waves, rollout, run), waves, gaps={3: 1, 2: 3, 1: ALWAYS}))
    judged = any(f.metric == ROLLOUT and f.outcome is not Outcome.PASSED for f in run.findings)
    if rollout.ended != "complete" and not judged:  # else the reason says so
        reason = f"{rollout.why}. " if rollout.why else ""
        page.labelled("stands", f"{reason}{rollout.stands}")


def _worth_showing(waves: Sequence[WaveRecord], most: int) -> list[WaveRecord]:
    """The most important waves, in their order: those that are not done or not passed, then the slowest."""

    def key(wave: WaveRecord) -> tuple[bool, bool, int]:
        return (
            wave.state != "stopped",
            wave.state == "done" and wave.outcome is Outcome.PASSED,
            -(wave.in_time_ns or 0),
        )

    return sorted(sorted(waves, key=key)[:most], key=lambda wave: wave.number)


def _proof(page: Page, proof: OneAtATime) -> None:
    if proof.outcome is Outcome.FAILED:
        page.labelled(
            "proof", f"two domains of a set were down at the same time: {proof.why}", style="bold red"
        )
        return
    if proof.outcome is Outcome.INCONCLUSIVE:
        page.labelled("proof", f"not proven that only one domain of a set was down at a time: {proof.why}",
                      style="yellow")  # fmt: skip
        return
    times = "once" if proof.times == 1 else f"{proof.times} times"
    text = f"never two domains of a set down at the same time: {times} down in {counted(proof.sets, 'set')}"
    if proof.nearest is not None:
        near = proof.nearest
        text += f", at least {format_at_least(near.ns)} between {near.first} and {near.second}"
    page.labelled("proof", text)
