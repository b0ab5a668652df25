"""A night's verdict, and how long a playbook may take."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lab.core.comparison import FigureKey, FigureKind, RunFigures, RunMachine, VerdictKey, compare_runs
from lab.core.night import (
    BOOT_NS,
    FIRST_SPARE_NS,
    SPARE_NS,
    NightVerdict,
    comparison_checks,
    comparison_notes,
    time_limit_ns,
    verdict_check,
    worst_verdict,
)
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.verdict import Outcome

PASSED, FAILED, UNDECIDED = Outcome.PASSED, Outcome.FAILED, Outcome.INCONCLUSIVE
PAUSE = FigureKey("", FigureKind.PAUSE)
CHECK = VerdictKey("", "web-0", "in time", "≤ 5 s")


@pytest.mark.parametrize(
    ("tonight", "usual", "verdict"),
    [
        (PASSED, [], "passed"),
        (FAILED, [], "failed"),
        (UNDECIDED, [], "inconclusive"),
        (PASSED, [PASSED, PASSED], "passed"),
        (FAILED, [PASSED], "failed"),
        (UNDECIDED, [PASSED], "inconclusive"),
        (FAILED, [FAILED], "passed"),
        (UNDECIDED, [FAILED, UNDECIDED], "passed"),
        (PASSED, [FAILED], "failed"),  # what it showed it shows no more
        (FAILED, [UNDECIDED], "failed"),
    ],
)
def test_a_verdict_fails_the_night_unless_the_baseline_has_it(
    tonight: Outcome, usual: Sequence[Outcome], verdict: str
) -> None:
    check = verdict_check(tonight, usual)
    assert check.verdict.value == verdict
    assert bool(check.why) is (verdict != "passed")


def test_the_worst_verdict_is_the_nights() -> None:
    order = ["passed", "inconclusive", "invalid", "error", "failed", "interrupted"]
    verdicts = [NightVerdict(name) for name in order]
    for number in range(len(order)):
        assert worst_verdict(verdicts[: number + 1]).value == order[number]
    assert worst_verdict([]) is NightVerdict.INCONCLUSIVE
    assert [verdict.exit_code for verdict in verdicts] == [0, 3, 2, 4, 1, 130]


def test_the_limit_is_from_what_was_seen_or_else_from_the_plan() -> None:
    minute = 60 * NS_PER_S
    assert time_limit_ns([minute, 2 * minute], 1, 1) == 6 * minute + SPARE_NS
    assert time_limit_ns([], 10 * minute, 3) == 30 * minute + FIRST_SPARE_NS + 3 * BOOT_NS


def run(pauses_ms: Sequence[float], verdicts: Sequence[Outcome] = (PASSED,), **more: object) -> RunFigures:
    values = [(ms * NS_PER_MS - 1, ms * NS_PER_MS, ms * NS_PER_MS + 1) for ms in pauses_ms]
    named: dict[str, object] = {"id": "r", "machine": RunMachine("m"), "digest": "d", **more}
    return RunFigures(
        playbook="short", started="", outcome=PASSED, figures={PAUSE: values}, verdicts={CHECK: verdicts},
        cells={"": PASSED}, **named,  # type: ignore[arg-type]
    )  # fmt: skip


SOME = [300.0 + i for i in range(12)]


def test_a_figure_beyond_noise_is_a_failed_check_and_others_are_passed_ones() -> None:
    (check,) = comparison_checks(compare_runs([run(SOME)], run([ms + 100 for ms in SOME])))
    assert (check.subject, check.verdict) == ("pause", NightVerdict.FAILED)
    assert "305 ms before, 405 ms now" in check.why
    (check,) = comparison_checks(compare_runs([run(SOME)], run([ms + 1 for ms in SOME])))
    assert (check.verdict, check.why, check.usual, check.tonight) == (
        NightVerdict.PASSED, "", "305 ms", "306 ms",
    )  # fmt: skip
    (check,) = comparison_checks(compare_runs([run(SOME)], run([ms - 100 for ms in SOME])))
    assert check.verdict is NightVerdict.PASSED  # shorter is better


def test_a_check_that_is_worse_than_before_has_its_own_verdict() -> None:
    compared = compare_runs([run(SOME, [PASSED] * 3)], run(SOME, [PASSED, FAILED, PASSED]))
    worse = [check for check in comparison_checks(compared) if check.why]
    assert [(check.subject, check.verdict) for check in worse] == [
        ("in time ≤ 5 s of web-0", NightVerdict.FAILED)
    ]
    assert worse[0].why.endswith("passed in the baseline, 1 failed, 2 passed now")
    gone = comparison_checks(compare_runs([run(SOME, [PASSED])], run(SOME, [])))
    assert [check.verdict for check in gone if check.why] == [NightVerdict.INCONCLUSIVE]


def test_what_cannot_be_compared_is_noted() -> None:
    few = compare_runs([run([300])], run([900]))
    assert comparison_checks(few) == []
    assert comparison_notes(few)[0].startswith("too few cycles to show a difference of pause: ")
    elsewhere = compare_runs([run(SOME, machine=RunMachine("other"))], run([ms * 2 for ms in SOME]))
    assert all(check.verdict is NightVerdict.PASSED for check in comparison_checks(elsewhere))
    assert any("another machine" in note for note in comparison_notes(elsewhere))
    changed = compare_runs([run(SOME, digest="e")], run(SOME))
    assert any("the playbook has changed" in note for note in comparison_notes(changed))
