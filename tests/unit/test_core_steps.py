"""Where a pause goes: the parts by themselves. That they hold against a truth is test_core_simulation's."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from lab.core.clock import Interval
from lab.core.judge import measure
from lab.core.method import FreezeMethod
from lab.core.plan import Expectations, ResyncMechanism
from lab.core.steps import BETWEEN, HEARTBEAT, PACKET, PATCH, Part, Sign, first_sign, parts
from lab.core.timeline import Call, Heartbeat, Observation, Step
from tests.unit.journalled import cycle, rebooted
from tests.unit.readings import T0, call, reading, stamp
from tests.unit.simulation import MS, S


def exchanged(*steps: tuple[str, int, int], patch: tuple[Step, ...] = (), **more: object) -> Observation:
    """Stopped for 1 ms at T0, resumed by a call from T0 + 100 ms to T0 + 105 ms."""
    plain = Observation(
        "a", 0, True, FreezeMethod.IN_PLACE, "hold 0 s", S, stop=call(T0, T0 + MS),
        resume=call(T0 + 100 * MS, T0 + 105 * MS), patch_ok=True, patch_steps=patch,
        steps=tuple(Step(name, T0 + a * MS, T0 + b * MS) for name, a, b in steps),
    )  # fmt: skip
    return replace(plain, **more)  # type: ignore[arg-type]


def shape(given: tuple[Part, ...]) -> list[tuple[str, float, float]]:
    return [(p.name, p.from_ns / MS, p.length_ns / MS) for p in given]


def test_the_longest_unnamed_part_of_a_pause_is_the_patch_and_the_others_are_between() -> None:
    made = parts(exchanged(("state out", 2, 10), ("state in", 50, 99)), None, None)
    assert shape(made) == [
        ("suspend", 0, 1), (BETWEEN, 1, 1), ("state out", 2, 8), (PATCH, 10, 40), ("state in", 50, 49),
        (BETWEEN, 99, 1), ("resume", 100, 5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "more", [{"patch": "replace-hypervisor qemu"}, {"patch_ok": None}, {"called_off": "it refused"}]
)
def test_a_patch_that_took_no_time_is_given_none(more: dict[str, object]) -> None:
    assert PATCH not in {part.name for part in parts(replace(exchanged(), **more), None, None)}  # type: ignore[arg-type]


def test_a_patch_with_steps_of_its_own_spans_them() -> None:
    steps = (Step("one", T0 + 20 * MS, T0 + 30 * MS), Step("two", T0 + 35 * MS, T0 + 60 * MS))
    made = parts(exchanged(patch=steps), None, None)
    assert (PATCH, 20, 40) in shape(made)


def test_inner_steps_count_and_those_before_the_stop_do_not() -> None:
    made = parts(exchanged(("start successor", -900, -10), ("save", 5, 90), ("flush", 20, 30)), None, None)
    assert shape(made)[2:5] == [("save", 5, 15), ("flush", 20, 10), ("save", 30, 60)]
    assert "start successor" not in {part.name for part in made}


def test_a_guest_that_is_heard_before_the_resume_returns() -> None:
    sign = Sign(0, stamp(T0 + 104 * MS))
    made = parts(exchanged(), sign, Interval(T0 + 101 * MS, T0 + 103 * MS))
    assert shape(made)[-3:] == [("resume", 100, 2), (HEARTBEAT, 102, 0), (PACKET, 102, 2)]
    assert made[-2].bounds == Interval(0, MS)
    assert made[-1].bounds == Interval(MS, 3 * MS)


def test_a_freeze_that_was_called_off_ends_with_putting_back() -> None:
    assert parts(exchanged(called_off="no"), None, None)[-1].name == "put back"


def test_random_steps_always_add_up() -> None:
    r = random.Random(7)
    for _ in range(300):
        given = []
        for number in range(r.randint(0, 6)):
            begin = r.randint(-20, 120)
            given.append((f"step {number}", begin, begin + r.randint(0, 60)))
        sent = T0 + r.randint(100, 130) * MS
        sign = Sign(0, stamp(sent + r.randint(0, 9) * MS)) if r.random() < 0.7 else None
        made = parts(exchanged(*given), sign, Interval(sent, sent) if sign else None)
        assert made[0].from_ns == 0
        assert all(earlier.to_ns == later.from_ns for earlier, later in pairwise(made))
        assert all(part.length_ns >= 0 for part in made)
        if sign is not None:
            assert T0 + made[-1].to_ns == sign.arrived.raw_ns


def test_what_was_sent_before_the_stop_is_no_sign_of_life() -> None:
    beats = [Heartbeat(1, 5 * S, stamp(T0 + 101 * MS)), Heartbeat(2, 6 * S, stamp(T0 + 120 * MS))]
    assert first_sign(beats, (), 5 * S, T0 + 100 * MS) == Sign(6 * S, stamp(T0 + 120 * MS))
    assert first_sign(beats, (), None, T0 + 100 * MS) == Sign(5 * S, stamp(T0 + 101 * MS))
    late = reading(T0 + 106 * MS, T0 + 107 * MS, T0 + 108 * MS, T0 + 109 * MS)
    assert first_sign(beats, (late,), 5 * S, T0 + 100 * MS) == Sign(T0 + 108 * MS, stamp(T0 + 109 * MS))
    assert first_sign([], (), 5 * S, T0) is None


def test_a_reboot_is_shut_down_patch_start_and_the_first_answer() -> None:
    result = measure(rebooted(0), ResyncMechanism.AGENT, Expectations())
    assert [part.name for part in result.steps] == ["shut down", "patch", "start", HEARTBEAT, PACKET]
    assert result.outage_ns == result.steps[-1].to_ns
    assert result.outage_ns > 30 * S


def test_a_guest_that_was_not_stopped_has_no_steps() -> None:
    assert measure(cycle(FreezeMethod.NONE, 0, 0), ResyncMechanism.NONE, Expectations()).steps == ()
    assert parts(replace(exchanged(), resume=None), None, None) == ()
    assert isinstance(exchanged().stop, Call)
