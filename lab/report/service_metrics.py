"""The metadata service, running alone (`freezelab events serve`), as Prometheus' metrics. The names of
guests and of services are their labels; docs/metrics.md has the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lab.core.scheduled.model import EventType, State
from lab.report.metric_families import MetricKind, MetricSamples

_GUEST = ("service", "guest")

SERVICE_METRICS = (
    MetricKind("freezelab_events_service", "info", "A metadata service that runs alone.", ("service",)),
    MetricKind(
        "freezelab_events_service_time_factor",
        "gauge",
        "Seconds of the service's time in a real second.",
        ("service",),
        "ratio",
    ),
    MetricKind(
        "freezelab_scheduled_events",
        "gauge",
        "Announced events by their present state.",
        ("service", "type", "state"),
    ),
    MetricKind("freezelab_metadata_requests", "counter", "Requests of the guest, whatever for.", _GUEST),
    MetricKind(
        "freezelab_metadata_refused_requests",
        "counter",
        "Requests that were answered with an error.",
        (*_GUEST, "code"),
    ),
    MetricKind("freezelab_scheduled_events_polls", "counter", "Requests for the document of events.", _GUEST),
    MetricKind("freezelab_scheduled_events_documents", "counter", "Documents of events served.", _GUEST),
    MetricKind(
        "freezelab_scheduled_events_acknowledgements",
        "counter",
        "Acknowledgements that were accepted.",
        _GUEST,
    ),
    MetricKind(
        "freezelab_scheduled_events_enabled",
        "gauge",
        "1 when the guest has asked, since events were enabled for its set.",
        _GUEST,
    ),
    MetricKind(
        "freezelab_scheduled_events_silence",
        "gauge",
        "Time since a guest of the set has asked.",
        _GUEST,
        "seconds",
    ),
)


def service_samples(
    services: Iterable[tuple[Mapping[str, Any], Iterable[Mapping[str, Any]]]],
) -> MetricSamples:
    """The samples of all services: each as its control socket describes it, and its events
    (events.control)."""
    made = MetricSamples(SERVICE_METRICS)
    for service, events in services:
        name = str(service["name"])
        made.put("freezelab_events_service", 1, name)
        made.put("freezelab_events_service_time_factor", service["time_factor"], name)
        for kind in EventType:
            for state in State:
                made.put("freezelab_scheduled_events", 0, name, kind.value, state.value)
        for one in events:
            made.count("freezelab_scheduled_events", 1, name, str(one["type"]), str(one["state"]))
        for guest in service["guests"]:
            labels = (name, str(guest["guest"]))
            made.put("freezelab_scheduled_events_enabled", bool(guest["asks"]), *labels)
            made.put("freezelab_scheduled_events_silence", guest["silent_s"], *labels)
            counts = guest["counts"]
            made.put("freezelab_metadata_requests", counts["requests"], *labels)
            for what in ("polls", "documents", "acknowledgements"):
                made.put(f"freezelab_scheduled_events_{what}", counts[what], *labels)
            for code, count in counts["refused"].items():
                made.put("freezelab_metadata_refused_requests", count, *labels, str(code))
    return made
