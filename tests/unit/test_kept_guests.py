"""Kept guests, long looks and calibrations, as far as no guest is needed."""

from __future__ import annotations

import io
import json
import stat
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from lab.cli.main import app
from lab.core.calibration import CalibratedMachine, calibrate
from lab.core.clock import GuestClock, Stamp
from lab.core.drift_study import FREE, Discipline, between_steps, course, look, point
from lab.core.history import Host
from lab.core.method import FreezeMethod, Regime
from lab.core.timeline import ClockStep, Reading, SamplerReport
from lab.errors import HypervisorError, RecordError, Refused, UsageError
from lab.guest.local import host_probe
from lab.hypervisor.domain_status import domain_status
from lab.image.build import Progress
from lab.ports import NullView, View
from lab.process.clock import HostClock
from lab.record.journal import NullJournal
from lab.record.model import Calibration
from lab.report.accuracy import show_accuracy
from lab.report.calibration import render_calibration
from lab.report.drift import Plot, render_look
from lab.report.listings import render_kept_guests
from lab.report.page import Page
from lab.session import calibration, calibration_run, drift_study, kept_guests
from lab.session.guests import Guests
from tests.unit.builders import RUNS
from tests.unit.simulation import MS, US, Repair, S, Scenario, simulate
from tests.unit.strategies import cases

GUEST = kept_guests.KeptGuest(
    name="web-0", run="kept-1", domain="freezelab-kept-1-web-0", uuid="no-such-uuid", image="debian-1",
    memory_bytes=512 << 20, vcpus=1, resync="none", since="2026-11-20T10:00:00+00:00", host="127.0.0.1",
    port=40000, user="root", key="/keys/k", host_key="ssh-ed25519 AAAA web-0", known_hosts="", console="/c",
    sockets=(), accelerator="tcg",
)  # fmt: skip


def keep(home: Path, guest: kept_guests.KeptGuest = GUEST) -> kept_guests.KeptGuest:
    folder = home / "guests" / guest.run
    folder.mkdir(parents=True)
    made = replace(guest, known_hosts=str(folder / "known_hosts"), sockets=(str(home / "agents" / "a"),))
    kept_guests._write(home, made)
    return made


def no_view(_guests: Sequence[str]) -> AbstractContextManager[tuple[View, Progress]]:
    raise AssertionError("something is started")


def shown(width: int = 80) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=width, force_terminal=True, color_system=None, _environ={}), out


# -- kept guests -----------------------------------------------------------------------------------


def test_a_kept_guest_is_found_again_and_leaves_nothing(tmp_path: Path) -> None:
    made = keep(tmp_path)
    path = tmp_path / "kept" / "web-0.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert kept_guests.read_all(tmp_path) == [made]
    assert kept_guests.find(tmp_path, "web-0") == made
    assert Path(made.known_hosts).read_text() == "[127.0.0.1]:40000 ssh-ed25519 AAAA\n"
    (row,) = kept_guests.listing(tmp_path)
    assert row["state"] == "gone"
    assert row["login"].endswith("-p 40000 root@127.0.0.1")
    kept_guests.remove_files(tmp_path, made)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    assert kept_guests.read_all(tmp_path) == []


def test_an_unknown_kept_guest_is_refused_and_the_known_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no kept guest 'db-0'") as none:
        kept_guests.find(tmp_path, "db-0")
    assert "freezelab up" in none.value.hint
    with pytest.raises(UsageError, match="there is no kept guest"):
        drift_study.which(tmp_path, None)
    keep(tmp_path)
    with pytest.raises(UsageError, match="which guest") as some:
        drift_study.which(tmp_path, None)
    assert "web-0" in str(some.value)
    assert drift_study.which(tmp_path, "web-0").name == "web-0"
    with pytest.raises(UsageError, match="a kept guest of this name"):
        kept_guests.up(tmp_path, kept_guests.UpOptions("web-0"), no_view)
    for names, everything in ((["web-0"], True), ([], False)):
        with pytest.raises(UsageError, match="name the guests, or"):
            list(kept_guests.down(tmp_path, names, everything=everything))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "other"}', '{"schema": "freezelab.kept/1"}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "web-0.json").write_text(text)
    with pytest.raises(RecordError) as told:
        kept_guests.read_all(tmp_path)
    assert "web-0.json" in str(told.value)
    assert len(str(told.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        (kept_guests.UpOptions("web-0", resync="what"), UsageError, "unknown mechanism 'what'"),
        (kept_guests.UpOptions("web-0", resync="chrony"), Refused, "the host's time server"),
        (kept_guests.UpOptions("web-0", resync="push"), Refused, "an action at the resume"),
        (kept_guests.UpOptions("web-0", memory="12"), UsageError, "without a unit"),
        (kept_guests.UpOptions("web-0", memory="1MiB"), UsageError, "too little"),
    ],
)
def test_a_guest_that_cannot_be_kept_is_refused_before_anything_is_started(
    tmp_path: Path, options: kept_guests.UpOptions, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        kept_guests.up(tmp_path, options, no_view)
    assert list(tmp_path.iterdir()) == []


def test_an_accelerator_that_is_none_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    home = {"FREEZELAB_HOME": str(tmp_path / "home")}
    done = CliRunner().invoke(app, ["up", "--accelerator", "fast"], env=home)
    assert done.exit_code == 2
    assert done.stderr == "freezelab: unknown accelerator 'fast'\nknown: auto, kvm, tcg\n"
    assert list(tmp_path.iterdir()) == []


def test_the_state_of_a_process_that_is_not_there(tmp_path: Path) -> None:
    assert domain_status(tmp_path, "freezelab-x", "no-such-uuid") == "gone"


def test_the_list_can_be_copied_from(tmp_path: Path) -> None:
    keep(tmp_path)
    console, out = shown(60)
    render_kept_guests(kept_guests.listing(tmp_path), console)
    assert "freezelab down web-0" in out.getvalue()
    alive = [{**row, "state": "running"} for row in kept_guests.listing(tmp_path)]
    console, out = shown(60)
    render_kept_guests(alive, console)
    assert str(alive[0]["login"]) in out.getvalue().replace("\n", "")


# -- a long look -----------------------------------------------------------------------------------


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
    console, out = shown()
    console.print(plot.drawn(console.width))
    drawn = out.getvalue().splitlines()
    assert max(map(len, drawn)) <= 80
    assert sum("•" in line for line in drawn) >= 6  # it rises over the rows
    kept = Discipline(0, 12.5, 10_000, 500, ("chronyd",))
    seen = look(points, points, None, restarts=1, before=kept, after=kept)
    assert seen is not None
    console, out = shown()
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


def test_what_is_left_to_live_on_is_not_removed(tmp_path: Path) -> None:
    """What `up` ends with."""
    settings: Any = SimpleNamespace(home=tmp_path, folder=tmp_path, run="r1")
    nobody: Any = SimpleNamespace(drop_logs=lambda *_: None, recover_command="")
    for leave in (True, False):
        folder = tmp_path / "guests" / "r1"
        folder.mkdir(parents=True, exist_ok=True)
        with Guests(nobody, settings, HostClock(), NullView(), NullJournal()) as guests:
            if leave:
                guests.leave()
        assert folder.exists() is leave


def test_a_guest_that_cannot_be_removed_is_no_clean_end(tmp_path: Path) -> None:
    def destroy(name: str) -> None:
        raise HypervisorError("cannot be destroyed", where=name)

    notes: list[str] = []
    settings: Any = SimpleNamespace(home=tmp_path, folder=tmp_path, run="r1")
    stuck: Any = SimpleNamespace(
        drop_logs=lambda *_: None,
        destroy=destroy,
        spec=lambda _name: SimpleNamespace(run="r1"),
        recover_command="freezelab recover --connect qemu:///session",
    )
    view: Any = SimpleNamespace(note=notes.append, phase=lambda *_: None)
    guests = Guests(stuck, settings, HostClock(), view, NullJournal())
    guests._launched.append("web-0")
    guests._stack.callback(guests.remove, "web-0")
    with pytest.raises(HypervisorError, match="web-0: cannot be destroyed"):
        guests.__exit__(None, None, None)
    again = "freezelab recover --connect qemu:///session"
    assert notes == [f"not undone: web-0: cannot be destroyed\ntry again: {again}"]


# -- calibrations ----------------------------------------------------------------------------------


@given(st.integers(1, 80), st.integers(1, 30), st.integers(0, 1 << 32))
@cases(50)
def test_the_plan_of_a_calibration(cycles: int, controls: int, seed: int) -> None:
    plan = calibration_run.plan_for(cycles, controls, seed)
    assert plan == calibration_run.plan_for(cycles, controls, seed)
    assert len({cell.id for cell in plan.cells}) == len(plan.cells)
    assert sum(cell.repeat for cell in plan.cells) == cycles
    assert sum(cell.control for cell in plan.cells) == controls
    assert {cell.cycle.method for cell in plan.cells} <= {FreezeMethod.SIGSTOP, FreezeMethod.SUSPEND}
    if cycles >= 30:
        kinds = {(cell.cycle.method, cell.cycle.patch.longest_ns) for cell in plan.cells}
        assert len(kinds) == 2 * len(calibration_run.LENGTHS_NS)
        assert plan.cells != calibration_run.plan_for(cycles, controls, seed + 1).cells


MACHINE = Host(cpu="c", kernel="k", qemu="7.2", accelerator="tcg")


def saved(made_ns: int = 0, **changes: object) -> calibration.Saved:
    obs, _ = simulate(Scenario(1, Regime.JUMPED, pause_ns=500 * MS, watch_ns=S, repair=Repair.NONE))
    quiet, _ = simulate(Scenario(2, Regime.RUNNING, pause_ns=0, watch_ns=S, repair=Repair.NONE))
    figures = calibrate([(500 * MS, obs), (500 * MS, quiet)])
    assert figures is not None
    machine = calibration.machine_of(MACHINE)
    summary = {
        name: value
        for name, value in asdict(Calibration("2026", 1, 5, 6, 1.0, 7, 8)).items()
        if name not in ("stale", "rough")
    }
    made = calibration.Saved("2026", made_ns, "run", 1, machine, summary, calibration.as_data(figures))
    return replace(made, **changes)  # type: ignore[arg-type]


def test_runs_quote_the_last_calibration(tmp_path: Path) -> None:
    host = MACHINE
    assert calibration.for_record(tmp_path, host) is None
    calibration._write(tmp_path, saved(HostClock().now().real_ns))
    assert calibration.load(tmp_path) is not None
    quoted = calibration.for_record(tmp_path, host)
    assert quoted is not None
    assert Calibration(**quoted) == Calibration("2026", 1, 5, 6, 1.0, 7, 8, "", "only 1 of 30 pauses")
    moved = calibration.for_record(tmp_path, replace(host, kernel="k2"))
    assert moved is not None
    assert "another kernel" in moved["stale"]
    calibration._write(tmp_path, saved(0))
    old = calibration.for_record(tmp_path, host)
    assert old is not None
    assert "days old" in old["stale"]
    (tmp_path / "calibration.json").write_text("{}")
    assert calibration.for_record(tmp_path, host) is None
    with pytest.raises(RecordError, match="not a calibration"):
        calibration.load(tmp_path)


def test_the_machine_is_not_named() -> None:
    made = calibration.machine_of(Host())
    identity = Path("/etc/machine-id")
    assert len(made.id) == 16
    if identity.exists() and identity.stat().st_size:
        assert made.id not in identity.read_text()
    assert made == CalibratedMachine(made.id, "", "", "", "")


@pytest.mark.parametrize(("met", "lost", "code"), [(1, 0, 0), (0, 0, 1), (1, 1, 3), (0, 1, 1)])
def test_a_calibration_is_never_green_by_accident(met: int, lost: int, code: int) -> None:
    made = saved()
    everything = {**made.figures["all"], "met": met, "lost": lost}
    assert calibration.exit_code(replace(made, figures={**made.figures, "all": everything})) == code


def test_counts() -> None:
    assert calibration_run.counts(None, quick=False) == (calibration.CYCLES, calibration_run.CONTROLS)
    assert calibration_run.counts(1, quick=False) == (1, 1)
    with pytest.raises(UsageError):
        calibration_run.counts(5, quick=True)


def full(**changes: object) -> calibration.Saved:
    """A calibration of as many pauses as it takes, on a machine at rest."""
    made = saved(HostClock().now().real_ns, **changes)
    everything = {**made.figures["all"], "count": calibration.CYCLES, "met": calibration.CYCLES}
    return replace(made, figures={**made.figures, "all": everything})


def test_a_rough_calibration_does_not_take_a_good_ones_place(tmp_path: Path) -> None:
    good, loaded = full(made="good"), full(made="busy", load=6.3, cpus=2)
    few = saved(HostClock().now().real_ns, made="few")
    assert (good.rough, loaded.rough, few.rough) == (
        "", "measured at a load of 6.3 on 2 CPUs", "only 1 of 30 pauses"
    )  # fmt: skip
    for first in (few, loaded):
        assert calibration.store(tmp_path, first) == ""  # better than none
    kept = calibration.load(tmp_path)
    assert kept is not None
    assert kept.made == "busy"
    assert calibration.store(tmp_path, good) == ""
    for later in (few, loaded):
        why = calibration.store(tmp_path, later)
        assert (
            why == f"{later.rough}; the calibration of good stays (freezelab calibrate --forget removes it)"
        )
    assert calibration.load(tmp_path) == good
    assert calibration.store(tmp_path, replace(few, machine=replace(few.machine, kernel="k2"))) == ""


def test_a_rough_calibration_is_quoted_as_one(tmp_path: Path) -> None:
    calibration.store(tmp_path, full(load=6.3, cpus=2))
    quoted = calibration.for_record(tmp_path, MACHINE)
    assert quoted is not None
    console, out = shown(120)
    show_accuracy(Page(console), replace(RUNS["passed"](), calibration=Calibration(**quoted)))
    assert (
        "the calibration is rough: measured at a load of 6.3 on 2 CPUs: run freezelab calibrate"
        in out.getvalue()
    )


@pytest.mark.parametrize("damaged", [False, True])
def test_a_calibration_can_be_forgotten(tmp_path: Path, damaged: bool) -> None:
    calibration.store(tmp_path, full())
    if damaged:
        (tmp_path / "calibration.json").write_text("{")
    environment = {"FREEZELAB_HOME": str(tmp_path)}
    done = CliRunner().invoke(app, ["calibrate", "--forget"], env=environment)
    assert done.exit_code == 0
    assert done.stdout == f"removed {tmp_path}/calibration.json; later reports quote no calibration\n"
    assert calibration.load(tmp_path) is None
    again = CliRunner().invoke(app, ["calibrate", "--forget"], env=environment)
    assert again.exit_code == 2
    assert "no calibration yet" in again.stderr


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_calibration_fits_the_terminal(width: int) -> None:
    made = saved()
    console, out = shown(width)
    loaded = replace(made, load=2.5, cpus=2)
    assert loaded.busy
    assert not replace(loaded, load=1.9).busy
    render_calibration(
        made.made, made.run, made.figures, "another kernel since: 2, then 1", console, "the load was 2.5"
    )
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "500 ms" in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "1/1" in text
    assert "another kernel" in text
    assert "the load was 2.5" in text
    assert "noise floor" in text


def test_a_probe_of_the_host_leaves_no_open_descriptors() -> None:
    """The local probe holds nothing open in this process."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    with host_probe(HostClock()) as probe:
        probe.read()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
