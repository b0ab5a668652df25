"""The study of a kept guest's drift, as far as no guest is needed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.clock import GuestClock, Stamp
from lab.core.drift_study import FREE, Discipline, between_steps, course, look, point
from lab.core.timeline import ClockStep, Reading, SamplerReport
from lab.errors import UsageError
from lab.guest.local import host_probe
from lab.process.clock import HostClock
from lab.report.drift import Plot, render_look
from lab.session import drift_study
from tests.unit.kept_guest import GUEST, console_of
from tests.unit.simulation import MS, US, S
from tests.unit.strategies import cases


@pytest.mark.parametrize(
    ("length", "every", "said"),
    [
        ("1x", "1s", "--for"),
        ("10m", "ten", "--every"),
        ("10m", "1ms", "too short"),
        ("1s", "1s", "too short"),
    ],
)
def test_times_that_make_no_sense(length: str, every: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        drift_study.times(length, every)


def test_the_lab_s_own_noise_is_around_zero() -> None:
    """The probe as a process of this host: its offsets hold zero, whatever the host is busy with."""
    points = []
    with host_probe(HostClock()) as probe:
        probe.start_cycle()
        for _ in range(20):
            made = point([probe.read() for _ in range(4)])
            assert made is not None
            points.append(made)
        sampler = probe.samples()
        assert probe.facts().boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        process = probe.ssh._process  # type: ignore[attr-defined]
    assert process.status is not None
    for each in points:
        assert 0 in each.raw.offset
        assert 0 in each.real.offset
    seen = look(points, points, sampler)
    assert seen is not None
    assert seen.noise is not None
    for drift in (seen.raw.drift, seen.real.drift, seen.noise.drift):
        assert drift is not None
        assert drift.low <= 0 <= drift.high
    assert seen.raw.straight
    assert not seen.steps


def reading(at: int, raw_ppb: int, real_off: int, r: int = 0) -> Reading:
    """One exchange at host MONOTONIC_RAW `at` with a guest whose clocks are known."""

    def host(t: int) -> Stamp:
        return Stamp(t, t + 1_000 * S)

    def guest(t: int) -> dict[GuestClock, int]:
        raw = t + 50 * S + t * raw_ppb // S
        return {
            GuestClock.RAW: raw, GuestClock.MONO: raw, GuestClock.BOOT: raw,
            GuestClock.REAL: t + 1_000 * S + t * raw_ppb // S + real_off,
        }  # fmt: skip

    return Reading(host(at), guest(at + 300 * US + r), guest(at + 400 * US + r), host(at + MS + r))


@given(st.integers(-300_000, 300_000), st.sampled_from([0, -40 * MS, 3 * S]), st.integers(5, 55))
@cases(30)
def test_a_look_tells_drift_and_steps(ppb: int, step: int, at: int) -> None:
    points = []
    for n in range(60):
        burst = [reading(n * S + k * 2 * MS, ppb, step if n >= at else 0, k * 10 * US) for k in range(4)]
        made = point(burst)
        assert made is not None
        points.append(made)
    stepped = points[at].guest_ns.low_ns - MS
    steps = (ClockStep(stepped, step),) if step else ()
    sampler = SamplerReport(4 * MS, 9, 0, 1 << 62, 4 * MS, 8 * MS, (), steps)
    seen = look(points, [], sampler)
    assert seen is not None
    assert seen.raw.straight
    assert seen.real.straight
    for each in (seen.raw, seen.real):
        assert each.drift is not None
        assert each.drift.low - 1e-3 <= ppb / 1e3 <= each.drift.high + 1e-3
    assert seen.real.segments == (2 if step else 1)
    assert seen.steps == steps
    # Nobody watched for steps: a large one is found by the readings themselves.
    blind = look(points, [], None)
    assert blind is not None
    assert blind.real.segments == (2 if abs(step) > 100 * MS else 1)
    assert (blind.real.wander_ns > 0) == (blind.real.segments == 1 and step != 0)


def test_a_burst_with_a_step_in_it_says_nothing() -> None:
    made = [point([reading(n * S, 0, 0), reading(n * S + 4 * MS, 0, 0)]) for n in range(5)]
    points = [p for p in made if p is not None]
    inside = ClockStep(points[2].guest_ns.mid_ns, -MS)
    cut = between_steps(points, SamplerReport(4 * MS, 9, 0, 1 << 62, 4 * MS, 8 * MS, (), (inside,)))
    assert [len(part) for part in cut] == [2, 2]


def test_a_guest_that_stood_still_is_cut_there() -> None:
    running = [point([reading(n * S, 0, 0)]) for n in range(10)]
    samples = [p.raw for p in running if p is not None]
    late = [replace(s, offset=s.offset.shifted(-3 * S)) for s in samples[5:]]
    seen = course([samples[:5] + late], FREE)
    assert (seen.segments, seen.straight) == (2, True)


@pytest.mark.parametrize(
    ("status", "freq", "tick", "programs", "held"),
    [(0x40, 0.0, 10_000, (), False), (0x41, 0.0, 10_000, (), True), (0, 0.0, 10_000, (), True),
     (0x40, 1.5, 10_000, (), True), (0x40, 0.0, 9_999, (), True), (0x40, 0.0, 10_000, ("chronyd",), True)],
)  # fmt: skip
def test_a_clock_is_disciplined_when_the_kernel_or_a_program_says_so(
    status: int, freq: float, tick: int, programs: tuple[str, ...], held: bool
) -> None:
    assert Discipline(status, freq, tick, 16_000_000, programs).disciplined is held


def test_plot_and_result_fit_80_columns() -> None:
    made = [point([reading(n * S, 40_000, 0, n * US)]) for n in range(30)]
    points = [p for p in made if p is not None]
    plot = Plot("web-0", 60 * S)
    for n, each in enumerate(points):
        plot.add(n * S, each, points[0])
    console, out = console_of()
    console.print(plot.drawn(console.width))
    drawn = out.getvalue().splitlines()
    assert max(map(len, drawn)) <= 80
    assert sum("•" in line for line in drawn) >= 6  # it rises over the rows
    kept = Discipline(0, 12.5, 10_000, 500, ("chronyd",))
    seen = look(points, points, None, restarts=1, before=kept, after=kept)
    assert seen is not None
    console, out = console_of()
    render_look("web-0", seen, 60 * S, console)
    text = " ".join(out.getvalue().split())
    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert "drift +41 ± 33 ppm; one straight line" in text
    assert "chronyd; adjtimex: synchronised, frequency +12.50 ppm" in text
    assert "restarted" in text
    assert "ended early, of 60 s" in text
    data = json.loads(json.dumps(drift_study.as_data(GUEST, seen)))
    assert data["raw"]["drift"]["low"] <= 40 <= data["raw"]["drift"]["high"]
    assert data["discipline"]["after"]["held"] is True


def test_a_probe_of_the_host_leaves_no_open_descriptors() -> None:
    """The local probe holds nothing open in this process."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    with host_probe(HostClock()) as probe:
        probe.read()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
