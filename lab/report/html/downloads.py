"""run.json and tables as files inside of the page: data: URIs, which work without a script."""

from __future__ import annotations

import base64
import csv
import gzip
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lab.record.model import CycleRecord, GuestRecord, Run
from lab.record.model_clock import Measure
from lab.record.model_workload import Latencies
from lab.record.run import RUN, json_pieces
from lab.report.html.document import markup

LARGE = 1 << 18
"""From this size on, in bytes, run.json is packed."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Download:
    """A file. about: what it has; uri: the file itself."""

    name: str
    about: str
    size: str
    uri: str


def downloads(raw: Run, run: Run) -> Markup:
    """The files. raw: the run as recorded, for run.json; run: cleaned, for tables."""
    text = "".join(json_pieces(raw)).encode("utf-8", "backslashreplace")
    about = "the whole record"
    if len(text) >= LARGE:
        files = [_file(f"{RUN}.gz", f"{about}, packed", "application/gzip", gzip.compress(text, 9, mtime=0))]
    else:
        files = [_file(RUN, about, "application/json", text)]
    files += [
        _file(name, f"{about}: {len(rows)} rows", "text/csv;charset=utf-8", _csv(heads, rows))
        for name, about, heads, rows in _tables(run)
        if rows
    ]
    return markup("downloads.html.j2", files=files)


def _file(name: str, about: str, kind: str, content: bytes) -> Download:
    size = f"{len(content) / 1024:.0f} KiB" if len(content) >= 1024 else f"{len(content)} bytes"
    return Download(name, about, size, f"data:{kind};base64,{base64.b64encode(content).decode()}")


def _csv(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    file = io.StringIO()
    table = csv.writer(file)
    table.writerow(heads)
    table.writerows([_safe(value) for value in row] for row in rows)
    return file.getvalue().encode()


def _safe(value: object) -> object:
    """A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


_Rows = list[list[object]]


def _tables(run: Run) -> Iterator[tuple[str, str, list[str], _Rows]]:
    cycles = [(guest, cycle) for guest in run.guests for cycle in guest.cycles]
    yield (
        "findings.csv", "all checks",
        ["cell", "guest", "cycle", "metric", "expectation", "measured", "outcome", "why"],
        [
            [
                f.cell, f.guest, f.cycle if f.cycle >= 0 else "", f.metric, f.expectation, f.measured,
                f.outcome.value, f.why,
            ]
            for f in run.findings
        ],
    )  # fmt: skip
    yield "cycles.csv", "all cycles, in nanoseconds", list(_CYCLE), [_cycle(*pair) for pair in cycles]
    yield (
        "parts.csv", "where each pause goes",
        ["cell", "guest", "cycle", "part", "at_ns", "length_ns", "low_ns", "high_ns"],
        [
            [guest.cell, guest.name, c.index, s.name, s.at_ns, s.length_ns, s.low_ns, s.high_ns]
            for guest, c in cycles for s in c.steps
        ],
    )  # fmt: skip
    yield (
        "workloads.csv", "all cycles of workloads",
        ["workload", "cell", "cycle", "control", "outcome", "requests", "failed", *_bounds("outage"),
         "recovery_ns", "p50_ns", "p99_ns", "max_ns", "lost", "twice"],
        [
            [
                w.name, w.cell, c.cycle, c.control, c.outcome.value, c.requests, c.failed,
                *_measure(c.outage), c.recovery_ns, *_latencies(c.latencies),
                *((c.ledger.lost, c.ledger.twice) if c.ledger else ("", "")),
            ]
            for w in run.workloads for c in w.cycles
        ],
    )  # fmt: skip
    yield (
        "tries.csv", "the tries of searches",
        ["workload", "cell", "method", "cycle", "pause_ns", "outcome"],
        [
            [t.workload, t.cell, t.method, one.cycle, one.pause_ns, one.outcome.value]
            for t in run.tolerances for one in t.tries
        ],
    )  # fmt: skip


def _bounds(name: str) -> list[str]:
    return [f"{name}_ns", f"{name}_low_ns", f"{name}_high_ns"]


def _latencies(given: Latencies | None) -> list[object]:
    return ["", "", ""] if given is None else [given.p50_ns, given.p99_ns, given.max_ns]


def _measure(measure: Measure | None) -> list[object]:
    return ["", "", ""] if measure is None else [measure.value_ns, measure.low_ns, measure.high_ns]


_CYCLE = (
    "cell", "guest", "cycle", "control", "outcome", "method", "patch", "regime", *_bounds("pause"),
    "outage_ns", "used_ns", "closure_ns", *_bounds("offset_before"), *_bounds("offset_at_resume"),
    *_bounds("offset_final"), "in_time_low_ns", "in_time_ns", "correction", "drift_before_ppm",
    "drift_after_ppm",
)  # fmt: skip


def _cycle(guest: GuestRecord, c: CycleRecord) -> list[object]:
    resync, drift = c.resync, c.drift
    return [
        guest.cell, guest.name, c.index, c.control, c.outcome.value, c.method, c.patch, c.regime,
        *_measure(c.pause), c.outage_ns, c.used_ns, c.closure_ns, *_measure(c.offset.before),
        *_measure(c.offset.at_resume), *_measure(c.offset.final),
        *((resync.time_low_ns, resync.time_ns, resync.correction) if resync else ("", "", "")),
        drift.before.ppm if drift.before else "", drift.after.ppm if drift.after else "",
    ]  # fmt: skip
