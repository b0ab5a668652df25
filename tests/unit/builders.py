"""Records of runs to report on, made up: each function builds one value, its arguments change members of it.
RUNS are whole runs by name. Those that real measurements made are in real_histories.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lab.core.clock import Interval
from lab.core.drift import Drift
from lab.core.plan import FreezeMethod
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.verdict import Finding, Outcome, worst
from lab.record.run import (
    SCHEMA,
    AuditRecord,
    Calibration,
    CellRecord,
    Clocksource,
    CycleRecord,
    Drifts,
    ForecastRecord,
    GuestRecord,
    Host,
    Measure,
    Moved,
    Offsets,
    Playbook,
    PointRecord,
    ResyncRecord,
    Run,
    Witnesses,
    statistics,
)

HOST = Host(
    "6.1.0-18-amd64",
    "AMD EPYC",
    25 << 30,
    "7.2.22",
    "9.0.0",
    "tcg",
    "KVM opens here but boots no guest",
    {"cpus": 2, "load": 0.4},
)


def ms(value: float, bound: float) -> Measure:
    return Measure(
        round(value * NS_PER_MS), round((value - bound) * NS_PER_MS), round((value + bound) * NS_PER_MS)
    )


def curve(start_ms: float, end_ms: float, at_ms: float, watch_ms: int = 8000) -> tuple[PointRecord, ...]:
    points = []
    for at in range(5, watch_ms, 100):
        value = start_ms if at < at_ms else end_ms
        points.append(
            PointRecord(at * NS_PER_MS, round((value - 0.4) * NS_PER_MS), round((value + 0.4) * NS_PER_MS))
        )
    return tuple(points)


def resync(**changes: Any) -> ResyncRecord:
    good = ResyncRecord(
        "agent",
        "one step at once, to the agent's latency",
        "synced",
        140 * NS_PER_MS,
        90 * NS_PER_MS,
        5006 * NS_PER_MS,
        "step",
        0,
        0,
        7.7e8,
        "the agent set the time in 90 ms",
        curve(-5006, 0.3, 130),
        steps=(Moved(130 * NS_PER_MS, 5006 * NS_PER_MS),),
    )
    return replace(good, **changes)


def forecast(agrees: bool | None, verdict: str, **changes: Any) -> ForecastRecord:
    predicted = ForecastRecord(
        True, "step", Interval(0, 2 * NS_PER_S), Interval(-20 * NS_PER_MS, 20 * NS_PER_MS),
        "one step at once",
        ("a manual",), agrees, verdict,
    )  # fmt: skip
    return replace(predicted, **changes)


def cycle(index: int = 0, **changes: Any) -> CycleRecord:
    """A cycle that passes."""
    more = index * 0.37 % 3
    good = CycleRecord(
        index=index,
        frozen=True,
        method=FreezeMethod.SUSPEND.value,
        patch="hold 5 s",
        regime="resumed",
        budget_ns=30 * NS_PER_S,
        used_ns=5_012 * NS_PER_MS,
        pause=ms(5006.4 + more, 0.55),
        witnesses=Witnesses(*[Interval(5_006 * NS_PER_MS, 5_007 * NS_PER_MS)] * 4),
        agreeing=("hypervisor", "lag", "silence"),
        closure_ns=-200_000,
        closure=Interval(-1_300_000, 900_000),
        closes=True,
        offset=Offsets(ms(0.2, 0.3), ms(-5006.1 - more, 0.7), ms(0.3, 0.4)),
        resync=resync(),
        drift=Drifts(Drift(-3.2, -44.0, 37.6, 4 * NS_PER_S), Drift(2.1, -15.9, 20.1, 8 * NS_PER_S)),
        boot_id_unchanged=True,
        kernel_stalls=(),
        clocksource=Clocksource("acpi_pm", "acpi_pm"),
        cpu_ns=0,
        readings=650,
        problems=(),
        outcome=Outcome.PASSED,
    )
    return replace(good, **changes)


def control(index: int) -> CycleRecord:
    still = ResyncRecord(
        "agent", "nothing to repair: the guest's clocks run on", "synced", 5 * NS_PER_MS, 0, None, "none",
        0, 0, 0.0, "", curve(0.3, 0.3, 0),
    )  # fmt: skip
    return cycle(
        index,
        frozen=False,
        control=True,
        method="none",
        regime="running",
        pause=Measure(0, 0, 0),
        offset=Offsets(ms(0.2, 0.3), ms(0.2, 0.4), ms(0.3, 0.4)),
        resync=still,
        closure_ns=60_000,
    )


def unmeasured(index: int = 0) -> CycleRecord:
    return cycle(
        index,
        regime=None,
        used_ns=None,
        pause=None,
        witnesses=Witnesses(),
        agreeing=(),
        closure_ns=None,
        closure=None,
        closes=False,
        offset=Offsets(),
        resync=None,
        drift=Drifts(),
        boot_id_unchanged=None,
        clocksource=None,
        cpu_ns=None,
        readings=0,
        problems=("the probe's channel was lost",),
        outcome=Outcome.INCONCLUSIVE,
    )


def stays_behind(index: int = 0) -> CycleRecord:
    return cycle(
        index,
        offset=Offsets(ms(0.2, 0.3), ms(-5006.1, 0.7), ms(-5006.3, 0.4)),
        resync=resync(
            mechanism="none",
            predicted="stays behind by 5 s",
            outcome="not synced",
            time_ns=None,
            time_low_ns=None,
            step_ns=None,
            correction="none",
            said="",
            curve=curve(-5006, -5006, 0),
            steps=(),
        ),
        outcome=Outcome.FAILED,
    )


def guest(name: str = "web-0", *cycles: CycleRecord) -> GuestRecord:
    return GuestRecord(name, "debian", 1, 512 << 20, 0, 0, {"to_probe_s": 6.21}, cycles or (cycle(),))


def finding(outcome: Outcome, metric: str, why: str = "", guest: str = "web-0", index: int = 0) -> Finding:
    return Finding(guest, index, metric, "as expected", "as measured", outcome, why)


def run(*guests: GuestRecord, found: tuple[Finding, ...] = (), **changes: Any) -> Run:
    guests = guests or (guest(),)
    passed = tuple(
        finding(Outcome.PASSED, metric, guest=g.name, index=c.index)
        for g in guests
        for c in g.cycles
        for metric in ("patch", "budget", "closure", "regime")
    )
    findings = (*passed, *found)
    made = Run(
        SCHEMA,
        "20261122-224358-first-freeze-c105",
        Playbook("first-freeze", "fe04"),
        "2026-11-22T22:44:04.427+00:00",
        "2026-11-22T22:44:42.594+00:00",
        worst(f.outcome for f in findings),
        True,
        False,
        HOST,
        guests,
        findings,
        statistics([c for g in guests for c in g.cycles]) if len(guests) < 100 else (),
    )
    return replace(made, **changes)


def passed() -> Run:
    return run()


def failed() -> Run:
    late = "still 5\u00a0006.3 ± 0.4 ms behind 8 s after the resume, and no mechanism was to correct it"
    final = "final offset -5\u00a0006.3 ± 0.4 ms, expected at most 100 ms"
    return run(
        guest("web-0", stays_behind()),
        found=(
            finding(Outcome.FAILED, "in time", late),
            finding(Outcome.FAILED, "final offset", final),
        ),
        playbook=Playbook("no-resync", "00"),
    )


def inconclusive() -> Run:
    lost = "guest web-0: the probe's channel was lost and cannot be had again"
    return run(
        guest("web-0", unmeasured()),
        found=(
            finding(Outcome.INCONCLUSIVE, "observation", lost),
            finding(
                Outcome.INCONCLUSIVE, "closure", "the pause cannot be checked: no lag and no gap witness"
            ),
        ),
    )


def many_cycles() -> Run:
    cycles = [control(0), control(1), *(cycle(i) for i in range(2, 12))]
    cycles[4] = replace(cycles[4], closes=False, closure_ns=312 * NS_PER_MS, outcome=Outcome.INCONCLUSIVE,
                        closure=Interval(311 * NS_PER_MS, 313 * NS_PER_MS))  # fmt: skip
    found = [finding(Outcome.INCONCLUSIVE, "closure", "unaccounted: 311.0 ms", index=4)]
    for index in (7, 8, 9):
        cycles[index] = stays_behind(index)
        why = f"final offset -5\u00a0006.{index} ± 0.4 ms, expected at most 100 ms"
        found.append(finding(Outcome.FAILED, "final offset", why, index=index))
    return run(guest("web-0", *cycles), found=tuple(found))


def very_many_cycles() -> Run:
    return run(guest("web-0", *(cycle(i) for i in range(60))))


def many_guests() -> Run:
    guests = [
        guest("web-0", cycle()),
        guest("web-1", stays_behind()),
        guest("db", cycle()),
        guest("never-up"),
    ]
    guests[3] = replace(guests[3], cycles=(), boot={})
    return run(
        *guests,
        found=(
            finding(Outcome.FAILED, "in time", "still 5\u00a0006.3 ± 0.4 ms behind", guest="web-1"),
            Finding(
                "", -1, "cycles", "4", "3 of 4 cycles", Outcome.INCONCLUSIVE, "only 3 of 4 cycles were run"
            ),
        ),
    )


def interrupted() -> Run:
    return run(
        guest("web-0", unmeasured()),
        found=(
            Finding(
                "", -1, "run", "runs to its end", "stopped", Outcome.INCONCLUSIVE, "interrupted by SIGINT"
            ),
        ),
        interrupted=True,
    )


def cut_off() -> Run:
    why = "the run was cut off before its end"
    return run(
        found=(Finding("", -1, "history", "complete", why, Outcome.INCONCLUSIVE, why),), complete=False
    )


def hostile() -> Run:
    """Names and texts as an enemy would write them."""
    bad = "[red]web[/red]\x1b[31m\x07\r\n\u202egnp.exe\ud800 :boom: [/]" + "x" * 90
    failing = finding(Outcome.FAILED, "kernel log", f"{bad} soft lockup\x00", guest=bad)
    made = run(guest(bad, stays_behind()), found=(failing,), playbook=Playbook("[bold]x[/]\x1b]0;t\x07", ""))
    return replace(made, host=replace(HOST, cpu="[blink]\x9b31m", accelerator_reason="[link=file:///]x"))


RUNS: dict[str, Callable[[], Run]] = {
    made.__name__: made
    for made in (
        passed, failed, inconclusive, many_cycles, very_many_cycles, many_guests, interrupted, cut_off,
        hostile,
    )
}  # fmt: skip


def resync_matrix(*cells: tuple[str, str, CycleRecord | None], **changes: object) -> Run:
    """A run with cells of (mechanism, hold, cycle); None: refused."""
    made, guests = [], []
    for mechanism, hold, seen in cells:
        name = f"{hold}-{mechanism}"
        outcome = Outcome.INCONCLUSIVE if seen is None else seen.outcome
        made.append(
            CellRecord(
                name, {"hold": hold, "resync": mechanism}, outcome, "suspend", 512 << 20, 1, f"hold {hold}",
                mechanism, 0 if seen is None else 1, 1, (), "" if seen else "refused: no", seen is None,
            )
        )  # fmt: skip
        cycles = () if seen is None else (replace(seen, cell=name),)
        guests.append(replace(guest("web-0"), cycles=cycles, cell=name))
    return replace(run(*guests), cells=tuple(made), **changes)  # type: ignore[arg-type]


def compared(agrees: bool | None, words: str, **changes: object) -> CycleRecord:
    """A cycle with this verdict on its forecast."""
    return cycle(resync=resync(forecast=forecast(agrees, words), **changes))


WRONG_AUDIT = AuditRecord(
    "chronyc tracking", 41, 40, 9, 4_310 * NS_PER_MS, 4_590 * NS_PER_MS, 4_978 * NS_PER_MS, 0,
    "claimed ± 2.1 ms, was 4 980.3 ± 0.4 ms behind",
)  # fmt: skip
CALIBRATED = Calibration("2026-11-20T10:00:00+00:00", 40, 100_000, 900_000, 1.0, 7 * NS_PER_MS, 240_000)
