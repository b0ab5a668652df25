"""The report as people see it."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from lab.core.clock import Interval
from lab.core.units import NBSP, NS_PER_MS, NS_PER_S
from lab.core.verdict import Outcome
from lab.record.run import Clocksource, Drifts, Offsets, Playbook, Run
from lab.report import reasons
from lab.report.terminal import render
from tests.unit.builders import (
    RUNS,
    curve,
    cycle,
    finding,
    forecast,
    guest,
    ms,
    resync,
    run,
    stays_behind,
    unmeasured,
)
from tests.unit.consoles import FOLDER, page, pipe, terminal, widest

SHOWN = [name for name in RUNS if name != "hostile"]


@pytest.mark.parametrize(("name", "outcome"), [
    ("passed", "passed"), ("very_many_cycles", "passed"), ("failed", "failed"), ("many_guests", "failed"),
    ("many_cycles", "failed"), ("hostile", "failed"), ("inconclusive", "inconclusive"),
    ("interrupted", "inconclusive"), ("cut_off", "inconclusive"),
])  # fmt: skip
def test_the_runs_are_what_they_are_called(name: str, outcome: str) -> None:
    assert RUNS[name]().outcome == outcome


@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal(name: str, width: int, snapshot: SnapshotAssertion) -> None:
    assert page(RUNS[name](), terminal(width)).replace(NBSP, " ") == snapshot


@pytest.mark.parametrize("name", SHOWN)
def test_as_plain_lines(name: str, snapshot: SnapshotAssertion) -> None:
    assert page(RUNS[name](), pipe()) == snapshot


@pytest.mark.parametrize("made", RUNS.values(), ids=RUNS)
def test_fits_every_width(made: Callable[[], Run]) -> None:
    shown = made()
    for width in [1, *range(40, 201)]:
        assert widest(page(shown, terminal(width))) <= max(40, width)


@pytest.mark.parametrize("made", RUNS.values(), ids=RUNS)
def test_plain_lines_are_for_grep(made: Callable[[], Run]) -> None:
    text = page(made(), pipe())
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2500-\u259f]", text), "control or drawing characters"
    assert NBSP not in text


@pytest.mark.parametrize("made", RUNS.values(), ids=RUNS)
def test_the_verdict_comes_last_and_needs_no_colour(made: Callable[[], Run]) -> None:
    shown = made()
    word = {Outcome.PASSED: "passed", Outcome.FAILED: "FAILED", Outcome.INCONCLUSIVE: "inconclusive"}
    for console in (terminal(80), terminal(120), pipe()):
        assert page(shown, console).splitlines()[-1].startswith(word[shown.outcome] + "  ")


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_what_enemies_write_is_only_text(width: int) -> None:
    text = page(RUNS["hostile"](), terminal(width, colour=True))
    without_styles = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", without_styles)
    assert "[red]web[/red]" in without_styles
    assert ":boom:" in without_styles
    assert "[bold]x[/]" in without_styles


def test_no_color_is_honoured() -> None:
    console = Console(
        file=io.StringIO(), width=80, force_terminal=True, color_system="standard", _environ={"NO_COLOR": "1"}
    )
    text = page(RUNS["failed"](), console)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", text)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_output_without_utf_8(encoding: str) -> None:
    raw = io.BytesIO()
    for tty in (False, True):
        file = io.TextIOWrapper(raw, encoding=encoding)
        render(RUNS["many_guests"](), Console(file=file, force_terminal=tty, width=100, _environ={}), FOLDER)
        file.detach()
    assert b"5006.4 +/- 0.6 ms" in raw.getvalue()


def test_a_reader_that_leaves_does_not_change_the_exit_code(tmp_path: Path) -> None:
    program = tmp_path / "long.py"
    program.write_text(
        "from lab.report.console import stdout_console\n"
        "from lab.report.page import Page\n"
        "c = stdout_console()\n"
        "page = Page(c)\n"
        "for _ in range(50000):\n"
        "    c.print('x' * 100)\n"
        "    page.put(('x' * 100, ''))\n"
        "raise SystemExit(3)\n"
    )
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    writer = subprocess.Popen(
        [sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    )
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.readline()
    writer.stdout.close()
    errors = writer.stderr.read()
    assert (writer.wait(60), errors) == (3, b"")


def test_what_was_not_measured_is_never_a_number() -> None:
    text = page(run(guest("web-0", unmeasured())), pipe())
    row = next(line for line in text.splitlines() if line.startswith("web-0"))
    assert row.split("  ")[1].strip() == "not measured"
    assert not re.search(r"\d", row.removeprefix("web-0"))


def test_a_part_that_was_not_measured_says_so() -> None:
    half = cycle(offset=replace(cycle().offset, final=None), resync=None, closure=None, closure_ns=None)
    text = page(run(guest("web-0", half)), terminal(120))
    assert text.count("not measured") == 3


def test_a_clock_is_called_ahead_only_when_that_is_certain() -> None:
    for at_resume, shown in ((ms(3.2, 0.4), "ahead 3.2 ± 0.4 ms"), (ms(0.2, 0.4), "-0.2 ± 0.4 ms")):
        text = page(run(guest("web-0", cycle(offset=Offsets(None, at_resume, ms(0, 1))))), terminal(120))
        assert shown in text


def test_the_same_reason_is_shown_once() -> None:
    cycles = [cycle(i) for i in range(12)]
    found = [finding(Outcome.FAILED, "closure", "unaccounted: 3.1 ms", index=i) for i in (3, 7, 8, 9)]
    found.append(finding(Outcome.FAILED, "budget", "frozen for 31.00 s, over the budget", index=2))
    text = page(run(guest("web-0", *cycles), found=tuple(found)), pipe())
    assert "FAILED        cycles 3, 7-9: closure, unaccounted: 3.1 ms\n" in text
    assert "FAILED        cycle 2: frozen for 31.00 s, over the budget\n" in text


def test_what_ended_the_run_is_shown_once() -> None:
    why = "guest web-0: has ended: it powered itself off"
    found = (
        finding(Outcome.INCONCLUSIVE, "run", why, guest="", index=-1),
        finding(Outcome.INCONCLUSIVE, "observation", why),
    )
    assert page(run(found=found), pipe()).count(why) == 1
    assert page(run(found=found[:1]), pipe()).count(why) == 1


def test_a_reason_of_all_guests_names_none() -> None:
    names = [f"web-{i}" for i in range(9)]
    found = tuple(finding(Outcome.FAILED, "kernel log", "soft lockup", guest=name) for name in names)
    text = page(run(*(guest(name) for name in names), found=found), pipe())
    assert "FAILED        all guests: kernel log: soft lockup\n" in text


def test_thousands_of_guests_make_a_short_report() -> None:
    made = run(*(guest(f"web-{i}") for i in range(3000)))
    assert len(page(made, terminal(80)).splitlines()) < 60


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        (
            cycle(resync=resync(correction="slew", forecast=forecast(False, "surprise: slewed"))),
            "predicted: one step at once; measured: slew 0.14 s → +0.3 ± 0.4 ms (slewed)",
        ),
        (
            cycle(resync=resync(outcome="not synced", time_ns=None, forecast=forecast(False, "surprise"))),
            "predicted: one step at once; measured: step → 0.30 ms ahead after 7.9 s",
        ),
        (cycle(rtc_moved=ms(4_500_000, 1000)), "the guest's RTC moved ahead by 75 min"),
        (cycle(rtc_moved=ms(-7_200_000, 1000)), "the guest's RTC moved back by 2 h"),
        (cycle(resync=resync(backward_steps=2)), "stepped backward 2 times"),
        (cycle(resync=resync(overshoot_ns=40 * NS_PER_MS)), "overshot by 40.0 ms"),
        (
            cycle(offset=Offsets(ms(-994.7, 1.4), ms(-6011, 4), ms(0, 1))),
            "already 994.7 ± 1.4 ms behind before",
        ),
        (
            replace(stays_behind(), resync=resync(said="chronyd claims ± 2.00 ms", correction="none")),
            "chronyd claims ± 2.00 ms, is 5006.3 ± 0.4 ms behind",
        ),
        (cycle(agreeing=("hypervisor", "lag")), "silence contradicts"),
        (
            cycle(agreeing=("hypervisor", "lag"), pause=ms(4_500, 100)),
            "silence outlasted the pause by at least 406.0 ms: the guest, or its packets, came late",
        ),
        (cycle(clocksource=Clocksource("tsc", "hpet")), "clocksource changed from tsc to hpet"),
    ],
)  # fmt: skip
def test_a_run_that_passed_still_shows_its_surprises(changed: object, text: str) -> None:
    made = run(guest("web-0", changed))  # type: ignore[arg-type]
    lines = [line for line in page(made, pipe()).splitlines() if line.startswith("surprise")]
    assert any(text in line for line in lines), lines


def test_nothing_is_surprising_about_a_good_run() -> None:
    assert not reasons.surprises(RUNS["passed"]())
    assert not reasons.surprises(RUNS["failed"]())


@pytest.mark.parametrize(("agrees", "verdict"), [(True, "as predicted"), (None, "not yet, as predicted")])
def test_what_does_not_contradict_a_forecast_is_no_surprise(agrees: bool | None, verdict: str) -> None:
    made = run(guest("web-0", cycle(resync=resync(correction="slew", forecast=forecast(agrees, verdict)))))
    assert not reasons.surprises(made)


def test_a_budget_that_was_overrun_stands_out() -> None:
    text = page(run(guest("web-0", cycle(used_ns=31 * NS_PER_S))), terminal(80))
    assert "31.00 s used, OVER" in text


def test_drift_that_is_hardly_known_names_the_window_that_would_do() -> None:
    wide = cycle().drift.after
    assert wide is not None
    poor = cycle(drift=Drifts(None, replace(wide, low=-345.0, high=362.0, ppm=8.5)))
    text = page(run(guest("web-0", poor)), pipe())
    assert "not measured before, +10 ± 360 ppm over 8.0 s after; ± 1 ppm needs 47 min 8 s" in text


def test_several_guests_have_no_bars_for_nobody_could_read_their_scale() -> None:
    falling = cycle(resync=resync(curve=curve(-5006, 0.3, 500)))
    text = page(run(guest("web-0", falling), guest("web-1", falling)), terminal(80))
    lines = [line for line in text.splitlines() if "in time after" in line]
    assert len(lines) == 2
    assert not re.search("[▁▂▃▄▅▆▇█]", "".join(lines))


def test_a_surprise_of_all_cycles_is_one_with_its_count() -> None:
    shown = [cycle(i, resync=resync(overshoot_ns=(700 + 40 * i) * NS_PER_MS)) for i in range(20)]
    text = page(run(guest("web-0", *shown)), pipe())
    lines = [line for line in text.splitlines() if line.startswith("surprise")]
    assert lines == ["surprise      all cycles: the correction overshot by 700.0 ms (the first of 20)"]
    again = [replace(one, resync=resync(backward_steps=1)) for one in shown]
    text = page(run(guest("web-0", *again)), pipe())
    lines = [line for line in text.splitlines() if line.startswith("surprise")]
    assert lines == ["surprise      all cycles: the guest's clock was stepped backward once (20 times)"]


def test_a_cycle_that_does_not_close_is_marked() -> None:
    ms_ = NS_PER_MS
    open_one = cycle(closes=False, closure_ns=312 * ms_, closure=Interval(311 * ms_, 313 * ms_))
    text = page(
        run(guest("web-0", cycle(0), open_one), playbook=Playbook("x", "")), terminal(80, colour=True)
    )
    assert "\x1b[33m1 of 2 close; worst +312.0 ms" in text


@pytest.mark.parametrize(
    ("shares", "shown"),
    [
        ((), ""),
        ((0.02, 0.09), ""),
        ((0.34,), "for 34 % of the time"),
        ((0.02, 1.1), "for 2 to 110 % of the time"),
    ],
)
def test_a_busy_host_is_told(shares: tuple[float, ...], shown: str) -> None:
    cycles = [replace(cycle(n), cpu_wait_share=share) for n, share in enumerate(shares)] or [cycle(0)]
    text = page(run(guest("web-0", *cycles)), terminal(120))
    assert ("busy host" in text) is bool(shown)
    assert shown in text


def test_how_a_domain_that_ran_already_was_reached() -> None:
    """What its probe can is in the record, and no time of its start."""
    probe = {"probe": "shell", "probe_resolution_ns": 1, "probe_steady": "mono", "probe_period_ns": 0}
    boot = {"to_probe_s": 2.71, **probe, "started": "own", "domain": "my-vm", "uuid": "u", "vcpus": 1}
    lines = page(run(replace(guest(), boot=boot)), terminal(100)).splitlines()
    assert [" ".join(line.split()[1:]) for line in lines if line.startswith("boot ")] == [
        "domain my-vm, which ran already: 2.7 s to the probe"
    ]
