"""live-migrate: its keys, what it predicts, what its brown-out is, and how it is told."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.core.brown_out import BLOCK, PAGE, BrownOut, Speed, brown_out
from lab.core.judge import measure
from lab.core.method import FreezeMethod, Regime
from lab.core.migration import MigrationReport, MigrationSample, MigrationSpec
from lab.core.plan import DirtySpec, Plan, ResyncMechanism
from lab.core.predictions import prediction_checks
from lab.core.result import CycleResult
from lab.core.timeline import Observation, ProbeFacts
from lab.core.units import parse_byte_rate
from lab.core.work import WorkCounts
from lab.hypervisor.migration_log import MigrationLog, shortfall
from lab.hypervisor.qmp import MonitorError
from lab.playbook import parse
from lab.record.cycle import cycle_of
from lab.report.migration import times_downtime
from tests.unit.builders import ms
from tests.unit.journalled import EXPECT, cycle
from tests.unit.playbooks import mistakes_in
from tests.unit.simulation import MS, S

METHOD = FreezeMethod.LIVE_MIGRATE
MIB = 1 << 20
OK = "name: x\nresync: none\ncycle: {method: live-migrate, patch: {hold: 0s}"
WINDOW = 20 * MS


def planned(text: str) -> Plan:
    return parse(text.encode(), "p.yaml")


def refused(text: str) -> str:
    return "\n".join(mistakes_in(text))


def spec_of(keys: str) -> Plan:
    return planned(f"{OK}, {keys}}}\n")


def test_what_is_left_out_is_as_qemu_has_it() -> None:
    plan = planned(OK + "}\n")
    assert plan.cycle.migration == MigrationSpec(300 * MS, 128 * MIB, 0, False, None)
    assert plan.cycle.dirty is None


def test_each_key_is_read() -> None:
    keys = "max_downtime: 50ms, bandwidth: 32 MiB/s, multifd: 4, auto_converge: true, post_copy: 2s"
    cycle_spec = spec_of(f"{keys}, dirty_rate: 16 MiB/s, dirty_memory: 32 MiB").cycle
    assert cycle_spec.migration == MigrationSpec(50 * MS, 32 * MIB, 4, True, 2 * S)
    assert cycle_spec.dirty == DirtySpec(16 * MIB, 32 * MIB)
    assert spec_of("post_copy: never").cycle.migration.post_copy_ns is None
    assert spec_of("dirty_rate: 0 MiB/s").cycle.dirty == DirtySpec(0)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("bandwidth: 32 MiB", "not a rate"),
        ("bandwidth: 100Mbit/s", "unknown unit"),
        ("bandwidth: 1 KiB/s", "too little"),
        ("bandwidth: -1 MiB/s", "negative"),
        ("multifd: 17", "too many"),
        ("post_copy: soon", "not a duration"),
        ("max_downtime: 0s", "zero"),
        ("dirty_memory: 64 MiB", "dirty_memory without dirty_rate"),
        ("prove_memory: true", "nothing to prove"),
    ],
)
def test_mistakes(keys: str, says: str) -> None:
    assert says in refused(f"{OK}, {keys}}}\n")


@pytest.mark.parametrize("key", ["max_downtime: 1s", "multifd: 2", "post_copy: 1s", "dirty_rate: 1 MiB/s"])
def test_they_go_with_no_other_method(key: str) -> None:
    text = f"name: x\nresync: none\ncycle: {{method: in-place, patch: {{hold: 0s}}, {key}}}\n"
    assert "does not go with method in-place" in refused(text)


def test_a_kvm_reload_needs_that_there_is_no_qemu() -> None:
    text = "name: x\nresync: none\ncycle: {method: live-migrate, patch: reload-kvm}\n"
    assert "cannot be applied under live-migrate" in refused(text)


def test_axes_and_ids() -> None:
    axes = "post_copy: [never, 2s], multifd: [0, 2], max_downtime: [50ms], dirty_rate: [1 MiB/s]"
    plan = planned(f"{OK}}}\nmatrix: {{{axes}}}\n")
    assert [cell.id for cell in plan.cells][:2] == [
        "pre-copy-multifd-0-downtime-50ms-dirty-1MiBps",
        "pre-copy-multifd-2-downtime-50ms-dirty-1MiBps",
    ]
    assert {cell.cycle.migration.post_copy_ns for cell in plan.cells} == {None, 2 * S}


@pytest.mark.parametrize("text", ["", "1", "1 MiB", "MiB/s", "1 MB/s", "1 MiB/h", "1 MiB/s/s"])
def test_texts_that_are_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match=r"rate|unit"):
        parse_byte_rate(text)


# -- what it predicts ------------------------------------------------------------------------------------


def migrated(clocksource: str, **more: Any) -> CycleResult:
    obs = cycle(METHOD, 0, 2 * S, **more)
    facts = replace(obs.facts_before or ProbeFacts("one", ""), clocksource=clocksource)
    return measure(replace(obs, facts_before=facts), ResyncMechanism.AGENT, EXPECT)


def agreed(result: CycleResult) -> dict[str, bool | None]:
    return {one.claim: one.agrees for one in prediction_checks(result)[:2]}


def test_clocks_stop_but_for_one_that_is_read_again() -> None:
    assert agreed(migrated("tsc")) == {"regime": True, "wall clock": True}
    part = {"regime": Regime.MIXED, "standing": 30}
    assert agreed(migrated("kvm-clock", **part)) == {"regime": True, "wall clock": True}
    assert agreed(migrated("tsc", **part))["regime"] is False
    # Of a clock that stood still nearly all of the time, nothing is claimed.
    assert agreed(migrated("kvm-clock")) == {"regime": None, "wall clock": True}
    (text,) = [c.predicted for c in prediction_checks(migrated("kvm-clock")) if c.claim == "regime"]
    assert text == "mixed: kvm-clock is read again"


# -- brown-out -------------------------------------------------------------------------------------------


def counted(result: CycleResult, slower: float, order_ns: int) -> Observation:
    """The observation with counts: as fast as ever until the order, then slower, until the stop."""
    obs, pause = result.observation, result.pause
    assert obs.stop is not None and pause is not None and pause.edges.stop is not None
    stop = pause.edges.stop.mid_ns
    ended, units, cpu = [], [], []
    at = stop - 4 * S
    while at < stop + S:
        ended.append(at)
        late = stop - order_ns < at <= stop
        units.append(100)
        cpu.append(round(10 * MS * (slower if late else 1) * (1 + len(ended) // BLOCK % 2 * 0.1)))
        at += WINDOW
    report = MigrationReport(
        obs.stop.called.raw_ns - order_ns, order_ns + S, "completed", 8 * MS, order_ns, 1, 2, MigrationSpec()
    )
    counts = WorkCounts(tuple(ended), tuple(units), tuple(cpu), tuple([5] * len(ended)))
    return replace(obs, migration=report, work=counts)


def test_the_brown_out_is_how_much_longer_the_same_work_takes() -> None:
    result = migrated("tsc")
    found = brown_out(counted(result, 2.0, S), result.pause)
    assert found is not None and found.pre_copy is not None
    speed = found.pre_copy
    assert speed.value == pytest.approx(0.5, abs=0.03)
    assert speed.low <= 0.5 <= speed.high
    assert speed.low == pytest.approx(speed.value * 1.0 / 1.05, abs=0.03)
    assert speed.worst <= speed.value
    assert found.post_copy is None
    assert found.dirtied == pytest.approx(5 * PAGE * S / WINDOW, rel=0.01)


def test_too_little_before_it_bounds_nothing() -> None:
    result = migrated("tsc")
    obs = counted(result, 2.0, S)
    assert obs.work is not None
    rows = (obs.work.ended, obs.work.units, obs.work.cpu, obs.work.pages)
    cut = WorkCounts(*(row[-120:] for row in rows))  # 0.4 s before the order are left
    found = brown_out(replace(obs, work=cut), result.pause)
    assert found is not None and found.pre_copy is None
    assert brown_out(replace(obs, work=None), result.pause) is None


def test_it_is_in_the_record() -> None:
    result = migrated("tsc")
    obs = counted(result, 2.0, S)
    record = cycle_of(replace(result, observation=obs), [], EXPECT)
    assert isinstance(record.brown_out, BrownOut) and isinstance(record.brown_out.pre_copy, Speed)
    assert record.migration == obs.migration
    ratio = times_downtime(replace(record, felt=None, pause=ms(12, 1)))
    assert ratio is not None
    assert list(ratio) == pytest.approx([12 / 8, 11 / 9, 13 / 7])


# -- query-migrate ---------------------------------------------------------------------------------------

ACTIVE = {
    "status": "active", "cpu-throttle-percentage": 30,
    "ram": {"dirty-sync-count": 4, "remaining": 96 * MIB, "transferred": 7, "dirty-pages-rate": 1000,
            "page-size": 4096},
}  # fmt: skip


class Answers:
    """A monitor with these answers; None: it does not answer."""

    def __init__(self, *answers: dict[str, Any] | None) -> None:
        self.answers = list(answers)

    def send(self, command: str) -> int:
        assert command == "query-migrate"
        return 1

    def wait(self, _number: int, _wait_s: float) -> bool:
        return self.answers[0] is not None

    def answer(self, _number: int, _wait_s: float = 0) -> Any:
        return self.answers.pop(0)

    def execute(self, _command: str, _wait_s: float) -> Any:
        if self.answers[0] is None:
            raise MonitorError("QEMU gives no answer")
        return self.answers.pop(0)


class Ticking:
    def __init__(self) -> None:
        self.at = 0

    def now(self) -> Any:
        self.at += 60 * MS
        return SimpleNamespace(raw_ns=self.at)


def log_of(*answers: dict[str, Any] | None) -> MigrationLog:
    return MigrationLog(cast(Any, Answers(*answers)), MigrationSpec(), cast(Any, Ticking()))


def test_what_qemu_answers() -> None:
    done = {"status": "completed", "downtime": 8, "total-time": 1400, "ram": {"transferred": 9}}
    log = log_of({"status": "setup"}, ACTIVE, *[done] * 9)
    for _ in range(8):
        log.look()
    first, second = log.report(1).samples[:2]
    assert (first.status, first.passes) == ("setup", 0)
    assert second == MigrationSample(second.at_ns, "active", 4, 96 * MIB, 7, 4096 * 1000, 30)
    assert first.at_ns < second.at_ns


def test_a_completed_one_has_its_downtime_and_a_cancelled_one_has_none() -> None:
    done = log_of(
        {"status": "completed", "downtime": 8, "total-time": 1400, "ram": {"transferred": 9}}
    ).report(1)
    assert (done.status, done.downtime_ns, done.total_ns, done.transferred) == (
        "completed",
        8 * MS,
        1400 * MS,
        9,
    )
    gone = log_of({"status": "cancelled", "total-time": 3}).report(1)
    assert (gone.status, gone.downtime_ns, gone.total_ns) == ("cancelled", None, None)
    silent = log_of(None)
    silent.look()
    silent.look()
    assert silent.report(1).status == "none"


def test_why_one_does_not_converge() -> None:
    sample = MigrationSample(0, "active", 14, 312 * MIB, 0, 45 * MIB, 0)
    assert shortfall(sample, 12.04) == (
        "312 MiB of memory remained after 12.0 s and 14 passes, while the guest dirtied 45 MiB/s"
    )
    assert "12.0 s" in shortfall(None, 12.0)
