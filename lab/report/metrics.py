"""A run as Prometheus' metrics: the last measurement of each guest, and the outcome. docs/metrics.md has
the table.

A run is one moment to Prometheus, so what was measured is gauges: those of each guest's last cycle with a
freeze. Counters begin at 0 with each run.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from prometheus_client import generate_latest

from lab import __version__
from lab.core.verdict import Outcome
from lab.record.model import CycleRecord, GuestRecord, Measure, Run
from lab.record.statistics import median_pause
from lab.report.files import write_whole
from lab.report.metric_families import MetricKind, MetricSamples

_CYCLE = ("playbook", "cell", "guest", "method")
OUTCOMES = tuple(outcome.value for outcome in Outcome)
_PPM = 1e-6

RUN_METRICS = (
    MetricKind("freezelab_build", "info", "The freezelab that exposes this.", ("playbook", "version")),
    MetricKind("freezelab_run", "info", "The run that the other metrics are of.", ("playbook", "run")),
    MetricKind(
        "freezelab_host",
        "info",
        "The host of the run.",
        ("playbook", "kernel", "cpu", "qemu", "libvirt", "accelerator"),
    ),
    MetricKind("freezelab_run_in_progress", "gauge", "1 while the run is in progress.", ("playbook",)),
    MetricKind("freezelab_run_start_timestamp", "gauge", "When the run began.", ("playbook",), "seconds"),
    MetricKind("freezelab_run_end_timestamp", "gauge", "When the run ended.", ("playbook",), "seconds"),
    MetricKind(
        "freezelab_run_outcome",
        "gauge",
        "1 for the outcome of the ended run, 0 for the others.",
        ("playbook", "outcome"),
    ),
    MetricKind("freezelab_run_interrupted", "gauge", "1 when the run was interrupted.", ("playbook",)),
    MetricKind(
        "freezelab_findings", "gauge", "Findings of the ended run by outcome.", ("playbook", "outcome")
    ),
    MetricKind(
        "freezelab_cell_outcome",
        "gauge",
        "1 for the outcome of the cell, 0 for the others.",
        ("playbook", "cell", "outcome"),
    ),
    MetricKind("freezelab_guests_frozen", "gauge", "Guests that stand still now.", ("playbook",)),
    MetricKind(
        "freezelab_cycles",
        "counter",
        "Guests' cycles since the run began; kind: freeze or control.",
        (*_CYCLE, "kind", "outcome"),
    ),
    MetricKind(
        "freezelab_pause", "interval", "Time in which no instruction of the guest ran.", _CYCLE, "seconds"
    ),
    MetricKind(
        "freezelab_pause_median",
        "interval",
        "Median pause of the ended run's freezes.",
        ("playbook", "cell", "method"),
        "seconds",
    ),
    MetricKind(
        "freezelab_pause_unaccounted",
        "interval",
        "What the witnesses of the pause leave unexplained.",
        _CYCLE,
        "seconds",
    ),
    MetricKind(
        "freezelab_pause_budget", "gauge", "How long the guest was allowed to stand still.", _CYCLE, "seconds"
    ),
    MetricKind("freezelab_pause_budget_used", "gauge", "The used part of the budget.", _CYCLE, "seconds"),
    MetricKind(
        "freezelab_outage", "gauge", "For a reboot: until the new boot's first sign.", _CYCLE, "seconds"
    ),
    MetricKind(
        "freezelab_clock_offset",
        "interval",
        "Guest's clock minus the host's, before the freeze, at the resume and at the end of the cycle.",
        (*_CYCLE, "at"),
        "seconds",
    ),
    MetricKind(
        "freezelab_clock_drift",
        "interval",
        "Rate of the guest's clock against the host's, before the freeze and after it.",
        (*_CYCLE, "at"),
        "ratio",
    ),
    MetricKind(
        "freezelab_clock_in_time",
        "gauge",
        "1 when the guest's clock came back to the host's.",
        (*_CYCLE, "mechanism"),
    ),
    MetricKind(
        "freezelab_clock_resync",
        "interval",
        "From the resume until the guest's clock was in time again.",
        (*_CYCLE, "mechanism"),
        "seconds",
    ),
    MetricKind(
        "freezelab_run_scheduled_events",
        "gauge",
        "Announcements of the run by state.",
        ("playbook", "cell", "state"),
    ),
    MetricKind(
        "freezelab_event_notice",
        "gauge",
        "From the publication of a group's last event to its start.",
        ("playbook", "cell", "group"),
        "seconds",
    ),
    MetricKind(
        "freezelab_event_freeze_after_not_before",
        "interval",
        "The freeze minus NotBefore of a group's last event; negative: earlier.",
        ("playbook", "cell", "group"),
        "seconds",
    ),
    MetricKind(
        "freezelab_event_refused_requests",
        "counter",
        "Requests of a group that were answered with an error.",
        ("playbook", "cell", "group"),
    ),
    MetricKind(
        "freezelab_rollout_waves", "gauge", "Waves of the last rollout by state.", ("playbook", "state")
    ),
    MetricKind(
        "freezelab_workload_outage",
        "interval",
        "Longest time without a successful request.",
        ("playbook", "cell", "workload"),
        "seconds",
    ),
    MetricKind(
        "freezelab_workload_requests",
        "counter",
        "Requests of the workload's client by result.",
        ("playbook", "cell", "workload", "result"),
    ),
    MetricKind(
        "freezelab_calibration_bias",
        "gauge",
        "Median error of the measured pause on this host.",
        ("playbook",),
        "seconds",
    ),
    MetricKind(
        "freezelab_calibration_spread", "gauge", "95 % range of that error.", ("playbook",), "seconds"
    ),
    MetricKind(
        "freezelab_calibration_coverage",
        "gauge",
        "Share of intervals that contained the truth.",
        ("playbook",),
        "ratio",
    ),
)


def run_samples(run: Run, *, in_progress: bool = False, frozen: int | None = None) -> MetricSamples:
    """The run's samples. in_progress: it has no outcome yet. frozen: the number of guests that stand still
    now; None where that is not known."""
    made, playbook = MetricSamples(RUN_METRICS), run.playbook.name
    host = run.host
    made.put("freezelab_build", 1, playbook, __version__)
    made.put("freezelab_run", 1, playbook, run.id)
    made.put("freezelab_host", 1, playbook, host.kernel, host.cpu, host.qemu, host.libvirt, host.accelerator)
    made.put("freezelab_run_in_progress", in_progress, playbook)
    made.put("freezelab_run_start_timestamp", _timestamp(run.started), playbook)
    made.put("freezelab_guests_frozen", frozen, playbook)
    _cycles(made, run)
    _events(made, run)
    if not in_progress:
        _ended(made, run)
    if run.calibration is not None:
        made.put_ns("freezelab_calibration_bias", run.calibration.bias_ns, playbook)
        made.put_ns("freezelab_calibration_spread", run.calibration.spread_ns, playbook)
        made.put("freezelab_calibration_coverage", run.calibration.coverage, playbook)
    return made


def write_metrics(run: Run, path: Path, *, in_progress: bool = False) -> None:
    """Write the run for node_exporter's textfile collector, whole or not at all. MachineError when it
    cannot be written; the old file is there then."""
    write_whole(path, generate_latest(run_samples(run, in_progress=in_progress)))


def _ended(made: MetricSamples, run: Run) -> None:
    """What is known of an ended run only."""
    playbook = run.playbook.name
    made.put("freezelab_run_end_timestamp", _timestamp(run.ended), playbook)
    made.put_state("freezelab_run_outcome", OUTCOMES, run.outcome, playbook)
    made.put("freezelab_run_interrupted", run.interrupted, playbook)
    for outcome in Outcome:
        made.put("freezelab_findings", sum(f.outcome is outcome for f in run.findings), playbook, outcome)
    for cell in run.cells:
        made.put_state("freezelab_cell_outcome", OUTCOMES, cell.outcome, playbook, cell.id)
        made.put_interval("freezelab_pause_median", cell.pause, playbook, cell.id, cell.method)
    if not run.cells:
        by_method: dict[str, list[CycleRecord]] = {}
        for _, cycle in _frozen(run):
            by_method.setdefault(cycle.method, []).append(cycle)
        for method, cycles in by_method.items():
            made.put_interval("freezelab_pause_median", median_pause(cycles), playbook, "", method)
    for workload in run.workloads:
        labels = (playbook, workload.cell, workload.name)
        for one in workload.cycles:
            if not one.control:
                made.put_interval("freezelab_workload_outage", one.outage, *labels)
            made.count("freezelab_workload_requests", one.ok, *labels, "ok")
            made.count("freezelab_workload_requests", one.failed, *labels, "failed")


def _frozen(run: Run) -> Iterator[tuple[GuestRecord, CycleRecord]]:
    """The cycles with a freeze, or a reboot."""
    for guest in run.guests:
        for cycle in guest.cycles:
            if not cycle.control:
                yield guest, cycle


def _cycles(made: MetricSamples, run: Run) -> None:
    for guest in run.guests:
        for cycle in guest.cycles:
            labels = (run.playbook.name, guest.cell, guest.name, cycle.method)
            kind = "control" if cycle.control else "freeze"
            made.count("freezelab_cycles", 1, *labels, kind, cycle.outcome)
    for guest, cycle in _frozen(run):  # in order: the last one stays
        labels = (run.playbook.name, guest.cell, guest.name, cycle.method)
        made.put_interval("freezelab_pause", cycle.pause, *labels)
        made.put_interval("freezelab_pause_unaccounted", cycle.closure, *labels)
        made.put_ns("freezelab_pause_budget", cycle.budget_ns, *labels)
        made.put_ns("freezelab_pause_budget_used", cycle.used_ns, *labels)
        made.put_ns("freezelab_outage", cycle.outage_ns, *labels)
        offset, drift = cycle.offset, cycle.drift
        for at, measure in (("before", offset.before), ("resume", offset.at_resume), ("end", offset.final)):
            made.put_interval("freezelab_clock_offset", measure, *labels, at)
        for at, rate in (("before", drift.before), ("after", drift.after)):
            if rate is not None:
                given = rate.ppm, rate.low, rate.high
                made.put_bounds("freezelab_clock_drift", given, *labels, at, scale=_PPM)
        if cycle.resync is None:
            continue
        resync = cycle.resync
        known = {"synced": True, "not synced": False}
        made.put("freezelab_clock_in_time", known.get(resync.outcome), *labels, resync.mechanism)
        if resync.time_ns is not None:
            seen = Measure(resync.time_ns, resync.time_low_ns or 0, resync.time_ns)
            made.put_interval("freezelab_clock_resync", seen, *labels, resync.mechanism)


def _events(made: MetricSamples, run: Run) -> None:
    playbook = run.playbook.name
    for event in run.events:
        labels = (playbook, event.cell, event.group)
        made.count("freezelab_run_scheduled_events", 1, playbook, event.cell, event.state)
        made.put_ns("freezelab_event_notice", event.given_ns, *labels)
        made.put_interval("freezelab_event_freeze_after_not_before", event.after_not_before, *labels)
        made.count("freezelab_event_refused_requests", event.refused, *labels)
    for rollout in run.rollouts[-1:]:
        for wave in rollout.waves:
            made.count("freezelab_rollout_waves", 1, playbook, wave.state)


def _timestamp(text: str) -> float | None:
    """Seconds since the epoch of a time in ISO 8601; None for another text."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
