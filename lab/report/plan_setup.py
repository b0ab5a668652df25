"""What a plan puts into its guests: packages, files, commands, services; of secrets names and sources."""

from __future__ import annotations

from collections.abc import Iterator

from lab.core.plan import Plan
from lab.core.setup import NO_SETUP, SetupSpec
from lab.core.units import format_duration
from lab.report.page import Page
from lab.report.plan_fleet import listed

MOST_COMMAND = 80


def setups(page: Page, plan: Plan) -> None:
    """Print each set-up once, with the guests that have it."""
    groups: dict[SetupSpec, dict[str, None]] = {}
    for guest in (guest for cell in plan.parts for guest in cell.guests):
        groups.setdefault(guest.setup, {})[guest.name] = None
    groups.pop(NO_SETUP, None)
    for setup, names in groups.items():
        page.parts([f"set-up of {listed(list(names), 3)}:"], "bold")
        for label, text in _lines(setup):
            page.labelled(f"  {label}", text, label_style="", width=16)
        page.blank()


def _lines(setup: SetupSpec) -> Iterator[tuple[str, str]]:
    if setup.packages:
        yield "packages", f"{', '.join(setup.packages)} (in the image)"
    for secret in setup.secrets:
        yield "secret", f"{secret.name}: {secret.source}"
    for file in setup.files:
        extra = [f"mode {file.mode}"] if file.mode else []
        extra += [f"owner {file.owner}"] if file.owner else []
        yield "file", file.label + (f" ({', '.join(extra)})" if extra else "")
    for command in setup.run:
        label = command.label
        shown = label if len(label) <= MOST_COMMAND else f"{label[: MOST_COMMAND - 1]}…"
        yield "run", f"{shown} (≤ {format_duration(command.within_ns)})"
    for service in setup.services:
        yield "service", f"{service.label} (≤ {format_duration(service.within_ns)})"
