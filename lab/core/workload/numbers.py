"""A client's request numbers: whether they can be believed."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from lab.core.workload.sample import WorkloadRequest


def number_problems(cycles: Sequence[Sequence[WorkloadRequest]]) -> list[tuple[str, ...]]:
    """What is wrong with the numbers of each cycle's requests, a line each. Over all cycles, because numbers
    go on from one to the next.

    A number that came before is wrong: what was lost or came twice cannot be counted. So is one that is
    lower than that of a request that was over before this one was due. Requests that were under way together
    may have any order, and so may those without times of their own.
    """
    repeated, backward = _repeated(cycles), _backward(cycles)
    return [_lines(first, second) for first, second in zip(repeated, backward, strict=True)]


def _lines(repeated: Sequence[int], backward: Sequence[int]) -> tuple[str, ...]:
    found = []
    if repeated:
        found.append(
            f"{_requests(len(repeated))} came with a number that came before, the first {repeated[0]}"
        )
    if backward:
        found.append(
            f"{_requests(len(backward))} came with a lower number than before, the first {backward[0]}"
        )
    return tuple(found)


def _requests(count: int) -> str:
    return f"{count} request{'s' if count > 1 else ''}"


def _repeated(cycles: Sequence[Sequence[WorkloadRequest]]) -> list[list[int]]:
    seen: set[int] = set()
    found: list[list[int]] = []
    for requests in cycles:
        found.append([])
        for request in requests:
            if request.seq in seen:
                found[-1].append(request.seq)
            seen.add(request.seq)
    return found


def _backward(cycles: Sequence[Sequence[WorkloadRequest]]) -> list[list[int]]:
    every = [
        (one.due_ns, one.done_ns, one.seq, cycle)
        for cycle, requests in enumerate(cycles)
        for one in requests
        if one.due_ns < one.done_ns
    ]
    found: list[list[int]] = [[] for _ in cycles]
    under_way: list[tuple[int, int]] = []
    highest = -1
    for due, done, seq, cycle in sorted(every):
        while under_way and under_way[0][0] < due:
            highest = max(highest, heapq.heappop(under_way)[1])
        if seq < highest:
            found[cycle].append(seq)
        heapq.heappush(under_way, (done, seq))
    return found
