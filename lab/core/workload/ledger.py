"""What was acknowledged, what was delivered, what was lost and what came twice.

Over all cycles of a workload, because a message may be delivered once more in a later cycle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.core.workload.sample import WorkloadDelivery, WorkloadRequest


@dataclass(frozen=True)
class Ledger:
    """Numbers of one cycle.

    acknowledged, lost, in_doubt and undecided count this cycle's requests, the others its deliveries.
    acknowledged: requests. lost: acknowledged, and never delivered, in no cycle. in_doubt: not acknowledged,
    and delivered all the same. undecided: acknowledged so shortly before the end that they may still have
    been on their way; they are not in `lost`. delivered: requests of any cycle that arrived for the first
    time. twice: deliveries of what had been delivered before, to whomever. between: the same before the cycle
    began: the cycle before it may have caused them, or the preparation of this one, such as an election.
    disordered: first deliveries of a lower number than an earlier one's to the same consumer. unknown:
    deliveries of numbers that no request had so far; it may be under way.
    """

    acknowledged: int = 0
    delivered: int = 0
    lost: int = 0
    twice: int = 0
    in_doubt: int = 0
    disordered: int = 0
    unknown: int = 0
    undecided: int = 0
    between: int = 0


@dataclass(frozen=True)
class _Sent:
    """The cycle of a request, when it was done, and whether it was acknowledged."""

    cycle: int
    done_ns: int
    ok: bool


def ledgers(
    cycles: Sequence[tuple[Sequence[WorkloadRequest], Sequence[WorkloadDelivery], int]],
    ended_ns: int,
    grace_ns: int,
) -> list[Ledger]:
    """The ledger of each cycle. cycles: requests and deliveries as they were reported in each, also those
    from between two cycles, and host MONOTONIC_RAW at its beginning. ended_ns: host MONOTONIC_RAW at the end
    of the observation. grace_ns: the time that a delivery may take: what was acknowledged later than this
    before the end is undecided."""
    sent: dict[int, _Sent] = {}
    for cycle, (requests, *_) in enumerate(cycles):
        for each in requests:
            sent.setdefault(each.seq, _Sent(cycle, each.done_ns, each.ok))
    there: set[int] = set()
    counts: list[dict[str, int]] = [
        dict.fromkeys(("delivered", "twice", "between", "disordered", "unknown"), 0) for _ in cycles
    ]
    last: dict[str, int] = {}
    for count, (_, deliveries, began_ns) in zip(counts, cycles, strict=True):
        for arrival in sorted(deliveries, key=lambda one: one.at_ns):
            if arrival.seq not in sent:
                count["unknown"] += 1
                continue
            if arrival.seq in there:
                count["twice" if arrival.at_ns >= began_ns else "between"] += 1
            else:
                count["delivered"] += 1
                if arrival.seq < last.get(arrival.by, -1):
                    count["disordered"] += 1
            there.add(arrival.seq)
            last[arrival.by] = max(arrival.seq, last.get(arrival.by, -1))
    found = [dict.fromkeys(("acknowledged", "lost", "in_doubt", "undecided"), 0) for _ in cycles]
    for seq, one in sent.items():
        count = found[one.cycle]
        if one.ok:
            count["acknowledged"] += 1
            if seq not in there:
                count["undecided" if one.done_ns > ended_ns - grace_ns else "lost"] += 1
        elif seq in there:
            count["in_doubt"] += 1
    return [Ledger(**one, **two) for one, two in zip(found, counts, strict=True)]
