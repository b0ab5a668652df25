"""Output of `freezelab drift`: the live plot, and the result.

The plot goes to stderr and is erased at the end; without a terminal there is a line from time to time
instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from lab.core.clock import Interval
from lab.core.drift import Drift
from lab.core.drift_study import Course, Discipline, DriftPoint, Look
from lab.core.offsets import Sample
from lab.core.quantities import (
    DOWN,
    UP,
    format_fine,
    format_interval,
    format_length,
    format_ms,
    format_number,
    format_seconds,
)
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.report.live import stderr_console
from lab.report.numbers import drift
from lab.report.page import Page
from lab.report.text import ascii_only, bare, clean, counted

LABEL = 14
ROWS = 6
AXIS = 9
WIDE = 3
"""A burst is in the plot as a whole when its bounds are at most this many times as wide as the median."""
PLAIN_EVERY_NS = 10 * NS_PER_S
STEPS_SHOWN = 5
EARLY = 0.8
"""A study over less than this share of its time was ended early: only the last burst may be missing
otherwise."""


class Watching(Protocol):
    """A display that gets every burst."""

    def __call__(self, since_ns: int, there: DriftPoint, here: DriftPoint | None) -> None: ...


@contextmanager
def watching(guest: str, length_ns: int, *, quiet: bool) -> Iterator[Watching]:
    """The display: a live plot on stderr, lines where that is not a terminal, nothing with `quiet`."""
    console = stderr_console()
    if quiet:
        yield lambda _since, _there, _here: None
        return
    utf = console.encoding.lower().startswith("utf")
    if not (console.is_terminal and not console.is_dumb_terminal and utf):
        yield _PointLines(console, clean(guest), length_ns)
        return
    plot = Plot(clean(guest), length_ns)
    with Live(
        console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as live:

        def add(since_ns: int, there: DriftPoint, here: DriftPoint | None) -> None:
            plot.add(since_ns, there, here)
            live.update(plot.drawn(console.width), refresh=True)

        yield add


class _PointLines:
    def __init__(self, console: Console, guest: str, length_ns: int) -> None:
        self._console, self._guest, self._length_ns = console, guest, length_ns
        self._next = 0
        self._first: DriftPoint | None = None

    def __call__(self, since_ns: int, there: DriftPoint, here: DriftPoint | None) -> None:  # noqa: ARG002
        self._first = self._first or there
        if since_ns < self._next:
            return
        self._next = since_ns + PLAIN_EVERY_NS
        moved = [_moved(a.offset.mid_ns, b.offset) for a, b in _both(self._first, there)]
        text = (
            f"{since_ns / NS_PER_S:6.1f} s of {format_length(self._length_ns)}  {self._guest}: "
            f"RAW {moved[0]}, REALTIME {moved[1]} since the beginning"
        )
        utf = self._console.encoding.lower().startswith("utf")
        self._console.print(Text(bare(text) if utf else ascii_only(bare(text))), soft_wrap=True)


def _both(first: DriftPoint, then: DriftPoint) -> list[tuple[Sample, Sample]]:
    return [(first.raw, then.raw), (first.real, then.real)]


def _moved(zero_ns: int, now: Interval) -> str:
    """The change of an offset since the first burst, in words."""
    return format_interval(now.shifted(-zero_ns), signed=True)


class Plot:
    """The plot of both offsets since the first burst, with their bounds, over the whole length; the rest is
    empty."""

    def __init__(self, guest: str, length_ns: int) -> None:
        self._guest, self._length_ns = guest, max(1, length_ns)
        self._points: list[tuple[int, DriftPoint]] = []
        self._here: DriftPoint | None = None

    def add(self, since_ns: int, there: DriftPoint, here: DriftPoint | None) -> None:
        self._points.append((since_ns, there))
        self._here = here or self._here

    def drawn(self, width: int) -> Group:
        """The plot in `width` columns, at least 40."""
        width = max(40, width - 1)
        since = self._points[-1][0]
        floor = (
            ""
            if self._here is None
            else f" · this host's own ± {format_fine(self._here.raw.offset.half_width_ns, UP)}"
        )
        passed = f"{format_seconds(since, 0)} of {format_length(self._length_ns)}"
        head = f"{self._guest}  {passed}{floor} · Ctrl-C ends it"
        lines = [Text(head[:width], style="dim", no_wrap=True, overflow="crop")]
        raw = [(at, p.raw) for at, p in self._points]
        real = [(at, p.real) for at, p in self._points]
        for name, course in (("MONOTONIC_RAW", raw), ("REALTIME", real)):
            lines += self._chart(name, course, width)
        return Group(*lines)

    def _chart(self, name: str, course: Sequence[tuple[int, Sample]], width: int) -> list[Text]:
        columns = width - AXIS - 1
        zero = course[0][1].offset.mid_ns
        best: dict[int, tuple[int, int]] = {}
        for at, sample in course:
            column = min(columns - 1, at * columns // self._length_ns)
            low, high = sample.offset.low_ns - zero, sample.offset.high_ns - zero
            if column not in best or high - low < best[column][1] - best[column][0]:
                best[column] = (low, high)
        # A burst in a busy moment is wide, and runs out of the picture.
        usual = sorted(high - low for low, high in best.values())[len(best) // 2]
        good = [span for span in best.values() if span[1] - span[0] <= WIDE * usual]
        bottom, top = min(low for low, _ in good), max(high for _, high in good)
        height = max(1, top - bottom)

        def row(value: float) -> int:
            return min(ROWS - 1, max(0, int((top - value) * ROWS / height)))

        grid = [[" "] * columns for _ in range(ROWS)]
        for column, (low, high) in best.items():
            for line in range(row(high), row(low) + 1):
                grid[line][column] = "│"
            grid[row((low + high) / 2)][column] = "•"
        last = course[-1][1].offset
        lines = [Text(f"{name}  {_moved(zero, last)}", style="bold", no_wrap=True)]
        for number, cells in enumerate(grid):
            scale = {0: top, ROWS - 1: bottom}.get(number)
            axis = "" if scale is None else format_fine(scale, sign="+")
            lines.append(Text(f"{axis:>{AXIS}}▕{''.join(cells).rstrip()}", no_wrap=True, overflow="crop"))
        return lines


def render_look(guest: str, look: Look, asked_ns: int, console: Console) -> None:
    """Print the result of a study that was to last for asked_ns."""
    page = Page(console)
    early = look.length_ns < EARLY * asked_ns
    page.parts(
        [
            f"guest {clean(guest)}",
            f"measured for {format_length(look.length_ns)}",
            f"ended early, of {format_length(asked_ns)}" if early else "",
            counted(look.points, "burst"),
        ]
    )
    page.blank()
    for label, course in (("MONOTONIC_RAW", look.raw), ("REALTIME", look.real)):
        page.labelled(label, "; ".join(_course_text(course)), width=LABEL)
    page.labelled(
        "host's NTP", f"its REALTIME compared with its MONOTONIC_RAW: {_rate(look.host)}", width=LABEL
    )
    if look.noise is not None:
        points = format_fine(look.noise.width_ns, UP)
        noise = f"the same measurement on this host, where 0 is true: {_rate(look.noise)}; points ± {points}"
        page.labelled("noise floor", noise, width=LABEL)
    page.labelled("resolution", _resolution(look.raw), width=LABEL)
    page.labelled("steps", _steps(look), style="yellow" if look.steps or look.restarts else "", width=LABEL)
    page.labelled("kept by", _disciplined_by(look), width=LABEL)


def _rate(course: Course) -> str:
    look = course.drift
    if look is None:
        return "too short"
    text = drift(Drift(look.ppm, look.low, look.high, look.window_ns))
    return text if course.straight else f"{text} in total"


def _course_text(course: Course) -> Iterator[str]:
    if course.drift is None:
        yield "too short"
        return
    yield f"drift {_rate(course)}"
    if course.segments > 1:
        yield f"in {course.segments} segments between steps"
    if course.straight:
        yield "one straight line fits"
    else:
        yield f"no straight line fits: it wanders by {format_ms(course.wander_ns, DOWN)} ms at least"
    yield f"points ± {format_fine(course.width_ns, UP)}"


def _resolution(course: Course) -> str:
    """How well the drift is known, in words."""
    if course.drift is None or course.window_ns is None:
        return "too short for a drift"
    window = format_length(course.window_ns)
    if course.resolves:
        return f"MONOTONIC_RAW's drift is known to ± 1 ppm; {window} are enough for that"
    return f"not known to ± 1 ppm: that needs {window} with such readings"


def _steps(look: Look) -> str:
    lost = f"its probe was restarted {counted(look.restarts, 'time')}: earlier steps are unknown"
    if not look.steps:
        return lost if look.restarts else "REALTIME was not stepped"
    shown = ", ".join(
        f"{format_number(step.by_ns, NS_PER_MS, 3, sign='+')} ms" for step in look.steps[:STEPS_SHOWN]
    )
    more = f" and {len(look.steps) - STEPS_SHOWN} more" if len(look.steps) > STEPS_SHOWN else ""
    text = f"REALTIME was stepped {counted(len(look.steps), 'time')}: {shown}{more}"
    return f"{text}; {lost}" if look.restarts else text


def _disciplined_by(look: Look) -> str:
    now = look.after or look.before
    if now is None:
        return "unknown: the guest's adjtimex does not answer"
    if not now.disciplined and not (look.before and look.before.disciplined):
        return "nothing: adjtimex is unsynchronised without a correction, and no time service runs"
    return _discipline(look.before, now)


def _discipline(before: Discipline | None, now: Discipline) -> str:
    who = ", ".join(clean(name) for name in now.programs) or "no known time service"
    synced = "unsynchronised" if now.unsynced else "synchronised"
    text = f"{who}; adjtimex: {synced}, frequency {now.freq_ppm:+.2f} ppm, tick {now.tick_us} µs"
    if before is not None and before.freq_ppm != now.freq_ppm:
        text += f"; at the beginning the frequency was {before.freq_ppm:+.2f} ppm"
    return text
