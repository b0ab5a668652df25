"""Workloads with a known truth, and the lines that a client prints of them.

A service is out for known times; requests that reach it meanwhile wait, are lost or are refused. Clients send
on their own schedule (open), or wait for each answer (closed). All times are the host's MONOTONIC_RAW until
a client prints them by the clock that it uses, with some time between what happens, the printing and the
reading.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lab.core.clock import Stamp
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.workload.judge import WorkloadWindow
from lab.core.workload.sample import (
    Sample,
    SampleClock,
    SampleReader,
    StateLook,
    WorkloadDelivery,
    WorkloadEvent,
    WorkloadRequest,
)

MS, S = NS_PER_MS, NS_PER_S
START = 5_000 * S
"""MONOTONIC_RAW of the host when a simulation begins."""

Span = tuple[int, int]


@dataclass(frozen=True)
class LineHost:
    """The host's clocks: REALTIME and MONOTONIC beside MONOTONIC_RAW. REALTIME is beyond 2**53 ns."""

    real_minus_raw: int = 1_790_000_000 * S
    mono_minus_raw: int = 3_217_004

    def shift(self, clock: SampleClock) -> int:
        return {
            SampleClock.REALTIME: self.real_minus_raw,
            SampleClock.MONOTONIC: self.mono_minus_raw,
            SampleClock.MONOTONIC_RAW: 0,
        }[clock]


@dataclass(frozen=True)
class Printed:
    """A line: when it was printed, and its members; those in TIMES are MONOTONIC_RAW."""

    at: int
    line: Mapping[str, object]


TIMES = ("due", "sent", "done", "at")
LATEST = 4 * MS
"""The longest time from a line's printing to its reading."""


def heard(
    lines: Iterable[Printed],
    clock: SampleClock,
    luck: random.Random,
    host: LineHost | None = None,
    period_ns: int | None = None,
) -> list[tuple[int, Sample]]:
    """What SampleReader makes of the lines, and when each was read. They are read in the order in which they
    were printed, some of them together."""
    host = host or LineHost()
    reader, found, read = SampleReader(), list[tuple[int, Sample]](), 0
    hello = {"freezelab": 1, "clock": clock.value} | ({"period_ns": period_ns} if period_ns else {})
    assert reader.read(json.dumps(hello), Stamp(START, START + host.real_minus_raw)) == ()
    for each in sorted(lines, key=lambda one: one.at):
        shown = {
            key: value + host.shift(clock) if key in TIMES and isinstance(value, int) else value
            for key, value in each.line.items()
        }
        read = max(read, each.at + luck.randrange(LATEST))
        stamp = Stamp(read, read + host.real_minus_raw)
        found += [(read, one) for one in reader.read(json.dumps(shown), stamp, host.mono_minus_raw)]
    return found


def windows(
    samples: Sequence[tuple[int, Sample]], cuts: Sequence[int], **more: object
) -> list[WorkloadWindow]:
    """The windows between the cuts, with what was read in each; what was read after the last is in none."""
    found = []
    for cycle, (began, ended) in enumerate(pairwise(cuts)):
        own = [sample for read, sample in samples if began <= read < ended]
        found.append(
            WorkloadWindow(
                cycle,
                began,
                ended,
                [one for one in own if isinstance(one, WorkloadRequest)],
                [one for one in own if isinstance(one, WorkloadDelivery)],
                [one for one in own if isinstance(one, StateLook)],
                [one for one in own if isinstance(one, WorkloadEvent)],
                **more,  # type: ignore[arg-type]
            )
        )
    return found


@dataclass(frozen=True)
class Service:
    """A service that is out at known times. fate: of a request that reaches it meanwhile: wait, lost,
    refused, or mixed. one_way: the longest time from the client to it, or back. slowest: the longest time
    that it takes to serve once it can."""

    out: tuple[Span, ...] = ()
    fate: str = "wait"
    one_way: int = 2 * MS
    timeout: int = S

    def ask(self, sent: int, luck: random.Random, *, lost: bool = False) -> tuple[int, bool]:
        """When a request that was sent then is over for the client, and whether it succeeded."""
        there, back = luck.randrange(1, self.one_way), luck.randrange(1, self.one_way)
        arrival = sent + there
        if lost:
            return sent + self.timeout, False
        for began, ended in self.out:
            if began <= arrival < ended:
                fate = luck.choice(("wait", "lost", "refused")) if self.fate == "mixed" else self.fate
                if fate == "wait":
                    return ended + back, True
                return (sent + self.timeout, False) if fate == "lost" else (arrival + back, False)
        return arrival + back, True


@dataclass(frozen=True)
class Asking:
    """A client. kind: open (sends when it is due), late (waits for each answer, and sends what has become
    due meanwhile at once), skipping (waits, and leaves that out; its requests have no due), gridded (the
    same, and its requests have their due). tardy: the longest time by which it sends and reads late. losses:
    one of so many requests is lost on the way, never two after one another nor close to an outage, as two
    failures with nothing between them are one outage by definition; 0: none."""

    kind: str = "open"
    period: int = 100 * MS
    tardy: int = MS
    losses: int = 0

    def lines(self, service: Service, began: int, ended: int, luck: random.Random) -> list[Printed]:
        """What it prints of its requests from `began` to `ended`; those that are over later are printed
        later."""
        found, free, due, seq, lost = list[Printed](), began, began, 0, False
        margin = 3 * self.period + 2 * service.timeout
        calm = [(a - margin, b + margin) for a, b in service.out]
        while due < ended:
            sent = max(due, free if self.kind != "open" else due) + luck.randrange(self.tardy + 1)
            near = any(a <= sent <= b for a, b in calm)
            lost = bool(self.losses) and not lost and not near and luck.randrange(self.losses) == 0
            over, ok = service.ask(sent, luck, lost=lost)
            done = over + luck.randrange(self.tardy + 1)
            line = {"seq": seq, "sent": sent, "done": done, "ok": ok}
            found.append(Printed(done, line if self.kind == "skipping" else line | {"due": due}))
            seq, free, due = seq + 1, done, due + self.period
            if self.kind in ("skipping", "gridded") and done > due:
                due += -(-(done - due) // self.period) * self.period
        return found
