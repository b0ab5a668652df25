"""Output of `freezelab hosts check`."""

from __future__ import annotations

from collections.abc import Callable

from rich.cells import cell_len
from rich.console import Console

from lab.core.clock import Interval
from lab.core.quantities import format_interval, format_magnitude
from lab.record.hosts_check import HostReport, HostsCheck, MachineReport
from lab.report.page import Page
from lab.report.table import Column, Piece, Table
from lab.report.text import cleaned, counted, names

_DASH: Piece = ("–", "dim")
MOST_NAMES = 4


def render_hosts(found: HostsCheck, console: Console) -> None:
    """Print a row for each host, a line for each problem with what to do, and their overall result."""
    page, found = Page(console), cleaned(found)
    page.table(
        Table(
            [
                Column("host", lambda host: (host.name, "bold")),
                Column("doctor", _doctor),
                Column("clock", _offset, right=True),
                Column("round trip", _round_trip, right=True),
                Column("freezelab", lambda host: _of(host, _freezelab(found.here)), rank=6),
                Column("QEMU", lambda host: _of(host, lambda report: report.qemu), rank=5),
                Column("libvirt", lambda host: _of(host, lambda report: report.libvirt), rank=4),
                Column("kernel", lambda host: _of(host, lambda report: report.kernel), rank=3),
                Column("Python", lambda host: _of(host, lambda report: report.python), rank=1),
                Column("calibrated", lambda host: _of(host, _calibrated), rank=2),
            ],
            found.hosts,
        )
    )
    page.blank()
    labels = [names(problem.hosts, MOST_NAMES) for problem in found.problems]
    width = min(24, max(map(cell_len, labels), default=0))
    for problem, label in zip(found.problems, labels, strict=True):
        mark, style = ("BAD", "bold red") if problem.fails else ("note", "yellow")
        page.labelled(f"{mark:<5}{label}", problem.what, label_style=style, width=width + 5)
        if problem.todo:
            page.labelled("", problem.todo, style="dim", width=width + 5)
    page.blank()
    bad = {name for problem in found.problems if problem.fails for name in problem.hosts}
    if bad:
        page.parts(
            [f"{len(bad)} of {counted(len(found.hosts), 'host')} cannot be used as they are"], "bold red"
        )
    else:
        page.parts([f"{counted(len(found.hosts), 'host')} can run freezelab"], "bold green")


def _doctor(host: HostReport) -> Piece:
    if host.report is None:
        return "no report" if host.clock is not None else "no answer", "bold red"
    failed, notes = len(host.report.failed), sum(check.ok is None for check in host.report.checks)
    if failed:
        return f"{failed} of {len(host.report.checks)} failed", "bold red"
    return f"ok, {counted(notes, 'note')}" if notes else "ok", "green"


def _offset(host: HostReport) -> Piece:
    if host.clock is None:
        return _DASH
    return format_interval(Interval(host.clock.offset_low_ns, host.clock.offset_high_ns), signed=True), ""


def _round_trip(host: HostReport) -> Piece:
    return _DASH if host.clock is None else (format_magnitude(host.clock.round_trip_median_ns), "")


def _of(host: HostReport, part: Callable[[MachineReport], str]) -> Piece:
    if host.report is None:
        return _DASH
    text = part(host.report)
    return (text, "") if text else _DASH


def _freezelab(here: MachineReport) -> Callable[[MachineReport], str]:
    return lambda report: f"{report.freezelab}{'' if report.code == here.code else ', other'}"


def _calibrated(report: MachineReport) -> str:
    saved = report.calibration
    if saved is None:
        return "no"
    return f"{saved.made[:10]}{', stale' if saved.stale else ', rough' if saved.rough else ''}"
