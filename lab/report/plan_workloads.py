"""The workloads of a plan, and the search for the shortest pause that one fails at."""

from __future__ import annotations

from collections.abc import Iterator

from lab.core.plan import Plan
from lab.core.units import format_duration
from lab.core.workload.shipped import SHIPPED
from lab.core.workload.spec import WorkloadExpect, WorkloadSpec
from lab.core.workload.tolerance import ToleranceSpec
from lab.report.page import Page
from lab.report.text import counted


def workloads(page: Page, plan: Plan) -> None:
    """Print them; nothing without any."""
    specs = dict.fromkeys(spec for cell in plan.parts for spec in cell.workloads)
    if not specs:
        return
    for spec in specs:
        page.parts([f"workload {spec.name}:"], first_style="bold")
        for label, text in _facts(spec):
            _line(page, label, text)
    peers = dict.fromkeys(guest.name for cell in plan.parts for guest in cell.guests if guest.is_peer)
    if peers:
        page.parts(["not frozen: " + ", ".join(peers)])
    if plan.tolerance is not None:
        page.parts([f"tolerance: {_search(plan.tolerance)}"])
    page.blank()


def _line(page: Page, label: str, text: str) -> None:
    page.labelled(f"  {label}", text, label_style="", width=16)


def _facts(spec: WorkloadSpec) -> Iterator[tuple[str, str]]:
    shipped = SHIPPED.get(spec.shipped)
    if shipped is not None:
        yield "", shipped.about
        if spec.period_ns is not None:
            yield "period", format_duration(spec.period_ns)
        if spec.options:
            yield "options", ", ".join(f"{name} {value}" for name, value in spec.options)
    else:
        yield "client", " ".join(spec.command)
        if spec.on:
            yield "runs in", spec.on
    expected = list(expectations(spec.expect))
    yield "expected", ", ".join(expected) if expected else "samples, and nothing else"


def expectations(expect: WorkloadExpect) -> Iterator[str]:
    """What a workload has to show, in a few words each."""
    if expect.outage_ns is not None:
        yield f"an outage of at most {format_duration(expect.outage_ns)}"
    if expect.beyond_pause_ns is not None:
        yield f"an outage of at most {format_duration(expect.beyond_pause_ns)} beyond the pause"
    for name, limit in (
        ("failed", expect.failed), ("lost", expect.lost), ("delivered twice", expect.twice),
        ("wrong stamps", expect.wrong_stamps), ("refused by date", expect.refused),
    ):  # fmt: skip
        if limit is not None:
            yield f"at most {limit} {name}" if limit else f"none {name}"
    yield from (f"{name} unchanged" for name in expect.unchanged)
    yield from (f"one {name} at a time" for name in expect.one_holder)
    yield from (f"never {name}" for name in expect.never)
    if expect.as_predicted:
        yield "as its configuration lets one expect"


def _search(spec: ToleranceSpec) -> str:
    return (
        f"the shortest pause from {format_duration(spec.shortest_ns)} to {format_duration(spec.longest_ns)} "
        f"that it fails at; the longest that passes has to pass {counted(spec.tries, 'time')}; "
        f"to within {spec.precision:.0%}, "
        f"in at most {format_duration(spec.budget_ns)}"
    )
