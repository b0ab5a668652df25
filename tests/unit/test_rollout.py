"""Rollouts: the waves as values, and simulated fleets driven by the real controller."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.core.history import GateAsked, ResumeCalled, RolloutEnded, RolloutPlanned, StopCalled, WaveReached
from lab.core.plan import DomainKind, Gate, GateKind, GuestSpec, Rollout, RolloutEnd
from lab.core.rollout import set_of, waves
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import HypervisorError
from lab.ports import Freezing, Frozen
from tests.unit.sim_fleet import SHORT, World, fleet, world_of

ROLLOUTS = st.builds(
    Rollout,
    by=st.sampled_from(DomainKind),
    shuffled=st.booleans(),
    seed=st.none() | st.integers(0, 1 << 32),
    together=st.booleans(),
)


@st.composite
def fleets(draw: st.DrawFn) -> list[GuestSpec]:
    guests = st.builds(
        lambda name, update, fault: (name, update, fault),
        st.sampled_from(["", "a", "b", "c"]),
        st.integers(0, 4),
        st.integers(0, 2),
    )
    return [
        GuestSpec(f"g{n}", availability_set=name, update_domain=update, fault_domain=fault)
        for n, (name, update, fault) in enumerate(draw(st.lists(guests, min_size=1, max_size=25)))
    ]


@given(fleets(), ROLLOUTS)
def test_every_guest_is_in_one_wave_and_no_wave_has_two_domains_of_a_set(
    guests: list[GuestSpec], rollout: Rollout
) -> None:
    planned = waves(guests, rollout)
    assert sorted(name for wave in planned for name in wave.guests) == sorted(g.name for g in guests)
    assert [wave.number for wave in planned] == list(range(1, len(planned) + 1))
    by_name = {guest.name: guest for guest in guests}
    for wave in planned:
        sets = [name for name, _ in wave.domains]
        assert len(sets) == len(set(sets))
        assert rollout.together or len(sets) == 1
        down = {(set_of(by_name[name]), rollout.by.of(by_name[name])) for name in wave.guests}
        assert down == set(wave.domains)
    whole = [domain for wave in planned for domain in wave.domains]
    assert len(whole) == len(set(whole)), "a domain comes once"
    if not (rollout.shuffled and rollout.seed is not None):
        for name in {name for name, _ in whole}:
            order = [number for one, number in whole if one == name]
            assert order == sorted(order)
    assert waves(guests, rollout) == planned


def test_a_seed_shuffles_each_set_in_its_own_way_and_always_the_same() -> None:
    guests = fleet(40, 20, sets=2)
    orders = {seed: waves(guests, Rollout(shuffled=True, seed=seed)) for seed in range(5)}
    assert len({tuple(wave.domains for wave in planned) for planned in orders.values()}) == 5
    first, second = zip(*(wave.domains for wave in orders[0]), strict=True)
    assert [n for _, n in first] != [n for _, n in second]
    # Recorded seeds have to mean the same on every Python.
    assert [n for _, n in first] == [7, 16, 11, 13, 9, 6, 0, 2, 8, 4, 14, 10, 17, 19, 18, 5, 3, 15, 1, 12]


def stops(world: World) -> list[str]:
    return [event.guest for event in world.of(StopCalled)]


def test_domains_are_frozen_one_after_another_and_each_is_back_before_the_next() -> None:
    specs = fleet(8, 4)
    world = world_of(specs)
    assert world.roll_out(specs, Rollout(between_ns=5 * NS_PER_S), SHORT) is None
    assert stops(world) == ["g0", "g4", "g1", "g5", "g2", "g6", "g3", "g7"]
    assert world.most_down == 2
    calls = {event.guest: event.call for event in world.of(StopCalled)}
    backs = {event.guest: event.call for event in world.of(ResumeCalled)}
    for early, late in (("g4", "g1"), ("g5", "g2"), ("g6", "g3")):
        gap = calls[late].called.raw_ns - backs[early].returned.raw_ns
        assert gap >= SHORT.watch_ns + 5 * NS_PER_S
    assert [event.when for event in world.of(WaveReached)] == ["begin", "end"] * 4
    assert [event.cycle for event in world.of(WaveReached)] == [0, 0, 1, 1, 2, 2, 3, 3]
    (planned,) = world.of(RolloutPlanned)
    assert planned.waves == (("g0", "g4"), ("g1", "g5"), ("g2", "g6"), ("g3", "g7"))
    assert world.of(RolloutEnded) == [RolloutEnded(RolloutEnd.COMPLETE, "", 4)]
    assert world.shown[-1] == ("set-0 UD 3", "done")
    assert [state for label, state in world.shown if label == "set-0 UD 0"] == [
        "waiting", "frozen", "resyncing", "done",
    ]  # fmt: skip


GATES = (Gate(GateKind.CLOCK), Gate(GateKind.COMMAND, "true"), Gate(GateKind.MEMBERS))


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        ("late", "g1: clock: its clock is off by -20"),
        ("sick", "g1: command true: exited with 3"),
        ("member", "g1: members: g2: command true: exited with 3"),
        ("deaf", "g1: members: guest g2: does not answer"),
    ],
)
def test_a_gate_that_does_not_hold_stops_the_rollout_and_says_why(break_it: str, why: str) -> None:
    specs = fleet(3, 3)
    world = world_of(specs)
    rollout = Rollout(gates=GATES, gate_within_ns=2 * NS_PER_S)

    def break_now() -> None:
        if break_it == "late":
            world.repair_ns = None
        elif break_it == "deaf":
            world.guests["g2"].deaf = True
        else:
            world.guests["g1" if break_it == "sick" else "g2"].sick = "exited with 3"

    # In the middle of the second domain's cycle.
    world.later(world.at + 7 * NS_PER_S, break_now)
    stopped = world.roll_out(specs, rollout, SHORT)
    assert stopped is not None and (stopped.wave, stopped.why.split(",")[0]) == (2, stopped.why)
    assert stopped.why.startswith(why)
    assert stops(world) == ["g0", "g1"], "the third domain is left alone"
    failed = [gate for gate in world.of(GateAsked) if not gate.ok]
    assert failed and all(gate.took_ns >= NS_PER_S for gate in failed)
    assert world.of(RolloutEnded)[0] == RolloutEnded(RolloutEnd.STOPPED, stopped.why, 2)
    assert world.shown[-1] == ("set-0 UD 1", "stopped")


@pytest.mark.parametrize(
    ("gate_ns", "why"), [(1_300_000_000, "exited with 3"), (30 * NS_PER_S, "no answer in time")]
)
def test_a_try_that_the_deadline_cut_off_is_no_reason_beside_an_answer(gate_ns: int, why: str) -> None:
    specs = fleet(2, 2)
    world = world_of(specs)
    world.gate_ns, world.guests["g0"].sick = gate_ns, "exited with 3"
    rollout = Rollout(gates=(Gate(GateKind.COMMAND, "false"),), gate_within_ns=5 * NS_PER_S)
    stopped = world.roll_out(specs, rollout, SHORT)
    assert stopped is not None and stopped.why == f"g0: command false: {why}"


def test_a_gate_may_hold_late() -> None:
    specs = fleet(2, 2)
    world = world_of(specs)
    world.guests["g0"].sick = "starting"

    def well() -> None:
        world.guests["g0"].sick = ""

    world.later(world.at + 12 * NS_PER_S, well)
    rollout = Rollout(gates=(Gate(GateKind.HTTP, "http://localhost/"),), gate_within_ns=20 * NS_PER_S)
    assert world.roll_out(specs, rollout, SHORT) is None
    took = [gate.took_ns for gate in world.of(GateAsked)]
    assert took[0] > 5 * NS_PER_S > took[1]


def test_gates_are_asked_only_where_they_are_meant_and_of_members_once_a_set() -> None:
    specs = fleet(6, 2)
    world = world_of(specs)
    gates = (Gate(GateKind.COMMAND, "one", on=("g1", "g2")), Gate(GateKind.MEMBERS))
    assert world.roll_out(specs, Rollout(gates=gates), SHORT) is None
    first = [(gate.guest, gate.gate) for gate in world.of(GateAsked) if gate.cycle == 0]
    assert first == [("g2", "command one"), ("g0", "members")]
    assert world.asked[:3] == [("g2", "command one"), ("g1", "command one"), ("g2", "command one")]


def test_what_a_cycle_raises_passes_and_the_history_says_where_it_stood() -> None:
    specs = fleet(4, 4)
    world = world_of(specs)
    freeze = world.freeze

    def fails(guest: str, freezing: Freezing, deadline_raw_ns: int) -> Frozen:
        if guest == "g2":
            raise HypervisorError("cannot be suspended", where=guest)
        return freeze(guest, freezing, deadline_raw_ns)

    world.freeze = fails  # type: ignore[method-assign]
    with pytest.raises(HypervisorError):
        world.roll_out(specs, Rollout(), SHORT)
    ended = world.of(RolloutEnded)[0]
    assert (ended.ended, ended.wave) == (RolloutEnd.STOPPED, 3)
    assert all(guest.frozen_at is None for guest in world.guests.values())


@settings(max_examples=20)
@given(
    count=st.integers(1, 12),
    domains=st.integers(1, 6),
    sets=st.integers(1, 3),
    rollout=ROLLOUTS,
    read_us=st.integers(1, 5000),
)
def test_never_more_than_one_domain_of_a_set_is_down(
    count: int, domains: int, sets: int, rollout: Rollout, read_us: int
) -> None:
    specs = fleet(count, domains, sets)
    world = world_of(specs, read_ns=read_us * 1000)
    cycle = replace(SHORT, before_ns=100 * NS_PER_MS, watch_ns=200 * NS_PER_MS)
    assert world.roll_out(specs, rollout, cycle) is None
    by_name = {spec.name: spec for spec in specs}
    down: list[tuple[int, int, str, int]] = []
    backs = {event.guest: event.call.returned.raw_ns for event in world.of(ResumeCalled)}
    for stop in world.of(StopCalled):
        spec = by_name[stop.guest]
        down.append((stop.call.called.raw_ns, backs[stop.guest], set_of(spec), rollout.by.of(spec)))
    assert len(down) == count
    for from_a, to_a, set_a, domain_a in down:
        for from_b, to_b, set_b, domain_b in down:
            if set_a == set_b and domain_a != domain_b:
                assert to_a <= from_b or to_b <= from_a
