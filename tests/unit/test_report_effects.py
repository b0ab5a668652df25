"""Claims, effects of a pause and the lab's own accuracy, as people see them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from lab.core.effects import Backward, Timers
from lab.core.quantities import format_between
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.record.run import (
    AuditRecord,
    EffectsRecord,
    Moved,
    Run,
)
from lab.report.claims import claim_text
from tests.unit.builders import (
    CALIBRATED,
    WRONG_AUDIT,
    compared,
    cycle,
    forecast,
    guest,
    ms,
    resync,
    resync_matrix,
    run,
)
from tests.unit.consoles import plain, shown

MS, S = NS_PER_MS, NS_PER_S

# -- claims ---------------------------------------------------------------------------------------

HELD = AuditRecord("adjtimex", 41, 41, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (4_310 * MS, 4_590 * MS, "4.3–4.6 s"), (4_300 * MS, 4_300 * MS, "4.3 s"), (0, 90 * MS, "0–90 ms"),
        (0, 1_010 * MS, "0.0–1.1 s"), (999_999, 1_000_001, "0–2 ms"),
    ],
)  # fmt: skip
def test_a_length_between_two_bounds(low: int, high: int, text: str) -> None:
    assert format_between(low, high) == text


def test_a_source_is_told_in_one_line() -> None:
    assert claim_text(WRONG_AUDIT)[0].startswith(
        "claimed ± 2.1 ms, was 4 980.3 ± 0.4 ms behind; wrong for 4.3–4.6 s"
    )
    assert claim_text(HELD)[0] == "never understated its error (41 claims)"
    assert claim_text(replace(HELD, judged=0)) == ("41 claims, none could be judged", "yellow")
    said = "claimed to be unsynchronised for up to 3.00 s (41 claims, none judged)"
    assert claim_text(replace(HELD, judged=0, unsynced_ns=3 * S)) == (said, "")
    assert "claimed to be unsynchronised for up to 3.00 s" in claim_text(replace(HELD, unsynced_ns=3 * S))[0]


def test_a_single_run_tells_every_source() -> None:
    text = shown(run(guest("web-0", cycle(audits=(WRONG_AUDIT, HELD)))), 120)
    assert re.search(r"^claims +chronyc tracking +claimed ± 2.1 ms.*wrong for 4.3–4.6 s", text, re.M)
    assert re.search(r"^ +adjtimex +never understated its error \(41 claims\)", text, re.M)


def test_a_matrix_tells_the_wrong_ones_and_counts_the_others() -> None:
    good, bad = compared(True, "as predicted"), compared(True, "as predicted")
    made = resync_matrix(
        ("agent", "3s", replace(good, audits=(HELD,))),
        ("chrony", "3s", replace(bad, audits=(WRONG_AUDIT, HELD))),
    )
    text = plain(made)
    assert "wrong claims  3s-chrony: chronyc tracking claimed ± 2.1 ms" in text
    assert "no other claim understated the error: 82 claims by adjtimex" in text
    right = resync_matrix(
        ("agent", "3s", replace(good, audits=(HELD,))), ("push", "3s", replace(good, audits=(HELD,)))
    )
    assert "wrong claims" not in plain(right)
    assert "claims        no claim understated the error: 82 claims by adjtimex" in plain(right)


# -- effects --------------------------------------------------------------------------------------

FLEET = Timers("timerfd realtime", 64, 1093, ((MS, 1000), (10 * MS, 29), (S, 0), (1 << 62, 64)), 3 * S, 64, 0)
EFFECTS = EffectsRecord(
    (FLEET,), 2000, 0, 0, ms(-2, 1), ms(3, 1), 0,
    (Backward("monotonic", 0, 1, 1000, 0, 0), Backward("realtime", 1, 0, 1000, 0, 0)),
)  # fmt: skip


def with_effects(**changes: object) -> Run:
    seen = replace(EFFECTS, **changes)  # type: ignore[arg-type]
    return run(guest("web-0", cycle(effects=seen)))


def test_timers_have_a_histogram() -> None:
    text = plain(with_effects())
    head, row = (
        next(line for line in text.splitlines() if line.startswith(s)) for s in ("timers,", "timerfd")
    )
    assert re.split(r" {2,}", head) == ["timers, late by", "≤ 1 ms", "≤ 10 ms", "> 1 s", "worst", "at once"]
    assert re.split(r" {2,}", row) == ["timerfd realtime", "1000", "29", "64", "3.0 s", "64 of 64"]
    fine = replace(
        FLEET, buckets=((MS, 7), (2 * MS, 3), (5 * MS, 2), (10 * MS, 1), (20 * MS, 0), (60 * S, 0))
    )
    head, row = (
        next(line for line in plain(with_effects(timers=(fine,))).splitlines() if line.startswith(s))
        for s in ("timers,", "timerfd")
    )
    assert re.split(r" {2,}", head)[1:3] == ["≤ 1 ms", "≤ 10 ms"]
    assert re.split(r" {2,}", row)[1:3] == ["7", "6"]
    early = replace(FLEET, early=3)
    assert re.search(r"at once +early$", plain(with_effects(timers=(early,))), re.M)


def test_clocks_that_went_backward_are_told_with_their_evidence() -> None:
    assert "backward      monotonic: never, in 1000 checks, all from vCPU to vCPU" in plain(with_effects())
    wrong = (Backward("monotonic", 0, 1, 1000, 2, 40_000), Backward("monotonic", 0, 0, 500, 0, 0))
    text = plain(with_effects(clocks=wrong))
    assert "backward      monotonic: 2 of 1500 checks, by at most 0.04 ms (vCPU 0 to 1)" in text


@pytest.mark.parametrize(
    ("gained", "text"),
    [
        (0, "equal to MONOTONIC"),
        (3 * S, "gained 3.0 s compared with MONOTONIC"),
        (-3 * S, "lost 3.0 s compared with MONOTONIC"),
    ],
)
def test_boottime_against_monotonic(gained: int, text: str) -> None:
    assert f"boottime      {text}" in plain(with_effects(boot_minus_mono_ns=gained))
    assert "boottime" not in plain(with_effects(boot_minus_mono_ns=None))


def test_the_rtc_against_realtime() -> None:
    assert "RTC - REALTIME -2.0 ± 1.0 ms before, +3.0 ± 1.0 ms after" in plain(with_effects())
    behind = cycle(effects=replace(EFFECTS, rtc_after=ms(-3000, 1)))
    several = plain(run(guest("web-0", cycle(effects=EFFECTS), replace(behind, index=1))))
    assert several.count("RTC - REALTIME") == 1 + 1  # -2 and +3 are apart by more than their bounds, too
    still = plain(
        run(guest("web-0", *(cycle(i, effects=replace(EFFECTS, rtc_after=ms(-1, 1))) for i in (0, 1))))
    )
    assert "constant distance from REALTIME in all 2 cycles" in still


def test_a_single_step_is_shown_only_where_there_was_one() -> None:
    def report_of(count: int | None) -> str:
        steps = None if count is None else tuple(Moved(i * 10**9, 10**9 * (count - i)) for i in range(count))
        largest = 10**9 * (count or 4)
        return plain(run(guest("web-0", cycle(resync=resync(steps=steps, step_ns=largest)))))

    assert ", one step of +1000.0 ms" in report_of(1)
    assert ", 4 steps, the largest of +4000.0 ms" in report_of(4)
    assert ", a step of +4000.0 ms" in report_of(None)


def test_an_agent_that_ended_with_an_error_and_set_the_clock_is_told_so() -> None:
    """Its hwclock hangs, or is missing: agents 10.0 and 11.1 have set the clock all the same."""
    said = "failed: the agent's guest-set-time ended with an error: Guest agent is not responding"
    for outcome, time_ns, was_set in (
        ("synced", 57 * MS, True),
        ("not synced", None, False),
        ("undecided", None, True),  # late, by a busy host
    ):
        correction = "step" if was_set else "none"
        one = cycle(resync=resync(said=said, outcome=outcome, time_ns=time_ns, correction=correction))
        text = " ".join(plain(run(guest("web-0", one))).split())
        assert ("is not responding; the clock was set nevertheless" in text) is was_set
        assert "is not responding" in text


def test_kernel_lines_are_quoted_as_evidence() -> None:
    line = "watchdog: BUG: soft lockup - CPU#0 stuck for 23s!"
    made = run(guest("web-0", cycle(0, kernel_stalls=(line,)), cycle(1, kernel_stalls=(line,))))
    assert f"kernel log    {line} (cycle 0 and 1 more)" in plain(made)


def test_harmless_kernel_lines_are_told_after_those_that_are_not() -> None:
    bad, note = (
        "watchdog: BUG: soft lockup - CPU#0 stuck for 23s!",
        "clocksource: Switched to clocksource tsc",
    )
    text = plain(run(guest("web-0", cycle(kernel_stalls=(bad,), kernel_notes=(note,)))))
    assert f"kernel log    {bad}\n              {note} (harmless)" in text


def test_hostile_words_of_guests_do_not_reach_the_terminal() -> None:
    bad = "\x1b[2J[red]\u202e"
    seen = cycle(
        kernel_stalls=(bad,), audits=(replace(WRONG_AUDIT, source=bad, example=bad),),
        effects=replace(EFFECTS, timers=(replace(FLEET, kind=bad),)),
        resync=resync(forecast=forecast(False, bad, text=bad), program=bad),
    )  # fmt: skip
    for made in (run(guest("web-0", seen)), resync_matrix(("chrony", "3s", seen))):
        for text in (shown(made), plain(made)):
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)


# -- accuracy -------------------------------------------------------------------------------------


def test_the_last_calibration_is_quoted() -> None:
    line = plain(run(calibration=CALIBRATED)).splitlines()[2]
    assert line == (
        "calibrated 2026-11-20: bias +0.1 ms · spread 0.90 ms · 40/40 covered · noise 7.0 ms"
        " · offsets to ± 0.24 ms"
    )


def test_one_that_does_not_hold_or_is_missing_is_a_warning_with_its_remedy() -> None:
    stale = shown(run(calibration=replace(CALIBRATED, stale="of another machine")), colour=True)
    assert "33mthe calibration is out of date: of another machine: run freezelab calibrate" in stale
    assert "33mthis machine has no calibration: run freezelab calibrate" in shown(run(), colour=True)
