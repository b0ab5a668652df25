"""What a run measured, as properties of its JUnit test suite: names are paths, values are those of run.json.

    pause.WHOSE.value_ns, .low_ns, .high_ns        WHOSE is CELL.GUEST.CYCLE, or GUEST.CYCLE
    offset.WHOSE.before.value_ns, …                before, at_resume, final
    event.ID.state, .notice_ns, …                  a Scheduled Event
    cell.CELL.outcome, .events.count, …            a cell of the matrix
    wave.NUMBER.outcome, .events.count, …          a wave of a rollout; ROLLOUT.NUMBER with several rollouts

What was not measured has no property.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from lab.record.model import CellRecord, CycleRecord, EventRecord, GuestRecord, Run, WaveRecord

_Properties = Iterator[tuple[str, str]]

_OF_EVENT = (
    "type", "state", "outcome", "cycle", "cell", "group", "resources", "notice_ns", "minimum_ns", "given_ns",
    "duration_s", "seen", "approved", "released", "started", "frozen", "resumed", "in_time", "cancelled",
    "gone", "after_not_before", "kept", "longest", "refused",
)  # fmt: skip


def whose(guest: GuestRecord, cycle: CycleRecord) -> str:
    """The path of a guest's cycle: CELL.GUEST.CYCLE."""
    return ".".join(filter(None, [guest.cell, guest.name, str(cycle.index)]))


def measured_properties(run: Run) -> _Properties:
    """All of them, as name and value."""
    for guest in run.guests:
        for cycle in guest.cycles:
            yield from _values(f"pause.{whose(guest, cycle)}", cycle.pause)
            yield from _values(f"offset.{whose(guest, cycle)}", cycle.offset)
    for event in run.events:
        yield from _members(f"event.{event.id}", event, _OF_EVENT)
    for cell in run.cells:
        yield from _members(
            f"cell.{cell.id}", cell, ("outcome", "cycles", "wanted", "why", "pause", "events")
        )
    several = len(run.rollouts) > 1
    for number, rollout in enumerate(run.rollouts, 1):
        for wave in rollout.waves:
            name = f"wave.{number}.{wave.number}" if several else f"wave.{wave.number}"
            members = ("state", "outcome", "guests", "notice_ns", "pause", "in_time_ns", "why", "events")
            yield from _members(name, wave, members)


def _members(name: str, of: EventRecord | CellRecord | WaveRecord, members: tuple[str, ...]) -> _Properties:
    for member in members:
        yield from _values(f"{name}.{member}", getattr(of, member))


def _values(name: str, value: object) -> _Properties:
    """The value's own property, or those of its members."""
    if value is None or value == "":
        return
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _values(f"{name}.{field.name}", getattr(value, field.name))
    elif isinstance(value, tuple):
        yield name, ", ".join(map(str, value))
    else:
        yield name, str(value).lower() if isinstance(value, bool) else str(value)
