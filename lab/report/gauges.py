"""What workloads' clients measured, such as a throughput: before the stop, and from it on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.core.quantities import format_magnitude
from lab.core.workload.gauges import GaugeSummary
from lab.record.model_workload import WorkloadCycleRecord
from lab.report.page import Page
from lab.report.table import Column, Piece, Table

MOST_ROWS = 32
DASH: Piece = ("–", "dim")


@dataclass(frozen=True)
class _GaugeRow:
    label: str
    gauge: GaugeSummary
    control: bool


def show_gauges(page: Page, cycles: Sequence[tuple[str, WorkloadCycleRecord]]) -> None:
    """Print the gauges of cycles, by their labels; nothing without any."""
    rows = [_GaugeRow(label, gauge, cycle.control) for label, cycle in cycles for gauge in cycle.gauges]
    if not rows:
        return
    columns: list[Column[_GaugeRow]] = [
        Column("cycle", lambda row: (row.label, "")),
        Column("measured", lambda row: (_name(row.gauge.name), "")),
        Column("before", lambda row: _value(row.gauge.name, row.gauge.before), right=True),
        Column("lowest after", lambda row: _value(row.gauge.name, row.gauge.lowest), right=True),
        Column("highest after", lambda row: _value(row.gauge.name, row.gauge.highest), right=True),
        Column("as before after", _back, right=True, rank=1),
    ]
    page.table(Table(columns, rows[:MOST_ROWS]))
    if len(rows) > MOST_ROWS:
        page.labelled("", f"{len(rows) - MOST_ROWS} more rows: freezelab report --json")


def _name(name: str) -> str:
    return name.removesuffix("_ns").removesuffix("_bit_s").replace("_", " ")


def _value(name: str, value: int | None) -> Piece:
    if value is None:
        return DASH
    if name.endswith("_ns"):
        return format_magnitude(value), ""
    if name.endswith("_bit_s"):
        return f"{value / 1e6:.2f} Mbit/s", ""
    return f"{value}", ""


def _back(row: _GaugeRow) -> Piece:
    if row.control or row.gauge.back_ns is None:
        return DASH
    return format_magnitude(row.gauge.back_ns), ""
