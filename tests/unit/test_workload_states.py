"""Roles and shared values of simulated guests, some of them frozen, as looks show them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from lab.core.clock import Interval
from lab.core.verdict import Outcome, worst
from lab.core.workload.findings import workload_findings
from lab.core.workload.judge import WorkloadWindow, measure_workload
from lab.core.workload.sample import SampleClock, StateLook, StateValue
from lab.core.workload.spec import WorkloadExpect, WorkloadSpec
from lab.core.workload.states import agreed_change, changes, overlaps, possible_overlaps
from tests.unit.simulated_workloads import LATEST, MS, START, Printed, S, Span, heard, windows
from tests.unit.strategies import cases

ENDED = START + 30 * S
STEP, SLOW = 200 * MS, 60 * MS
"""Between two looks at a guest, and how long one takes at most."""

seeds = st.integers(0, 2**32)
clocks = st.sampled_from(list(SampleClock))


@dataclass(frozen=True)
class LookedAt:
    """A guest: what it shows from each time on (None: it is down), and when it is frozen."""

    name: str
    shows: tuple[tuple[int, StateValue], ...]
    frozen: Span | None = None

    def value(self, at: int) -> StateValue:
        return next(value for since, value in reversed(self.shows) if since <= at)

    def looks(self, what: str, luck: random.Random, *, at_once: bool) -> list[Printed]:
        """at_once: the client asks on, though a look at the frozen guest has not ended."""
        found, sent, free, instant = list[Printed](), START + luck.randrange(STEP), 0, 0
        while sent < ENDED:
            instant = max(instant + 1, sent + luck.randrange(SLOW // 2))
            if self.frozen is not None and self.frozen[0] <= instant < self.frozen[1]:
                instant = self.frozen[1] + luck.randrange(MS)
            done = max(free + 1, instant + luck.randrange(SLOW // 2))
            line = {"state": {what: self.value(instant)}, "sent": sent, "done": done, "by": self.name}
            found.append(Printed(done, line))
            free = done
            sent = max(sent + STEP, 0 if at_once else done)
        return found


def window(
    guests: Sequence[LookedAt], what: str, clock: SampleClock, seed: int, *, at_once: bool = False
) -> WorkloadWindow:
    luck = random.Random(seed)
    lines = [line for guest in guests for line in guest.looks(what, luck, at_once=at_once)]
    frozen = [guest.frozen for guest in guests if guest.frozen is not None]
    paused = Interval(min(a for a, _ in frozen), max(b for _, b in frozen)) if frozen else None
    more = {"frozen": bool(frozen), "paused": paused, "pause": paused and Interval(0, ENDED)}
    return windows(heard(lines, clock, luck), [START, ENDED], **more)[0]


def verdict_of(window: WorkloadWindow, expect: WorkloadExpect) -> Outcome:
    spec = WorkloadSpec("it", expect=expect)
    (result,) = measure_workload([window], spec, MS)
    return worst(one.outcome for one in workload_findings(spec, result))


# Roles


@st.composite
def holders(draw: st.DrawFn) -> list[LookedAt]:
    """Guests that hold a role now and then, for longer than a look's step; one may be frozen, holding it."""
    frozen = draw(st.one_of(st.none(), st.tuples(st.integers(3, 12), st.integers(1, 9))))
    found = []
    for number in range(draw(st.integers(1, 3))):
        at, holds, shows = START, draw(st.booleans()), list[tuple[int, StateValue]]()
        freeze = None
        if frozen is not None and number == 0:
            freeze = START + frozen[0] * S, START + sum(frozen) * S
        while at < ENDED:
            # A frozen guest changes nothing; afterwards it may take a moment to learn what has happened.
            if freeze is not None and freeze[0] - S <= at < freeze[1]:
                at = freeze[1] + draw(st.integers(1, 2 * S))
            shows.append((at, holds))
            holds = not holds
            at += draw(st.integers(STEP + 2 * SLOW + 2, 15 * S))
        found.append(LookedAt(f"n{number}", tuple(shows), freeze))
    return found


SHOWN = ENDED - STEP - 2 * SLOW - LATEST
"""What begins later need not be seen by any look."""


def held(guest: LookedAt, until: int = ENDED) -> list[Span]:
    """When it held the role; without what began after `until`."""
    edges = [*guest.shows, (ENDED, None)]
    spans = [(min(a, ENDED), min(b, ENDED)) for (a, value), (b, _) in pairwise(edges) if value is True]
    return [(a, b) for a, b in spans if a <= until]


def both(one: LookedAt, other: LookedAt, until: int = ENDED) -> list[int]:
    """For how long both held it, each time."""
    pairs = [(mine, yours) for mine in held(one, until) for yours in held(other, until)]
    lengths = [min(b, d) - max(a, c) for (a, b), (c, d) in pairs]
    return [length for length in lengths if length > 0]


@given(holders(), clocks, seeds, st.booleans())
@cases(600)
def test_two_holders_at_once_are_bounded_and_no_verdict_on_them_is_wrong(
    guests: list[LookedAt], clock: SampleClock, seed: int, at_once: bool
) -> None:
    shown = window(guests, "master", clock, seed, at_once=at_once)
    verdict = verdict_of(shown, WorkloadExpect(one_holder=("master",)))
    certain = overlaps(shown.looks, "master", START, ENDED)
    maybe = possible_overlaps(shown.looks, "master", START, ENDED)
    for one, other in combinations(guests, 2):
        truth, shown_truth = both(one, other), both(one, other, SHOWN)
        names = (one.name, other.name)
        least = sum(each.length.low_ns for each in certain if each.holders == names)
        most = sum(each.length.high_ns for each in maybe if each.holders == names)
        assert least <= sum(truth)
        assert sum(shown_truth) <= most + 2 * LATEST
        if max(truth, default=0) > 2 * (STEP + 2 * SLOW) + LATEST and not one.frozen:
            assert least > 0, "it was long enough to be seen"
    pairs = list(combinations(guests, 2))
    if verdict is Outcome.FAILED:
        assert any(both(one, other) for one, other in pairs)
    if verdict is Outcome.PASSED:
        assert not any(both(one, other, SHOWN) for one, other in pairs)


@given(st.integers(1, 8), st.integers(0, 3 * S), seeds, st.booleans())
@cases(200)
def test_a_frozen_master_that_goes_on_after_the_wake_is_seen_as_the_second_one(
    seconds: int, claims: int, seed: int, at_once: bool
) -> None:
    """The other takes over 3 s after the stop; the old one does not know until `claims` after its wake."""
    stop, wake = START + 5 * S, START + (5 + seconds) * S
    old = LookedAt("old", ((START, True), (wake + claims, False)), (stop, wake))
    new = LookedAt("new", ((START, False), (stop + 3 * S, True)))
    shown = window([old, new], "master", SampleClock.REALTIME, seed, at_once=at_once)
    found = overlaps(shown.looks, "master", START, ENDED)
    truth = wake + claims - (stop + 3 * S)
    if truth <= 0:
        assert not found
    elif claims > STEP + 2 * SLOW + LATEST and truth > 2 * (STEP + 2 * SLOW) + LATEST:
        (two,) = found
        assert two.holders == ("new", "old")
        assert truth in two.length


def look(at: int, value: StateValue, by: str = "", took: int = 1, name: str = "leader") -> StateLook:
    return StateLook(START + (at - took) * MS, START + at * MS, {name: value}, by)


def test_a_false_look_that_overlaps_with_true_ones_is_no_time_of_certainty() -> None:
    """It was asked for before a freeze and answered late: the guest may have given the role up meanwhile."""
    looks = [look(at, True, "a", name="m") for at in (100, 200, 900, 1000)]
    looks += [look(950, False, "a", took=600, name="m")]
    looks += [look(at, True, "b", name="m") for at in (100, 1000)]
    (found,) = overlaps(looks, "m")
    assert found.length.low_ns <= 350 * MS


def test_a_role_that_one_was_never_asked_about_again_may_still_be_held() -> None:
    looks = [look(100, True, "a", name="m"), look(200, True, "a", name="m")]
    looks += [look(at, True, "b", name="m") for at in (5000, 9000)]
    assert overlaps(looks, "m", START, START + 9000 * MS) == []
    (maybe,) = possible_overlaps(looks, "m", START, START + 9000 * MS)
    assert maybe.length.low_ns == 0
    assert maybe.length.high_ns >= 4000 * MS


# Values that all share


@st.composite
def elections(draw: st.DrawFn) -> tuple[list[tuple[int, str]], list[LookedAt]]:
    """Leaders with the time at which each began, and guests that learn of them late, all or some."""
    leaders, at = [(START, "a")], START
    for value in draw(st.lists(st.sampled_from("abcd"), max_size=3)):
        at += draw(st.integers(2 * S, 8 * S))
        if value != leaders[-1][1]:
            leaders.append((at, value))
    guests = []
    for number in range(draw(st.integers(1, 3))):
        shows: list[tuple[int, StateValue]] = [(START, "a")]
        for since, value in leaders[1:]:
            learned = since + draw(st.integers(0, 3 * S))
            if learned <= shows[-1][0]:
                continue
            skipped = number > 0 and draw(st.booleans()) and draw(st.booleans())
            if not skipped:
                shows.append((learned, value))
        guests.append(LookedAt(f"n{number}", tuple(shows)))
    return leaders, guests


@given(elections(), clocks, seeds)
@cases(600)
def test_leader_changes_that_guests_learn_late_are_counted_once(
    election: tuple[list[tuple[int, str]], list[LookedAt]], clock: SampleClock, seed: int
) -> None:
    leaders, guests = election
    shown = window(guests, "leader", clock, seed)
    found = agreed_change(shown.looks, "leader")
    assert len(found) <= len(leaders) - 1
    values = [value for _, value in leaders]
    place = 0
    for change in found:
        place = values.index(str(change.after), place + 1)
    verdict = verdict_of(shown, WorkloadExpect(unchanged=("leader",)))
    if verdict is Outcome.FAILED:
        assert len(leaders) > 1
    known = [at for guest in guests for at, _ in guest.shows[1:] if at < ENDED - STEP - 2 * SLOW - LATEST]
    if verdict is Outcome.PASSED:
        stay = {value for guest in guests for _, value in guest.shows}
        assert not known or stay == {"a"} or (len(leaders) > 1 and not _is_seen(guests))


def _is_seen(guests: Sequence[LookedAt]) -> bool:
    """Whether some guest showed another value for as long as between two looks."""
    return any(
        b - a > STEP + 2 * SLOW + LATEST and value != "a"
        for guest in guests
        for (a, value), (b, _) in pairwise([*guest.shows, (ENDED, None)])
    )


@given(elections(), seeds)
@cases(600)
def test_a_change_is_dated_from_before_the_first_guest_learned_of_it(
    election: tuple[list[tuple[int, str]], list[LookedAt]], seed: int
) -> None:
    leaders, guests = election
    shown = window(guests, "leader", SampleClock.MONOTONIC_RAW, seed)
    found = agreed_change(shown.looks, "leader")
    values = [value for _, value in leaders]
    if len(found) != len(leaders) - 1 or len(set(values)) < len(values):
        return
    for change in found:
        learned = [at for guest in guests for at, value in guest.shows if value == change.after]
        assert change.at.low_ns <= min(learned) <= change.at.high_ns


@given(elections(), seeds)
@cases(300)
def test_each_guests_own_changes_are_where_it_changed(
    election: tuple[list[tuple[int, str]], list[LookedAt]], seed: int
) -> None:
    _, guests = election
    shown = window(guests, "leader", SampleClock.REALTIME, seed)
    for guest in guests:
        own = [one for one in changes(shown.looks, "leader") if one.by == guest.name]
        assert len(own) <= len(guest.shows) - 1
        for change in own:
            assert any(change.at.low_ns <= at <= change.at.high_ns for at, _ in guest.shows[1:])


@given(st.lists(st.integers(3, 20), min_size=1, max_size=3), st.booleans(), clocks, seeds)
@cases(300)
def test_guests_that_restart_and_show_old_values_are_no_change(
    seconds: list[int], changed: bool, clock: SampleClock, seed: int
) -> None:
    """One after another is down for a second, and has the first leader for another one when it is back."""
    guests = [LookedAt("n0", ((START, "a"), *([(START + S, "b")] if changed else [])))]
    for number, at in enumerate(sorted(set(seconds))):
        up = START + at * S + 300 * MS * number
        shows: list[tuple[int, StateValue]] = [(START, "a")]
        if changed:
            shows.append((START + S + 300 * MS, "b"))
        shows += [(up, None), (up + S, "a"), (up + 2 * S, "b" if changed else "a")]
        guests.append(LookedAt(f"n{number + 1}", tuple(shows)))
    near = any(b - a < 2 for a, b in pairwise(sorted(set(seconds))))
    found = agreed_change(window(guests, "leader", clock, seed).looks, "leader")
    if not near:
        assert len(found) == int(changed)


def shown_changes(*looks: StateLook) -> list[tuple[StateValue, StateValue]]:
    return [(change.before, change.after) for change in agreed_change(looks, "leader")]


def test_a_guest_that_joins_late_with_an_old_value_is_no_change() -> None:
    """Before, this was three changes: to the old one, and back when the guest learned."""
    looks = [look(1, "a", "x"), look(2, "b", "x"), look(3, "a", "y"), look(4, "b", "x"), look(5, "b", "y")]
    assert shown_changes(*looks) == [("a", "b")]


def test_a_guest_that_joins_with_a_value_from_before_the_cycle_is_no_change() -> None:
    looks = [look(1, "b", "x"), look(2, "a", "y"), look(3, "b", "y"), look(4, "b", "x")]
    assert shown_changes(*looks) == []


def test_a_guest_two_values_behind_is_no_change() -> None:
    looks = [look(1, "a", "x"), look(1, "a", "y"), look(2, "b", "x"), look(3, "c", "x")]
    looks += [look(4, "b", "y"), look(5, "c", "y")]
    assert shown_changes(*looks) == [("a", "b"), ("b", "c")]


def test_a_leader_that_comes_back_is_two_changes() -> None:
    alone = [look(1, "a"), look(2, "b"), look(3, "a")]
    assert shown_changes(*alone) == [("a", "b"), ("b", "a")]
    two = [look(at, value, by) for at, value in ((1, "a"), (2, "b"), (3, "a")) for by in "xy"]
    assert shown_changes(*two) == [("a", "b"), ("b", "a")]


def test_a_value_that_was_not_asked_for_after_the_freeze_is_not_unchanged() -> None:
    looks = [look(at, "a") for at in (100, 200)]
    paused = Interval(START + 300 * MS, START + 5000 * MS)
    cut = WorkloadWindow(0, START, ENDED, looks=looks, frozen=True, paused=paused, pause=Interval(0, S))
    assert verdict_of(cut, WorkloadExpect(unchanged=("leader",))) is Outcome.INCONCLUSIVE
    whole = WorkloadWindow(
        0, START, ENDED, looks=[*looks, look(6000, "a")], frozen=True, paused=paused, pause=Interval(0, S)
    )
    assert verdict_of(whole, WorkloadExpect(unchanged=("leader",))) is Outcome.PASSED
    spanning = WorkloadWindow(
        0, START, ENDED, looks=[*looks, look(6000, "a", took=5800)], frozen=True, paused=paused
    )
    assert verdict_of(spanning, WorkloadExpect(unchanged=("leader",))) is Outcome.INCONCLUSIVE


def test_a_value_that_nobody_knows_is_not_unchanged() -> None:
    looks = [look(at, None) for at in (100, 200, 300)]
    blind = WorkloadWindow(0, START, ENDED, looks=looks)
    assert verdict_of(blind, WorkloadExpect(unchanged=("leader",))) is Outcome.INCONCLUSIVE
