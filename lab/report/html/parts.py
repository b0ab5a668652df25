"""Where the pause goes: its parts as one bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lab.core.quantities import format_about
from lab.report.html.axis import Span
from lab.report.html.document import PictureIds, markup

KINDS = {
    "patch": "patch", "prove memory": "proof", "prove memory again": "proof", "between": "wait",
    "first heartbeat": "wait", "first packet": "wait", "suspend": "stop", "shut down": "stop",
    "fall asleep": "stop", "state out": "stop", "save": "stop",
}  # fmt: skip
"""The CSS class of each part; that of others is "start"."""
WORDS = {
    "stop": "stopping the guest", "patch": "patch", "proof": "proving its memory",
    "start": "starting it again", "wait": "waiting for its first signs",
}  # fmt: skip
LEAST_LABEL = 9.0
"""A part that is narrower has no label in the bar; percent."""


def kind_of(part: str) -> str:
    """The CSS class of a part of the pause."""
    return KINDS.get(part, "start")


@dataclass(frozen=True)
class BarPart:
    x: float
    width: float
    kind: str
    name: str
    text: str


@dataclass(frozen=True)
class PauseBar:
    """The bar of one cycle, or of one cell."""

    name: str
    text: str
    parts: Sequence[BarPart]


def pause_bar(name: str, parts: Sequence[tuple[str, float]], longest: float) -> PauseBar:
    """A bar of parts, as (name, nanoseconds). longest: the length of a full bar."""
    span, at, found = Span(0, max(1.0, longest)), 0.0, []
    for part, length in parts:
        x, width = span.place(at), span.place(at + length) - span.place(at)
        at += length
        found.append(BarPart(x, round(width, 3), kind_of(part), part, f"{part} {format_about(length)}"))
    return PauseBar(name, format_about(at), found)


def pause_bars(
    title: str, given: Sequence[tuple[str, Sequence[tuple[str, float]]]], ids: PictureIds
) -> Markup:
    """A bar for each (name, parts), all to the same scale."""
    longest = max((sum(length for _, length in parts) for _, parts in given), default=0)
    if longest <= 0:
        return Markup()
    bars = [pause_bar(name, parts, longest) for name, parts in given]
    kinds = {part.kind for bar in bars for part in bar.parts}
    return markup(
        "parts.svg.j2",
        id=ids.new(), title=title, bars=bars, least=LEAST_LABEL,
        legend=[(kind, text) for kind, text in WORDS.items() if kind in kinds],
        description="; ".join(f"{b.name} {b.text}: {', '.join(p.text for p in b.parts)}" for b in bars),
    )  # fmt: skip
