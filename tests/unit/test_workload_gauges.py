"""Gauges: from a client's lines to what they were before a pause and after it."""

from __future__ import annotations

import pytest

from lab.core.clock import Interval, Stamp
from lab.core.workload.gauges import GaugeSummary, summaries
from lab.core.workload.sample import GaugeReading, NotASample, SampleReader, WorkloadRequest

AT = Stamp(1_000_000_000, 2_000_000_000)


def test_a_gauge_of_its_own_and_one_beside_a_request() -> None:
    reader = SampleReader()
    reader.read('{"freezelab": 1}', AT)
    alone = reader.read('{"gauge": {"rto_ns": 204000000}, "at": 900000000, "by": "a"}', AT)
    assert alone == (GaugeReading(900_000_000, {"rto_ns": 204_000_000}, "a"),)
    request, beside = reader.read(
        '{"seq": 1, "due": 1, "sent": 1, "done": 5, "ok": true, "gauge": {"n": -3}}', AT
    )
    assert isinstance(request, WorkloadRequest)
    assert beside == GaugeReading(5, {"n": -3})


@pytest.mark.parametrize(
    "line",
    [
        '{"gauge": 5}', '{"gauge": {"a": 1.5}}', '{"gauge": {"a": true}}', '{"gauge": {"a": "5"}}',
        '{"gauge": {"": 5}}',
        '{"gauge": {"a": 1}, "event": "x"}', '{"gauge": {"a": 99999999999999999999}}',
        '{"gauge": {' + ",".join(f'"g{n}": 1' for n in range(40)) + "}}",
    ],
)  # fmt: skip
def test_what_is_no_gauge(line: str) -> None:
    with pytest.raises(NotASample):
        SampleReader().read(line, AT)


def _series(*values: int, name: str = "x", by: str = "") -> list[GaugeReading]:
    """Values at 0, 10, 20 …"""
    return [GaugeReading(10 * place, {name: value}, by) for place, value in enumerate(values)]


def test_before_and_after_a_pause() -> None:
    readings = _series(5, 6, 7, 0, 0, 0, 9, 6)
    assert summaries(readings, Interval(25, 55)) == (GaugeSummary("x", 6, 0, 9, 6, 15),)


def test_what_does_not_come_back_has_no_time_for_it() -> None:
    assert summaries(_series(5, 5, 1, 1), Interval(15, 20)) == (GaugeSummary("x", 5, 1, 1, 1, None),)


def test_without_a_freeze_all_counts() -> None:
    assert summaries(_series(1, 9, 4), None) == (GaugeSummary("x", 4, 1, 9, 4),)


def test_the_same_gauge_of_two_guests_is_two() -> None:
    names = [one.name for one in summaries(_series(1, by="a") + _series(2, by="b"), None)]
    assert names == ["x of a", "x of b"]


def test_what_was_not_measured_after_the_stop_is_left_out() -> None:
    assert summaries(_series(1, 2), Interval(100, 200)) == ()
