"""Shows from the history that no more than one domain of an availability set was down at any time, and how
far apart the guests of one domain were stopped and resumed.

All times are the host's CLOCK_MONOTONIC_RAW, so the pauses of different guests are on one scale. Those of
guests on different hosts are mapped to the controller's, with the bounds of the hosts' offsets. A guest is
down from the call that stops it until it is back and in time again, or until its cycle's end if it never was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lab.core.clock import Interval
from lab.core.fleet_clocks import OntoOne, as_it_is
from lab.core.plan import DomainKind, GuestSpec
from lab.core.quantities import DOWN, format_short
from lab.core.result import CycleResult
from lab.core.resync import SyncOutcome
from lab.core.rollout import Domain, set_of
from lab.core.timeline import Call
from lab.core.units import format_duration
from lab.core.verdict import Finding, Outcome, at_most
from lab.core.witnesses import event_in

ONE_AT_A_TIME = "one domain at a time"
"""The metric of the proof."""


def taken_down(result: CycleResult) -> bool:
    """True when the cycle was to stop the guest: it has a freeze and was not called off."""
    return result.observation.frozen or result.observation.method.boots_anew


def stopped_at(call: Call) -> Interval:
    """When the guest was stopped: QEMU stamps its event after the stop."""
    event = event_in(call)
    return Interval(call.called.raw_ns, call.returned.raw_ns if event is None else event.high_ns)


def resumed_at(call: Call) -> Interval:
    """When the guest was resumed: QEMU stamps its event before the resume."""
    event = event_in(call)
    return Interval(call.called.raw_ns if event is None else event.low_ns, call.returned.raw_ns)


def in_time_at(result: CycleResult) -> Interval | None:
    """When the guest's clock was in time again, to stay; None when that was not seen."""
    resume, resync = result.observation.resume, result.resync
    if resume is None or resync is None or resync.time is None:
        return None
    return resync.time.shifted(resume.returned.raw_ns)


@dataclass(frozen=True)
class Down:
    """A period in which a domain of a set was down. A guest in no set is a set of its own.

    begins, ends: intervals that contain its first stop and its last return to time. None: not seen; `missing`
    names what was not.
    """

    domain: Domain
    cycle: int
    begins: Interval | None
    ends: Interval | None
    missing: str = ""

    @property
    def at_most(self) -> Interval | None:
        """The interval outside of which it was certainly not down."""
        if self.begins is None or self.ends is None:
            return None
        return Interval(self.begins.low_ns, max(self.begins.low_ns, self.ends.high_ns))

    @property
    def certain(self) -> Interval | None:
        """The interval in which it was certainly down; None when there is none."""
        if self.begins is None or self.ends is None or self.begins.high_ns > self.ends.low_ns:
            return None
        return Interval(self.begins.high_ns, self.ends.low_ns)


def _end_of(result: CycleResult, ended_raw_ns: int | None) -> Interval | None:
    """When the guest was back and in time. ended_raw_ns: its cycle's end; None when it was cut off."""
    back, resume = in_time_at(result), result.observation.resume
    if back is not None:
        return back
    if resume is None or ended_raw_ns is None:
        return None
    never = result.resync is not None and result.resync.outcome is SyncOutcome.NOT_SYNCED
    last = max(ended_raw_ns, resume.returned.raw_ns)
    return Interval(last if never else resume.returned.raw_ns, last)


def _merged(
    domain: Domain, cycle: int, members: Sequence[tuple[CycleResult, int | None]], onto: OntoOne
) -> Down:
    begins: list[Interval] = []
    ends: list[Interval] = []
    missing = ""
    for result, ended in members:
        stop, guest, cell = result.observation.stop, result.observation.guest, result.observation.cell
        end = _end_of(result, ended)
        begin = None if stop is None else stopped_at(stop)
        for at, of, what in ((begin, begins, "stop"), (end, ends, "return")):
            mapped = None if at is None else onto(cell, at)
            if mapped is not None:
                of.append(mapped)
            elif at is None:
                missing = missing or f"the {what} of {guest} is not on record"
            else:
                missing = missing or f"the clock of host {cell} is not known"
    if missing:
        return Down(domain, cycle, None, None, missing)
    return Down(
        domain,
        cycle,
        Interval(min(b.low_ns for b in begins), min(b.high_ns for b in begins)),
        Interval(max(e.low_ns for e in ends), max(e.high_ns for e in ends)),
    )


Ends = Mapping[tuple[str, int, str], int]
"""The ends of guests' cycles, by cell, cycle and guest. Cycles that were cut off are not in it."""


def _groups(
    results: Iterable[CycleResult], guests: Sequence[GuestSpec], by: DomainKind
) -> dict[tuple[int, Domain], list[CycleResult]]:
    """The cycles that stopped a guest, by number and the guest's domain."""
    domains = {guest.name: (set_of(guest), by.of(guest)) for guest in guests}
    found: dict[tuple[int, Domain], list[CycleResult]] = {}
    for result in results:
        obs = result.observation
        if taken_down(result) and obs.guest in domains:
            found.setdefault((obs.cycle, domains[obs.guest]), []).append(result)
    return found


def downs(
    results: Iterable[CycleResult],
    guests: Sequence[GuestSpec],
    by: DomainKind,
    ends: Ends,
    onto: OntoOne = as_it_is,
) -> list[Down]:
    """All periods in which a domain was down, by cycle. onto: for cells of several hosts."""
    found = []
    for (cycle, domain), members in sorted(_groups(results, guests, by).items()):
        given = [(r, ends.get((r.observation.cell, cycle, r.observation.guest))) for r in members]
        found.append(_merged(domain, cycle, given, onto))
    return found


@dataclass(frozen=True)
class Apart:
    """Two domains of one set, and the time from the end of one to the begin of the other; negative: the time
    for which both were down."""

    first: Domain
    second: Domain
    ns: int


def _nearest(spans: Iterable[tuple[Domain, Interval]]) -> Apart | None:
    """The two domains of one set that are nearest in time, or overlap longest; None with fewer than two
    domains.

    In the order of begins, the nearest is the one that ended last. The last one of another domain is needed
    as well, because the same domain may be down twice.
    """
    nearest: Apart | None = None
    last: tuple[Domain, int] | None = None
    other: tuple[Domain, int] | None = None  # the latest end of another domain than `last`'s
    for domain, span in sorted(spans, key=lambda each: each[1].low_ns):
        before = last if last is not None and last[0] != domain else other
        if before is not None:
            # Two spans overlap for no longer than the shorter one lasts.
            gap = max(span.low_ns - before[1], span.low_ns - span.high_ns)
            if nearest is None or gap < nearest.ns:
                nearest = Apart(before[0], domain, gap)
        if last is None or span.high_ns >= last[1]:
            if last is not None and last[0] != domain:
                other = last
            last = (domain, span.high_ns)
        elif domain != last[0] and (other is None or span.high_ns > other[1]):
            other = (domain, span.high_ns)
    return nearest


@dataclass(frozen=True)
class Proof:
    """The result of the proof for one set. nearest: the worst pair; None without two domains of a set.
    overlap: two domains that certainly were down at once."""

    outcome: Outcome
    why: str
    sets: int
    times: int
    nearest: Apart | None = None
    overlap: Apart | None = None


def named(domain: Domain, by: DomainKind) -> str:
    """ "web UD 1"."""
    return f"{domain[0]} {by.short} {domain[1]}"


def one_at_a_time(given: Sequence[Down], by: DomainKind) -> Proof:
    """Checks whether two domains of one set may have been down, or certainly were down, at once."""
    sets: dict[str, list[Down]] = {}
    for down in given:
        sets.setdefault(down.domain[0], []).append(down)
    nearest: list[Apart] = []
    overlaps: list[Apart] = []
    for downs_of in sets.values():
        one = _nearest((d.domain, d.at_most) for d in downs_of if d.at_most is not None)
        two = _nearest((d.domain, d.certain) for d in downs_of if d.certain is not None)
        nearest += [one] if one is not None else []
        overlaps += [two] if two is not None and two.ns < 0 else []
    worst = min(nearest, key=lambda apart: apart.ns, default=None)
    overlap = min(overlaps, key=lambda apart: apart.ns, default=None)
    counts = len(sets), len(given)
    if overlap is not None:
        who = f"{named(overlap.first, by)} and {named(overlap.second, by)}"
        why = f"{who} were both down for {format_short(-overlap.ns)}"
        return Proof(Outcome.FAILED, why, *counts, worst, overlap)
    if not given:
        return Proof(Outcome.INCONCLUSIVE, "no domain went down on record", *counts)
    for down in given:
        if down.missing:
            why = f"{named(down.domain, by)}, cycle {down.cycle}: {down.missing}"
            return Proof(Outcome.INCONCLUSIVE, why, *counts, worst)
    if worst is not None and worst.ns <= 0:
        who = f"{named(worst.first, by)} and {named(worst.second, by)}"
        why = f"{who} may both have been down for {format_short(-worst.ns)}"
        return Proof(Outcome.INCONCLUSIVE, why, *counts, worst)
    return Proof(Outcome.PASSED, "", *counts, worst)


def proof_finding(proof: Proof, by: DomainKind, cell: str = "") -> Finding:
    """The proof as a finding over the whole run."""
    sets = f"{proof.sets} set" if proof.sets == 1 else f"{proof.sets} sets"
    text = f"{proof.times} times down in {sets}" if proof.times != 1 else f"once down in {sets}"
    if proof.overlap is not None:
        text += f", two domains of a set at the same time for {format_short(-proof.overlap.ns)}"
    elif proof.nearest is not None and proof.nearest.ns > 0:
        who = f"{named(proof.nearest.first, by)} and {named(proof.nearest.second, by)}"
        text += f", at least {format_short(proof.nearest.ns, DOWN)} between two domains of a set ({who})"
    return Finding(
        "", -1, ONE_AT_A_TIME, "never two domains of a set down", text, proof.outcome, proof.why, cell
    )  # fmt: skip


@dataclass(frozen=True)
class Skew:
    """The time between the stops of a domain's first and last guest, and between their resumes. None: not
    seen for all of them. domain: None for all guests that were frozen together."""

    cycle: int
    domain: Domain | None
    guests: tuple[str, ...]
    stop: Interval | None
    resume: Interval | None


def spread(instants: Sequence[Interval]) -> Interval:
    """Bounds of the largest minus the smallest of instants that lie in these intervals. ValueError without
    any."""
    first, last = min(i.high_ns for i in instants), max(i.low_ns for i in instants)
    return Interval(max(0, last - first), max(i.high_ns for i in instants) - min(i.low_ns for i in instants))


def _skew(cycle: int, domain: Domain | None, members: Sequence[CycleResult], onto: OntoOne) -> Skew:
    if len({r.observation.cell for r in members}) < 2:
        onto = as_it_is
    stops = [(r.observation.cell, r.observation.stop) for r in members]
    resumes = [(r.observation.cell, r.observation.resume) for r in members]
    stopped = [onto(cell, stopped_at(call)) for cell, call in stops if call is not None]
    resumed = [onto(cell, resumed_at(call)) for cell, call in resumes if call is not None]
    return Skew(
        cycle,
        domain,
        tuple(r.observation.guest for r in members),
        _spread_of(stopped, len(members)),
        _spread_of(resumed, len(members)),
    )


def _spread_of(instants: Sequence[Interval | None], of: int) -> Interval | None:
    known = [at for at in instants if at is not None]
    return spread(known) if len(known) == of else None


def skews(
    results: Sequence[CycleResult],
    guests: Sequence[GuestSpec],
    by: DomainKind | None,
    onto: OntoOne = as_it_is,
) -> list[Skew]:
    """The skew of every domain with two guests or more, in each cycle; for `by` None, of each cycle's
    guests. onto: for cells of several hosts."""
    if by is not None:
        groups = _groups(results, guests, by)
        return [_skew(c, domain, m, onto) for (c, domain), m in sorted(groups.items()) if len(m) > 1]
    cycles: dict[int, list[CycleResult]] = {}
    for result in results:
        if taken_down(result):
            cycles.setdefault(result.observation.cycle, []).append(result)
    return [
        _skew(cycle, None, members, onto) for cycle, members in sorted(cycles.items()) if len(members) > 1
    ]


def skew_findings(
    given: Sequence[Skew], limit_ns: int | None, by: DomainKind | None, cell: str = ""
) -> list[Finding]:
    """Compares each skew with the limit, separately for stops and resumes; no findings without a limit."""
    if limit_ns is None:
        return []
    text = f"at most {format_duration(limit_ns)}"
    if not given:
        why = "no domain had two frozen guests"
        return [Finding("", -1, "skew", text, "not measured", Outcome.INCONCLUSIVE, why, cell)]
    found = []
    for skew in given:
        who = f"{named(skew.domain, by)}: " if skew.domain is not None and by is not None else ""
        for metric, spread in (("stop skew", skew.stop), ("resume skew", skew.resume)):
            if spread is None:
                outcome, measured, why = (
                    Outcome.INCONCLUSIVE,
                    "not measured",
                    f"{who}not recorded for all guests",
                )
            else:
                outcome = at_most(limit_ns, spread.low_ns, spread.high_ns)
                measured = f"{format_short(spread.low_ns)} to {format_short(spread.high_ns)}"
                why = "" if outcome is Outcome.PASSED else f"{who}{measured}, expected {text}"
            found.append(Finding("", skew.cycle, metric, text, measured, outcome, why, cell))
    return found
