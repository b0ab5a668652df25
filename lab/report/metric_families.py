"""Metric families for Prometheus: what each is called and means, and their samples, made safe to expose.

Names follow Prometheus' conventions: base units (seconds, ratio) at the end of a name, `_total` for counters,
`_info` for facts whose value is 1. An interval is three metrics: NAME_UNIT, NAME_lower_bound_UNIT and
NAME_upper_bound_UNIT.

Values of labels are cleaned of control characters and shortened, and two series of the same labels cannot
occur: a scraper would drop everything else with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)

from lab.core.clock import Interval
from lab.core.units import NS_PER_S
from lab.record.model import Measure
from lab.report.text import clean, shortened

LONGEST_LABEL = 128
"""Characters of a label's value."""

BOUNDS = ("lower_bound", "upper_bound")


@dataclass(frozen=True)
class MetricKind:
    """A metric. name: without unit, and without `_total` or `_info`. kind: gauge, counter, info, or interval:
    a gauge with two for its bounds. labels: their names. text: its help."""

    name: str
    kind: str
    text: str
    labels: tuple[str, ...] = ()
    unit: str = ""

    @property
    def exposed(self) -> tuple[str, ...]:
        """The names of its series."""
        unit = f"_{self.unit}" if self.unit else ""
        if self.kind == "interval":
            return (f"{self.name}{unit}", *(f"{self.name}_{bound}{unit}" for bound in BOUNDS))
        return (f"{self.name}{unit}{ {'counter': '_total', 'info': '_info'}.get(self.kind, '') }",)


class MetricSamples:
    """Samples of these kinds; a collector for prometheus_client."""

    def __init__(self, kinds: Sequence[MetricKind]) -> None:
        self._kinds = {kind.name: kind for kind in kinds}
        self._values: dict[str, dict[tuple[str, ...], tuple[float, ...]]] = {name: {} for name in self._kinds}

    def put(self, name: str, value: float | bool | None, *labels: str) -> None:
        """Set a sample; None: there is none. KeyError: no such metric."""
        if value is not None:
            self._put(name, (float(value),), labels)

    def put_ns(self, name: str, value_ns: float | None, *labels: str) -> None:
        """Set a sample in seconds."""
        self.put(name, None if value_ns is None else value_ns / NS_PER_S, *labels)

    def put_interval(self, name: str, given: Measure | Interval | None, *labels: str) -> None:
        """Set a sample in seconds with its bounds."""
        if given is None:
            return
        measure = Measure.of(given) if isinstance(given, Interval) else given
        each = (measure.value_ns, measure.low_ns, measure.high_ns)
        self._put(name, tuple(value / NS_PER_S for value in each), labels)

    def put_bounds(
        self, name: str, given: tuple[float, float, float], *labels: str, scale: float = 1.0
    ) -> None:
        """Set a sample with its bounds. given: value, low, high; times scale they are in the metric's
        unit."""
        self._put(name, tuple(value * scale for value in given), labels)

    def count(self, name: str, by: float, *labels: str) -> None:
        """Add to a counter, or to a gauge that counts."""
        known = self._values[name].get(self._key(labels), (0.0,))
        self._put(name, (known[0] + by,), labels)

    def put_state(self, name: str, states: Sequence[str], now: str, *labels: str) -> None:
        """Set one sample for each state: 1 for that of now, 0 for the others."""
        for state in states:
            self.put(name, state == now, *labels, state)

    def collect(self) -> Iterator[Metric]:
        """Every family that has samples."""
        for name, kind in self._kinds.items():
            values = self._values[name]
            if not values:
                continue
            if kind.kind != "interval":
                yield self._family(kind, name, kind.text, {key: each[0] for key, each in values.items()})
                continue
            for place, (part, text) in enumerate(
                [
                    ("", kind.text),
                    *((f"_{bound}", f"{kind.text} ({bound.replace('_', ' ')})") for bound in BOUNDS),
                ]
            ):
                yield self._family(
                    kind, f"{name}{part}", text, {key: each[place] for key, each in values.items()}
                )

    def describe(self) -> Iterator[Metric]:
        """Every family that there may be, without samples."""
        for name, kind in self._kinds.items():
            parts = ("", *(f"_{bound}" for bound in BOUNDS)) if kind.kind == "interval" else ("",)
            for part in parts:
                yield self._family(kind, f"{name}{part}", kind.text, {})

    def _family(self, kind: MetricKind, name: str, text: str, values: dict[tuple[str, ...], float]) -> Metric:
        if kind.kind == "info":
            info = InfoMetricFamily(name, text)
            for key in values:
                info.add_metric([], dict(zip(kind.labels, key, strict=True)))
            return info
        family = CounterMetricFamily if kind.kind == "counter" else GaugeMetricFamily
        made = family(name, text, labels=kind.labels, unit=kind.unit)
        for key, value in values.items():
            made.add_metric(key, value)
        return made

    def _put(self, name: str, values: tuple[float, ...], labels: Sequence[str]) -> None:
        if len(labels) != len(self._kinds[name].labels):
            raise ValueError(f"{name} has the labels {self._kinds[name].labels}, given: {labels}")
        self._values[name][self._key(labels)] = values

    @staticmethod
    def _key(labels: Sequence[str]) -> tuple[str, ...]:
        return tuple(shortened(clean(label), LONGEST_LABEL) for label in labels)
