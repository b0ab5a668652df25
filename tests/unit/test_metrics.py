"""Metrics of runs, in both of Prometheus' formats."""

from __future__ import annotations

import json
import os
import resource
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_classic

from lab.cli.live_outputs import LiveOutputs
from lab.core.verdict import Outcome
from lab.errors import MachineError
from lab.record.follow import FollowedRun
from lab.record.journal import read_history
from lab.record.run import Run, judge
from lab.report.metric_families import LONGEST_LABEL, MetricKind, MetricSamples
from lab.report.metrics import RUN_METRICS, run_samples, write_metrics
from tests.unit.builders import RUNS, cycle, guest, resync_matrix, run
from tests.unit.fleets import ALL
from tests.unit.prometheus_samples import samples
from tests.unit.prometheus_tools import fetched, free_port, lint, program, running
from tests.unit.real_histories import NAMES, recorded
from tests.unit.replayed import replayed


def of(made: Run) -> dict[str, list[float]]:
    """The values of each metric."""
    found: dict[str, list[float]] = {}
    for (name, _), value in samples(generate_latest(run_samples(made)).decode()).items():
        found.setdefault(name, []).append(value)
    return found


@pytest.fixture(params=[*RUNS, "matrix", *ALL])
def made(request: pytest.FixtureRequest, fleet_runs: dict[str, Run], matrix_runs: dict[str, Run]) -> Run:
    if request.param == "matrix":
        return matrix_runs["methods"]
    return RUNS[request.param]() if request.param in RUNS else fleet_runs[request.param]


def test_promtool_has_nothing_to_say(made: Run) -> None:
    for in_progress in (False, True):
        assert lint(generate_latest(run_samples(made, in_progress=in_progress, frozen=1))) == ""


def test_both_formats_are_read_by_their_readers(made: Run) -> None:
    classic = samples(generate_latest(run_samples(made)).decode())
    families = list(read_openmetrics(openmetrics(run_samples(made)).decode()))  # type: ignore[no-untyped-call]
    given = {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}
    assert given == classic
    assert {family.unit for family in families} <= {"", "seconds", "ratio"}
    for family in families:
        assert family.name.endswith(family.unit)


def test_names_follow_the_conventions() -> None:
    for kind in RUN_METRICS:
        for name in kind.exposed:
            assert name.startswith("freezelab_")
            assert not name.endswith(("_ns", "_ms", "_s", "_bytes", "_count", "_sum", "_bucket"))
        assert kind.labels[0] == "playbook", "files of two playbooks would have the same series"
        assert (kind.kind == "counter") == kind.exposed[0].endswith("_total")
        assert kind.text.endswith(".")
        assert "run" not in kind.labels or kind.name == "freezelab_run", "a label that grows with every run"


def test_an_interval_has_its_bounds() -> None:
    pause = cycle().pause
    assert pause is not None
    found = of(run())
    assert found["freezelab_pause_seconds"] == [pause.value_ns / 1e9]
    assert found["freezelab_pause_lower_bound_seconds"] == [pause.low_ns / 1e9]
    assert found["freezelab_pause_upper_bound_seconds"] == [pause.high_ns / 1e9]
    assert found["freezelab_clock_offset_seconds"][1] == pytest.approx(-5.0061)
    drift = cycle().drift.after
    assert drift is not None
    assert found["freezelab_clock_drift_upper_bound_ratio"][1] == pytest.approx(drift.high * 1e-6)


def test_the_last_freeze_counts_and_no_control_cycle() -> None:
    made = RUNS["many_cycles"]()
    found = of(made)
    last = made.guests[0].cycles[-1].pause
    assert last is not None
    assert found["freezelab_pause_seconds"] == [last.value_ns / 1e9]
    assert sum(found["freezelab_cycles_total"]) == len(made.guests[0].cycles)


def test_the_bounds_of_a_median_of_few_cycles_are_those_of_all_of_them() -> None:
    pauses = [cycle(n).pause for n in range(2)]
    found = of(run(guest("web-0", cycle(0), cycle(1))))
    (low,), (high,) = (found[f"freezelab_pause_median_{bound}_bound_seconds"] for bound in ("lower", "upper"))
    assert low == min(pause.low_ns for pause in pauses if pause) / 1e9
    assert high == max(pause.high_ns for pause in pauses if pause) / 1e9


def test_a_run_in_progress_has_no_outcome() -> None:
    text = generate_latest(run_samples(run(), in_progress=True)).decode()
    assert 'freezelab_run_in_progress{playbook="first-freeze"} 1.0' in text
    assert "freezelab_cycles_total{" in text
    assert "freezelab_run_outcome" not in text
    assert "freezelab_run_end_timestamp_seconds" not in text


@pytest.mark.parametrize("name", ["passed", "failed", "inconclusive"])
def test_one_outcome_is_1(name: str) -> None:
    found = samples(generate_latest(run_samples(RUNS[name]())).decode())
    outcomes = {
        dict(labels)["outcome"]: v for (n, labels), v in found.items() if n == "freezelab_run_outcome"
    }
    assert outcomes == {outcome.value: float(outcome.value == name) for outcome in Outcome}


HOSTILE = [
    'x"} 1\nevil_metric 1',
    "a\\",
    'a\\"b',
    "a\r\nb\x00\x1b[31m\x7f\u202e\ud800",
    "{}=,#",
    "z" * 10_000,
    "",
]


@pytest.mark.parametrize("bad", HOSTILE)
def test_a_hostile_name_stays_the_value_of_a_label(bad: str) -> None:
    plain = run_samples(run(guest("web-0")))
    named = replace(run(guest(bad)), playbook=replace(run().playbook, name=bad), id=bad)
    hostile = run_samples(replace(named, host=replace(named.host, cpu=bad, qemu=bad)))
    for make, read in ((generate_latest, read_classic), (openmetrics, read_openmetrics)):
        text = make(hostile).decode()
        assert {s.name for f in read(text) for s in f.samples} == {
            s.name for f in read(make(plain).decode()) for s in f.samples
        }
        values = {value for f in read(text) for s in f.samples for value in s.labels.values()}
        assert max(map(len, values)) <= LONGEST_LABEL
        assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for value in values for char in value)
    assert lint(generate_latest(hostile)) == ""


def test_names_that_are_cleaned_to_one_do_not_make_a_series_twice() -> None:
    found = samples(generate_latest(run_samples(run(guest("a"), guest("a\x00"), guest("a\x1b")))).decode())
    assert sum(name == "freezelab_pause_seconds" for name, _ in found) == 1


def test_a_matrix_has_its_cells() -> None:
    made = resync_matrix(("agent", "5 s", cycle()), ("none", "5 s", None))
    found = samples(generate_latest(run_samples(made)).decode())
    outcomes = {
        (dict(labels)["cell"], dict(labels)["outcome"]): value
        for (name, labels), value in found.items()
        if name == "freezelab_cell_outcome"
    }
    assert outcomes[made.cells[0].id, "passed"] == 1
    assert outcomes[made.cells[1].id, "inconclusive"] == 1


@pytest.mark.parametrize("name", NAMES)
def test_what_run_json_measured_is_there(name: str) -> None:
    """Of real runs: each guest's last measured pause."""
    from pydantic import TypeAdapter

    given = json.loads(recorded(name))
    made = TypeAdapter(Run).validate_python(given)
    expected = set()
    for each in given["guests"]:
        pauses = [c["pause"]["value_ns"] for c in each["cycles"] if c["pause"] and not c["control"]]
        expected |= {pauses[-1] / 1e9} if pauses else set()
    assert expected <= set(of(made).get("freezelab_pause_seconds", []))


def test_labels_have_to_fit() -> None:
    made = MetricSamples([MetricKind("a", "gauge", "A.", ("x",))])
    with pytest.raises(ValueError, match="labels"):
        made.put("a", 1)
    with pytest.raises(KeyError):
        made.put("b", 1, "x")


# -- the file ------------------------------------------------------------------------------------------


def test_the_file_is_replaced_as_a_whole_and_readable_for_others(tmp_path: Path) -> None:
    path = tmp_path / "freezelab.prom"
    path.write_text("old")
    os.umask(before := os.umask(0o022))
    write_metrics(run(), path)
    assert samples(path.read_text())
    assert [one.name for one in tmp_path.iterdir()] == ["freezelab.prom"]
    assert path.stat().st_mode & 0o044 == 0o044 & ~before


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "freezelab.prom"
    write_metrics(run(), path)
    old, limits = path.read_text(), resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(MachineError, match="cannot be written"):
            write_metrics(RUNS["failed"](), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_text() == old
    assert [one.name for one in tmp_path.iterdir()] == ["freezelab.prom"]
    with pytest.raises(MachineError, match="No space left"):
        write_metrics(run(), Path("/dev/full"))


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/sys/kernel/freezelab.prom", "(Permission denied|Read-only file system|Operation not permitted)"),
        ("/nowhere/freezelab.prom", "No such file or directory"),
        ("/dev/null/freezelab.prom", "Not a directory"),
        ("/tmp", "Is a directory"),
    ],
)
def test_a_folder_that_takes_no_file_is_told_before_the_run(path: str, why: str) -> None:
    """Root may write to any folder of a disk, but not there."""
    with pytest.raises(MachineError, match=f"{path}: cannot be written: {why}\n"):
        LiveOutputs(Path(path)).check()


def test_a_check_leaves_the_file_and_the_folder_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "freezelab.prom").write_text("old")
    LiveOutputs(tmp_path / "freezelab.prom").check()
    LiveOutputs(tmp_path / "another.prom").check()
    LiveOutputs(Path("/dev/full")).check()
    assert [one.name for one in tmp_path.iterdir()] == ["freezelab.prom"]
    assert (tmp_path / "freezelab.prom").read_text() == "old"


def test_the_file_is_written_when_a_cycle_has_ended(tmp_path: Path) -> None:
    path, folder = tmp_path / "freezelab.prom", tmp_path / "run"
    seen: list[str] = []
    live = LiveOutputs(path)
    for entry in replayed("control-cycles", folder):
        live.appended(folder, entry)
        if path.exists() and (not seen or path.read_text() != seen[-1]):
            seen.append(path.read_text())
    counts = [sum(v for (n, _), v in samples(text).items() if n == "freezelab_cycles_total") for text in seen]
    assert counts == [1, 2, 3, 4]
    assert "freezelab_run_outcome" not in seen[-1]
    whole, _ = judge(read_history(folder))
    live.judged(whole, folder)
    live.ended(0)
    assert samples(path.read_text())["freezelab_run_in_progress", (("playbook", whole.playbook.name),)] == 0
    assert 'freezelab_run_outcome{outcome="passed"' in path.read_text()


def test_a_run_without_such_outputs_is_not_judged_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FollowedRun, "update", lambda _: pytest.fail("it costs time"))
    for entry in replayed("suspend", tmp_path / "run"):
        LiveOutputs().appended(tmp_path / "run", entry)


def test_a_file_that_cannot_be_written_is_told_once_and_the_run_goes_on(tmp_path: Path) -> None:
    told: list[str] = []
    live = LiveOutputs(Path("/dev/full"), note=told.append)
    for entry in replayed("control-cycles", tmp_path / "run"):
        live.appended(tmp_path / "run", entry)
    assert told == ["/dev/full: cannot be written: No space left on device"]
    live.judged(run(), tmp_path)
    with pytest.raises(MachineError, match="No space left"):
        live.ended(0)


# -- the real programs -----------------------------------------------------------------------------------


def test_node_exporter_exposes_the_files_of_several_playbooks(
    tmp_path: Path, fleet_runs: dict[str, Run]
) -> None:
    for name in ("rolled_out", "stopped"):
        write_metrics(fleet_runs[name], tmp_path / f"{name}.prom")
    port = free_port()
    address = f"127.0.0.1:{port}"
    argv: list[str | Path] = [
        program("prometheus-node-exporter"), f"--web.listen-address={address}",
        "--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={tmp_path}",
    ]  # fmt: skip
    with running(argv, f"http://{address}/metrics", tmp_path):
        for _ in range(2):
            exposed, _ = fetched(f"http://{address}/metrics")
    given = samples(exposed)
    assert given["node_textfile_scrape_error", ()] == 0
    assert given["promhttp_metric_handler_errors_total", (("cause", "gathering"),)] == 0
    mine = {key: value for key, value in given.items() if key[0].startswith("freezelab_")}
    written = [samples((tmp_path / f"{name}.prom").read_text()) for name in ("rolled_out", "stopped")]
    assert mine == written[0] | written[1]
    assert len(mine) == sum(map(len, written)), "two playbooks have a series of the same labels"
