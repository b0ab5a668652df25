"""The proof that never more than one domain of a set was down, and the skew of guests frozen together."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from lab.core.clock import Interval, Stamp
from lab.core.one_at_a_time import Down, Proof, one_at_a_time, proof_finding, resumed_at, spread, stopped_at
from lab.core.plan import DomainKind
from lab.core.timeline import Call
from lab.core.verdict import Outcome
from tests.unit.simulation import MS, S

UD = DomainKind.UPDATE


def down(name: str, number: int, cycle: int, begin: int, length: int, blur: int = 0) -> Down:
    """Down from `begin` on, where begin and end are known to `blur`."""
    begins = Interval(begin - blur, begin + blur)
    return Down((name, number), cycle, begins, Interval(begin + length - blur, begin + length + blur))


@st.composite
def fleets(draw: st.DrawFn) -> list[Down]:
    """Domains of two sets, anywhere, some of them more than once."""
    found = []
    for cycle in range(draw(st.integers(1, 9))):
        name, number = draw(st.sampled_from("ab")), draw(st.integers(0, 3))
        begin, length = draw(st.integers(0, 60)), draw(st.integers(0, 12))
        found.append(down(name, number, cycle, begin, length, draw(st.integers(0, 3))))
    return found


def between(one: Interval, two: Interval) -> int:
    """The time between two spans; negative: for how long both are."""
    return max(one.low_ns, two.low_ns) - min(one.high_ns, two.high_ns)


@given(fleets())
def test_every_overlap_is_found_and_nothing_else(fleet: list[Down]) -> None:
    pairs = [
        (one, two)
        for one, two in combinations(fleet, 2)
        if one.domain[0] == two.domain[0] and one.domain != two.domain
    ]
    possible = [
        between(one.at_most, two.at_most)
        for one, two in pairs
        if one.at_most is not None and two.at_most is not None
    ]
    certain = [
        between(one.certain, two.certain)
        for one, two in pairs
        if one.certain is not None and two.certain is not None
    ]
    proof = one_at_a_time(fleet, UD)
    if min(certain, default=0) < 0:
        assert proof.outcome is Outcome.FAILED
        assert proof.overlap is not None
        assert proof.overlap.ns == min(certain)
    elif min(possible, default=1) <= 0:
        assert proof.outcome is Outcome.INCONCLUSIVE
    else:
        assert proof.outcome is Outcome.PASSED
    assert (proof.nearest.ns if proof.nearest else None) == min(possible, default=None)


@given(fleets(), st.integers(0, 8))
def test_what_was_not_seen_never_passes(fleet: list[Down], which: int) -> None:
    lost = which % len(fleet)
    one = fleet[lost]
    blind = Down(one.domain, one.cycle, None, None, "the stop of a-0 is not on record")
    proof = one_at_a_time([*fleet[:lost], blind, *fleet[lost + 1 :]], UD)
    assert proof.outcome is not Outcome.PASSED
    assert one_at_a_time([], UD).outcome is Outcome.INCONCLUSIVE


def test_the_reason_names_the_two_domains() -> None:
    fleet = [down("web", 0, 0, 0, 3 * S), down("web", 2, 1, 2 * S, S), down("db", 0, 1, 2 * S, S)]
    proof = one_at_a_time(fleet, UD)
    found = proof_finding(proof, UD)
    assert (found.outcome, found.why) == (
        Outcome.FAILED, "web UD 0 and web UD 2 were both down for 1.00 s",
    )  # fmt: skip
    apart = [fleet[0], down("web", 2, 1, 4 * S, S), fleet[2]]
    assert proof_finding(one_at_a_time(apart, UD), UD).measured == (
        "3 times down in 2 sets, at least 1.00 s between two domains of a set (web UD 0 and web UD 2)"
    )
    assert proof_finding(Proof(Outcome.PASSED, "", 1, 1), UD).measured == "once down in 1 set"


INSTANTS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=6
)


@given(INSTANTS)
def test_the_true_skew_is_in_its_bounds(drawn: list[tuple[int, int, int]]) -> None:
    true = [value for value, _, _ in drawn]
    seen = spread([Interval(value - below, value + above) for value, below, above in drawn])
    assert max(true) - min(true) in seen


def test_qemus_stamps_narrow_when_a_guest_stopped_and_resumed() -> None:
    called, returned = Stamp(10 * S, 1_000 * S), Stamp(10 * S + 4 * MS, 1_000 * S + 4 * MS)
    stamped = Call(called, returned, 1_000 * S + MS)
    stop, resume = stopped_at(stamped), resumed_at(stamped)
    assert stop.low_ns == called.raw_ns
    assert resume.high_ns == returned.raw_ns
    for end in (stop.high_ns, resume.low_ns):
        assert abs(end - (10 * S + MS)) < MS // 10
    plain = Call(called, returned)
    assert stopped_at(plain) == resumed_at(plain) == Interval(called.raw_ns, returned.raw_ns)
