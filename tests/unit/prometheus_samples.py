"""Samples of Prometheus' classic text format, as its own reader reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families as read_classic

Key = tuple[str, tuple[tuple[str, str], ...]]


def samples(text: str) -> dict[Key, float]:
    """Every sample, by its name and labels, of the classic format."""
    found = [
        (s.name, tuple(sorted(s.labels.items())), s.value) for f in read_classic(text) for s in f.samples
    ]
    made = {(name, labels): value for name, labels, value in found}
    assert len(made) == len(found), "a series is there twice"
    return made
