"""Two builds measured by turns, and their ratio: medians, 95th percentiles, and limits that assume no
distribution (lab.core.stats)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab.core.stats import quantile


def table(unit: str, measured: Mapping[str, Sequence[float]]) -> str:
    """A line for each build; and the median of each later one's ratio to the first, pair by pair, with its
    95 % limits, which six pairs have at least."""
    (first, before), *rest = measured.items()
    lines = [f"{unit:34} median       p95   largest  times"]
    for name, values in measured.items():
        median, p95 = quantile(values, 0.5).value, quantile(values, 0.95).value
        lines.append(f"{name[-34:]:34} {median:6.2f} {p95:9.2f} {max(values):9.2f} {len(values):6}")
    for name, values in rest:
        ratio = quantile([after / each for each, after in zip(before, values, strict=False)], 0.5)
        limits = [format(limit, ".3f") if limit is not None else "?" for limit in (ratio.low, ratio.high)]
        lines.append(f"ratio of {name} to {first}: {ratio.value:.3f} [{', '.join(limits)}]")
    return "\n".join(lines)
