"""The lines of a workload's client, honest and not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.clock import Stamp
from lab.core.workload.sample import (
    LARGEST,
    Hello,
    NotASample,
    SampleClock,
    SampleReader,
    StateLook,
    StateValue,
    WorkloadDelivery,
    WorkloadEvent,
    WorkloadRequest,
)
from tests.unit.simulated_workloads import MS, LineHost, S
from tests.unit.strategies import cases

HOST = LineHost()
AT = Stamp(5_000 * S + 7, 5_000 * S + 7 + HOST.real_minus_raw)
clocks = st.sampled_from(list(SampleClock))


def reader(clock: SampleClock = SampleClock.MONOTONIC_RAW) -> SampleReader:
    found = SampleReader()
    assert found.read(json.dumps({"freezelab": 1, "clock": clock}), AT) == ()
    return found


def read(line: object, clock: SampleClock = SampleClock.MONOTONIC_RAW) -> tuple[object, ...]:
    text = line if isinstance(line, str) else json.dumps(line)
    return reader(clock).read(text, AT, HOST.mono_minus_raw)


@given(
    clocks, st.integers(0, LARGEST), st.lists(st.integers(0, 4000 * S), min_size=3, max_size=3), st.booleans()
)
@cases(300)
def test_times_of_each_clock_become_monotonic_raw_to_the_nanosecond(
    clock: SampleClock, seq: int, ago: list[int], ok: bool
) -> None:
    due, sent, done = (AT.raw_ns - each for each in sorted(ago, reverse=True))
    shift = HOST.shift(clock)
    line = {
        "seq": seq,
        "due": due + shift,
        "sent": sent + shift,
        "done": done + shift,
        "ok": ok,
        "stamp": LARGEST,
    }
    assert read(line, clock) == (
        WorkloadRequest(seq, due, sent, done, ok, stamp_ns=LARGEST, real_minus_raw_ns=HOST.real_minus_raw),
    )


def test_missing_times_are_those_that_are_known() -> None:
    (bare,) = read({"seq": 1, "ok": True})
    assert isinstance(bare, WorkloadRequest)
    assert (bare.due_ns, bare.sent_ns, bare.done_ns) == (AT.raw_ns,) * 3
    (no_sent,) = read({"seq": 1, "ok": True, "due": 5 * S, "done": 9 * S})
    assert isinstance(no_sent, WorkloadRequest)
    assert (no_sent.due_ns, no_sent.sent_ns, no_sent.done_ns) == (5 * S, 5 * S, 9 * S)
    (no_due,) = read({"seq": 1, "ok": True, "sent": 5 * S})
    assert isinstance(no_due, WorkloadRequest)
    assert (no_due.due_ns, no_due.sent_ns, no_due.done_ns) == (5 * S, 5 * S, AT.raw_ns)


def test_each_kind_of_line() -> None:
    assert read({"got": 7, "at": S, "by": "c"}) == (WorkloadDelivery(7, S, "c"),)
    assert read({"event": "gone"}) == (WorkloadEvent("gone", AT.raw_ns),)
    values: dict[str, StateValue] = {"leader": "a", "term": 2**60 + 1, "up": True, "x": None}
    assert read({"state": values, "sent": S, "done": 2 * S}) == (StateLook(S, 2 * S, values),)
    both = read({"seq": 1, "state": values, "sent": S, "done": 2 * S, "ok": True})
    assert [type(one) for one in both] == [WorkloadRequest, StateLook]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "not JSON"),
        ("[1]", "not a JSON object"),
        ("{" * 20_000, "characters; at most"),
        ("[" * 16_000, "not JSON"),
        ('{"seq": ' + "9" * 5000 + ', "ok": true}', "not JSON"),
        ({"ok": True}, "has seq, got, state, event, gauge or stamped"),
        ({"seq": 1, "got": 1}, "do not go together"),
        ({"seq": 1.0, "ok": True}, "whole number"),
        ({"seq": True, "ok": True}, "whole number"),
        ({"seq": -1, "ok": True}, "whole number"),
        ({"seq": LARGEST + 1, "ok": True}, "whole number"),
        ({"seq": 1, "ok": 1}, "ok is true or false"),
        ({"seq": 1, "ok": True, "sent": 5, "done": 4}, "out of order"),
        ({"seq": 1, "ok": True, "done": AT.raw_ns + S}, "after the line was read"),
        ({"seq": 1, "ok": True, "by": 7}, "by is a text"),
        ({"event": ""}, "no name"),
        ({"state": [1]}, "state is an object"),
        ({"state": {"a": 1.5}}, "short text"),
        ({"state": {"a": "x" * 121}}, "short text"),
        ({"state": {str(n): 1 for n in range(33)}}, "at most 32"),
        ({"freezelab": 1}, "not the first line"),
    ],
)
def test_what_is_no_sample_is_refused_in_one_line(line: object, why: str) -> None:
    with pytest.raises(NotASample, match=why) as error:
        read(line)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("hello", "why"),
    [
        ({"freezelab": 2}, "protocol 2"),
        ({"freezelab": True}, "protocol True"),
        ({"freezelab": "x" * 9000}, "protocol 'xxx"),
        ({"freezelab": 1, "clock": "tai"}, "clock 'tai'"),
        ({"freezelab": 1, "clock": ["realtime"]}, "clock"),
        ({"freezelab": 1, "period_ns": 0}, "period_ns: 0"),
        ({"freezelab": 1, "period_ns": 1e8}, "period_ns"),
    ],
)
def test_a_wrong_hello_is_refused_in_one_line(hello: object, why: str) -> None:
    with pytest.raises(NotASample, match=why) as error:
        SampleReader().read(json.dumps(hello), AT)
    assert len(str(error.value)) < 200


def test_a_hello_has_its_period_and_without_one_the_default_holds() -> None:
    first = SampleReader()
    first.read('{"freezelab": 1, "clock": "monotonic", "period_ns": 100}', AT)
    assert first.hello == Hello(SampleClock.MONOTONIC, 100)
    second = SampleReader()
    second.read('{"event": "x"}', AT)
    assert second.hello == Hello()


def test_times_of_another_clock_than_the_hello_says_are_refused() -> None:
    with pytest.raises(NotASample, match="after the line was read"):
        read({"event": "x", "at": AT.real_ns}, SampleClock.MONOTONIC_RAW)
    with pytest.raises(NotASample, match="before this host was booted"):
        read({"event": "x", "at": AT.raw_ns}, SampleClock.REALTIME)


def test_a_time_a_little_ahead_of_the_reading_is_that_of_the_reading() -> None:
    (found,) = read({"event": "x", "at": AT.raw_ns + MS})
    assert found == WorkloadEvent("x", AT.raw_ns)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(
    ["seq", "due", "sent", "done", "ok", "error", "by", "stamp", "got", "at", "state", "event"]
)


@given(
    st.dictionaries(keys, anything | st.integers(0, AT.raw_ns) | st.just("\ud800") | st.just(1), max_size=8),
    clocks,
)
@cases(1500)
def test_any_line_is_samples_or_refused_and_can_be_written_as_utf8(
    line: dict[str, object], clock: SampleClock
) -> None:
    try:
        found = read(line, clock)
    except NotASample as error:
        str(error).encode("utf-8")
        return
    for each in found:
        str(each).encode("utf-8")
        if isinstance(each, WorkloadRequest):
            assert 0 <= each.due_ns <= each.sent_ns <= each.done_ns <= AT.raw_ns
            assert "\ud800" not in each.by + each.error


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    assert read('{"event": "a\\ud800b"}') == (WorkloadEvent("a?b", AT.raw_ns),)
    (look,) = read('{"state": {"\\udfff": "\\udc80"}}')
    assert isinstance(look, StateLook)
    assert look.values == {"?": "?"}
