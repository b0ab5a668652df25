"""Times of several hosts on one scale: whatever the clocks do, the truth is in every interval, and the proof
says nothing that is not so."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from lab.core.clock import Interval
from lab.core.fleet_clocks import APART_PPM, FleetClocks
from lab.core.offsets import Sample
from lab.core.one_at_a_time import Down, one_at_a_time, spread
from lab.core.plan import DomainKind
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.verdict import Outcome

LONG_NS = 600 * NS_PER_S


@dataclass(frozen=True)
class HostTime:
    """A host's MONOTONIC_RAW: ahead_ns at the controller's instant 0, and then ppm faster."""

    ahead_ns: int
    ppm: float

    def at(self, controller_ns: int) -> int:
        return controller_ns + self.ahead_ns + round(controller_ns * self.ppm / 1e6)

    def sample(self, at_ns: int, there_ns: int, back_ns: int) -> Sample:
        """What four stamps say about a reading whose answer is made at `at_ns`. There is no assumption about
        how a link's delay is divided between the two ways."""
        read = self.at(at_ns)
        sent, came = at_ns - there_ns, at_ns + back_ns
        return Sample(sent, came, Interval(read - came, read - sent))


DELAYS = st.integers(1000, 50 * NS_PER_MS)
HOSTS = st.builds(
    HostTime,
    st.integers(-(10**15), 10**15),
    st.floats(-APART_PPM * 0.99, APART_PPM * 0.99),
)
READ = st.tuples(st.integers(0, LONG_NS), DELAYS, DELAYS)
READINGS = st.lists(READ, min_size=1, max_size=8)


@given(HOSTS, READINGS, st.integers(-LONG_NS, 2 * LONG_NS), DELAYS)
def test_the_true_instant_is_in_its_interval(
    host: HostTime, readings: list[tuple[int, int, int]], at_ns: int, blur_ns: int
) -> None:
    clocks = FleetClocks({"r1": [host.sample(*one) for one in readings]})
    there = Interval(host.at(at_ns), host.at(at_ns + blur_ns))
    for true in (at_ns, at_ns + blur_ns // 2, at_ns + blur_ns):
        mapped = clocks.controllers("r1", there)
        assert mapped is not None and true in mapped.widened(1), (mapped, true)
    assert clocks.controllers("r2", there) is None


def test_readings_that_contradict_each_other_map_nothing() -> None:
    host, stepped = HostTime(0, 0.0), HostTime(NS_PER_S, 0.0)
    clocks = FleetClocks({"r1": [host.sample(0, 1000, 1000), stepped.sample(NS_PER_S, 1000, 1000)]})
    assert clocks.controllers("r1", Interval(0, 0)) is None


DOWNS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 300), st.integers(0, 40)),
    min_size=1,
    max_size=6,
)


@given(st.tuples(HOSTS, HOSTS, HOSTS), READINGS, DOWNS)
def test_the_proof_over_hosts_never_says_what_is_not_so(
    hosts: tuple[HostTime, ...],
    readings: list[tuple[int, int, int]],
    drawn: list[tuple[int, int, int, int]],
) -> None:
    """Each domain is down on one of three hosts, for some seconds."""
    names = ("r0", "r1", "r2")
    clocks = FleetClocks(
        {name: [host.sample(*one) for one in readings] for name, host in zip(names, hosts, strict=True)}
    )
    true, downs = [], []
    for cycle, (which, domain, begin_s, length_s) in enumerate(drawn):
        begin, end = begin_s * NS_PER_S, (begin_s + length_s) * NS_PER_S
        at = [hosts[which].at(edge) for edge in (begin, end)]
        mapped = [clocks.controllers(names[which], Interval(edge, edge)) for edge in at]
        assert mapped[0] is not None and mapped[1] is not None
        true.append((domain, begin, end))
        downs.append(Down(("web", domain), cycle, mapped[0], mapped[1]))
    both = [
        min(one[2], two[2]) - max(one[1], two[1]) for one in true for two in true if one[0] < two[0]
    ]  # for how long two domains are down at once
    proof = one_at_a_time(downs, DomainKind.UPDATE)
    if proof.outcome is Outcome.FAILED:
        assert max(both) > -2
    if proof.outcome is Outcome.PASSED:
        assert max(both, default=-1) < 2
    if readings and all(one[1] + one[2] < NS_PER_MS for one in readings) and max(both, default=-1) > NS_PER_S:
        assert proof.outcome is Outcome.FAILED  # an overlap that exceeds every bound here is told


@given(st.tuples(HOSTS, HOSTS), READINGS, st.integers(0, LONG_NS), st.integers(-NS_PER_S, NS_PER_S))
def test_the_true_skew_is_in_its_bounds(
    hosts: tuple[HostTime, HostTime], readings: list[tuple[int, int, int]], at_ns: int, later_ns: int
) -> None:
    clocks = FleetClocks(
        {name: [host.sample(*one) for one in readings] for name, host in zip("ab", hosts, strict=True)}
    )
    stops = []
    for name, host, true in zip("ab", hosts, (at_ns, at_ns + later_ns), strict=True):
        mapped = clocks.controllers(name, Interval(host.at(true), host.at(true)))
        assert mapped is not None
        stops.append(mapped)
    assert abs(later_ns) in spread(stops).widened(2)
