"""How far a run is, and what comes next, from its plan and its present phase."""

from __future__ import annotations

from rich.text import Text

from lab.core.plan import Plan
from lab.core.quantities import format_length
from lab.core.units import format_duration
from lab.report.live_rollout import NAME, barred
from lab.report.run_progress import RunProgress
from lab.report.text import clean, shortened

STEPS = {
    "settle": 1, "measure": 2, "prepare": 3, "announce": 3, "freeze": 4, "shut down": 4, "patch": 4,
    "watch": 5, "gates": 5, "pause between domains": 5, "remove guests": 6,
}  # fmt: skip
"""How far a cycle is in each phase, in sixths: by that progress is told where no earlier run tells it."""

_BEFORE = ("image", "accelerator", "boot", "make the golden guest", "start from the golden guest", "connect")


def overview(progress: RunProgress, cycle: tuple[int, int] | None, phase: str, now: int, width: int) -> Text:
    """ "first-freeze   ████████░░░░░░░░  about 42 s left (38–55 s, from 5 runs)"."""
    plan = progress.plan
    name = shortened(clean(plan.name) if plan is not None else "", NAME)
    share, text = progress.share(now), progress.left(now)
    if share is None or not text:
        share = _by_steps(cycle, phase)
        passed = now - (progress.begun_raw_ns or now)
        text = f"{format_length(passed)} so far"
    if len(text) > width - NAME - 2 - 2 - 4:
        text = text.split(" (")[0]
    return barred(name, share, "green", text, width)


def _by_steps(cycle: tuple[int, int] | None, phase: str) -> float:
    """How far the run is by its cycles, and by the phase of the present one, from 0 to 1."""
    if cycle is None:
        return 0.0
    number, of = cycle
    step = STEPS.get(phase, 0) / max(STEPS.values())
    return min(1.0, max(0.0, (number - 1 + step) / max(1, of)))


def next_line(plan: Plan, phase: str, cycle: tuple[int, int] | None, width: int) -> Text:
    """ "next           freeze: suspend, hold 5 s"."""
    line = Text(no_wrap=True, overflow="crop")
    line.append("next".ljust(NAME) + "  ", "dim")
    line.append(shortened(next_step(plan, phase, cycle), width - NAME - 2), "dim")
    return line


def next_step(plan: Plan, phase: str, cycle: tuple[int, int] | None) -> str:
    """What comes after a phase, in words. cycle: its number and that of all, None before the first one."""
    spec = plan.cycle
    freeze = f"freeze: {spec.method}, {spec.patch.label}" if spec.method.freezes else f"{spec.method}"
    if plan.cells:
        freeze = "freeze"  # the cells differ
    control = cycle is not None and plan.control and cycle[0] <= plan.control and not plan.cells
    if control:
        freeze = f"no freeze: it is a control cycle of {format_duration(spec.watch_ns)}"
    match phase:
        case "settle":
            return f"measure offset and drift for {format_duration(spec.before_ns)}"
        case "measure":
            return "announce the maintenance" if spec.announce is not None and not control else freeze
        case "announce" | "prepare":
            return freeze
        case "freeze" | "patch" | "shut down":
            return f"watch the clocks for {format_duration(spec.watch_ns)}"
        case "watch" | "gates" | "pause between domains":
            return _after_a_cycle(plan, phase, cycle)
        case "remove guests":
            return "the report"
        case _ if phase in _BEFORE:
            return "set the guests' clocks, then settle"
        case _:
            return "settle"


def _after_a_cycle(plan: Plan, phase: str, cycle: tuple[int, int] | None) -> str:
    if cycle is not None and cycle[0] < cycle[1]:
        if plan.rollout is not None and phase == "watch" and plan.rollout.gates:
            return "the gates"
        return f"cycle {cycle[0] + 1} of {cycle[1]}"
    if plan.tolerance is not None:
        return "the next try, or the end of the search"
    return "remove the guests, then the report"
