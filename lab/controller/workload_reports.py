"""Journals what the clients of workloads report in a cycle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lab.ports import Journal, WorkloadClient


@contextmanager
def reported(workloads: Sequence[WorkloadClient], journal: Journal, index: int) -> Iterator[None]:
    """A context for the cycle with this index. At its end, however it ends, the journal has what was reported
    since its beginning. Raises what WorkloadClient.start_cycle raises."""
    for workload in workloads:
        workload.start_cycle()
    try:
        yield
    finally:
        for workload in workloads:
            journal.append(workload.collect(index))
