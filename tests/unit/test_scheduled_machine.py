"""What the machine of Scheduled Events does, rule by rule: the traps that its users are to rehearse.

Random lives are in test_scheduled_lives.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.core.clock import Stamp
from lab.core.scheduled.machine import MOST_REFUSALS, Machine
from lab.core.scheduled.model import EventStatus, EventType, Fault, Kind, Notice, Rules, State
from tests.unit.scheduled_reference import GROUPS, NOWHERE, RAW0_NS, REAL0_NS, S, event_id


def at(second: float) -> Stamp:
    return Stamp(RAW0_NS + round(second * S), REAL0_NS + round(second * S))


def notice(seconds: float, group: str = "a", resources: tuple[str, ...] = ("a0",)) -> Notice:
    return Notice(group, resources, EventType.FREEZE, round(seconds * S), 9, "because")


ONE, TWO, THREE = (event_id(number) for number in (1, 2, 3))


def test_a_group_that_never_polled_is_not_notified_and_not_waited_for() -> None:
    machine = Machine(GROUPS)
    assert machine.announce(at(0), notice(900), ONE) is State.NOT_ENABLED
    machine.admit(at(1), "a0")
    assert machine.poll(at(1), "a0") == (1, ())
    machine.start(at(2), ONE)
    assert machine.state(ONE) is State.NOT_ENABLED and not machine.state(ONE).waits
    assert not machine.approve(at(3), "a0", [ONE])
    assert machine.poll(at(3), "a0") == (1, ())
    assert [h.kind for h in machine.happened()] == [Kind.NOT_ENABLED, Kind.ENABLED]


def test_several_starts_at_once_are_several_changes_to_a_slow_poller() -> None:
    machine = Machine(GROUPS)
    machine.admit(at(0), "a1")
    for number in (1, 2, 3):
        machine.announce(at(0), notice(number), event_id(number))
    assert machine.poll(at(0), "a1")[0] == 4
    incarnation, events = machine.poll(at(10), "a1")
    assert incarnation == 7
    assert {event.status for event in events} == {EventStatus.STARTED}


def test_an_approval_of_several_is_one_step_for_each_and_all_or_nothing() -> None:
    machine = Machine(GROUPS)
    machine.admit(at(0), "a0")
    machine.admit(at(0), "b0")
    machine.announce(at(0), notice(900), ONE)
    machine.announce(at(0), notice(900), TWO)
    machine.announce(at(0), notice(900, "b", ("b0",)), THREE)
    for other in (THREE, NOWHERE, "", "x" * 5000, "\ud800"):
        assert not machine.approve(at(1), "a2", [ONE, other])
    assert machine.poll(at(1), "a0")[0] == 3
    assert machine.approve(at(1), "a2", [ONE, TWO.lower(), ONE])
    assert machine.approve(at(2), "a1", [ONE])
    assert machine.approve(at(2), "a1", [])
    assert machine.poll(at(2), "a0")[0] == 5
    assert machine.state(THREE) is State.SCHEDULED
    assert [h.guest for h in machine.happened() if h.kind is Kind.APPROVED] == ["a2", "a2", "a1"]


def test_an_approval_on_behalf_of_the_group_is_nobodys() -> None:
    machine = Machine(GROUPS)
    machine.announce(at(0), notice(900), TWO)
    machine.admit(at(0), "a0")
    machine.announce(at(0), notice(900), ONE)
    machine.happened()
    machine.release(at(1), ONE.lower(), "by hand")
    machine.release(at(1), TWO, "by hand")
    assert machine.state(ONE) is State.STARTED and machine.state(TWO) is State.NOT_ENABLED
    machine.approve(at(2), "a0", [ONE])
    machine.finish(at(3), ONE)
    machine.release(at(4), ONE, "by hand")
    assert [(h.kind, h.guest, h.text) for h in machine.happened()] == [
        (Kind.APPROVED, "", "by hand"),
        (Kind.STARTED, "", ""),
        (Kind.APPROVED, "a0", ""),
        (Kind.GONE, "", ""),
    ]


def test_after_a_restart_an_incarnation_comes_again_with_other_events() -> None:
    machine = Machine(GROUPS)
    machine.admit(at(0), "a0")
    machine.announce(at(0), notice(900), ONE)
    before = machine.poll(at(1), "a0")
    machine.restart(at(2), "a")
    assert machine.poll(at(2), "a0") == (1, before[1])
    machine.announce(at(3), notice(900), TWO)
    after = machine.poll(at(3), "a0")
    assert before[0] == after[0] and before[1] != after[1]


def test_a_switch_off_ends_no_event_and_breaks_no_promise() -> None:
    machine = Machine(GROUPS, Rules(time_factor=1, idle_s=60))
    machine.admit(at(0), "a0")
    machine.announce(at(0), notice(200), ONE)
    assert machine.poll(at(59), "a0")[0] == 2
    assert machine.poll(at(60), "a0") == (1, ())  # not a request: switched off since
    assert machine.state(ONE) is State.SCHEDULED
    assert not machine.has_asked("a0")
    machine.admit(at(100), "a1")
    assert machine.poll(at(100), "a1") == (1, (machine.event(ONE),))
    machine.advance(at(199.999))
    assert machine.state(ONE) is State.SCHEDULED
    machine.advance(at(200))
    assert machine.state(ONE) is State.STARTED
    assert [h.kind for h in machine.happened() if h.kind in (Kind.ENABLED, Kind.DISABLED)] == [
        Kind.ENABLED,
        Kind.DISABLED,
        Kind.ENABLED,
        Kind.DISABLED,
    ]


def test_nobody_is_answered_before_the_first_answer_and_faults_do_not_wait() -> None:
    machine = Machine(GROUPS, Rules(time_factor=60, first_answer_s=120, events_after_s=300))
    assert machine.admit(at(0), "a0") == (None, 2 * S)
    machine.announce(at(0), notice(10), ONE)
    assert machine.admit(at(1.5), "a0") == (None, S // 2)
    assert machine.admit(at(1.5), "a1") == (None, S // 2)
    machine.fail(at(1.5), ["a0"], [Fault.BROKEN, Fault.GONE])
    assert machine.admit(at(1.5), "a0") == (Fault.BROKEN, 0)
    assert machine.admit(at(2), "a0") == (Fault.GONE, 0)
    assert machine.admit(at(2), "a0") == (None, 0)
    assert machine.poll(at(4.999), "a0") == (1, ())
    assert machine.poll(at(5), "a0") == (2, (machine.event(ONE),))
    refused = [h for h in machine.happened() if h.kind is Kind.REFUSED]
    assert [h.text.split(":")[0] for h in refused] == ["500", "410"]


def test_five_a_second_are_answered_and_no_more() -> None:
    machine = Machine(GROUPS, Rules(most_per_second=5))
    polls = [(second / 10, machine.admit(at(second / 10), "a0")[0]) for second in range(40)]
    answered = [second for second, fault in polls if fault is None]
    assert answered == [
        0,
        0.1,
        0.2,
        0.3,
        0.4,
        1,
        1.1,
        1.2,
        1.3,
        1.4,
        2,
        2.1,
        2.2,
        2.3,
        2.4,
        3,
        3.1,
        3.2,
        3.3,
        3.4,
    ]
    assert {fault for _, fault in polls} == {None, Fault.TOO_MANY}
    assert machine.admit(at(4), "a1") == (None, 0)  # each guest has its own


def test_silence_is_the_group_s_and_ends_with_its_switch_off() -> None:
    machine = Machine(GROUPS, Rules(time_factor=1, idle_s=60))
    assert machine.silence_ns(at(0), "a0") is None
    machine.admit(at(1), "a0")
    machine.admit(at(3), "a1")
    assert machine.silence_ns(at(10), "a0") == 7 * S
    assert machine.silence_ns(at(10), "b0") is None
    assert machine.silence_ns(at(63), "a0") is None


def test_a_flood_of_refusals_is_not_kept() -> None:
    machine = Machine(GROUPS)
    for _ in range(MOST_REFUSALS + 50):
        machine.refuse(at(0), "a0", "400: junk")
    machine.announce(at(0), notice(1), ONE)
    assert len(machine.happened()) == MOST_REFUSALS + 1
    machine.refuse(at(0), "a0", "400: junk")
    assert len(machine.happened()) == 1


def test_an_unknown_event_is_a_key_error_and_changes_nothing() -> None:
    machine = Machine(GROUPS)
    machine.admit(at(0), "a0")
    machine.announce(at(0), notice(9), ONE)
    machine.happened()
    nonsense: list[Callable[[], object]] = [
        lambda: machine.announce(at(1), notice(9, "c", ()), TWO),
        lambda: machine.announce(at(1), notice(9, "a", ("a0", "b0")), TWO),
        lambda: machine.announce(at(1), notice(9, "a", ("nobody",)), TWO),
        lambda: machine.start(at(1), TWO),
        lambda: machine.cancel(at(1), TWO),
        lambda: machine.finish(at(1), TWO),
        lambda: machine.state(TWO),
        lambda: machine.event(TWO),
        lambda: machine.restart(at(1), "a0"),
        lambda: machine.reorder(at(1), "nowhere", []),
        lambda: machine.admit(at(1), "a"),
        lambda: machine.poll(at(1), "nobody"),
        lambda: machine.approve(at(1), "nobody", [ONE]),
        lambda: machine.fail(at(1), ["a0", "nobody"], [Fault.GONE]),
        lambda: machine.has_asked("nobody"),
        lambda: machine.silence_ns(at(1), "nobody"),
        lambda: machine.group_of("nobody"),
    ]
    for call in nonsense:
        with pytest.raises(KeyError):
            call()
    with pytest.raises(ValueError, match="permutation"):
        machine.reorder(at(1), "a", [0, 0])
    with pytest.raises(ValueError, match="before"):
        machine.announce(at(1), notice(9), ONE.lower())
    assert machine.happened() == ()
    assert machine.admit(at(1), "a0") == (None, 0)
    assert machine.poll(at(1), "a0")[0] == 2
