"""Cells that run side by side: cells that differ only in what corrects the clocks run at the same time, each
on its own guests, its lane."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from lab.core.plan import Cell, Plan

MOST = 8


def _together(cell: Cell) -> object:
    """The key that is equal for two cells that run together. Names of guests do not count: they depend on the
    lane."""
    guests = tuple(replace(guest, name="") for guest in cell.guests)
    return guests, cell.cycle, cell.expectations, cell.repeat, cell.control


def laned(plan: Plan) -> Plan:
    """The plan with every cell's guests renamed for the cell's lane: web becomes web-a, web-b."""
    if plan.side_by_side < 2:
        return plan
    numbers: Counter[object] = Counter()

    def in_lane(cell: Cell) -> Cell:
        key = _together(cell)
        lane = chr(ord("a") + numbers[key] % plan.side_by_side)
        numbers[key] += 1
        return replace(
            cell, guests=tuple(replace(guest, name=f"{guest.name}-{lane}") for guest in cell.guests)
        )

    cells = tuple(in_lane(cell) for cell in plan.cells)
    return replace(plan, cells=cells, guests=cells[0].guests)


def part_of(plan: Plan, ids: Collection[str]) -> Plan:
    """The plan with only these of its cells, in its order."""
    cells = tuple(cell for cell in plan.cells if cell.id in ids)
    return replace(plan, cells=cells, guests=cells[0].guests)


def shard(plan: Plan, number: int, of: int) -> Plan:
    """The part of a matrix that is shard `number`, from 1, of `of`: batches that stand together in the plan,
    so that they can share guests, and in each shard as many as in the others, or one fewer. ValueError when
    there are fewer batches than shards."""
    together = batches(plan)
    if not plan.cells or of > len(together):
        raise ValueError(f"more shards than there are cells to run one after another: {len(together)}")
    edges = [len(together) * edge // of for edge in (number - 1, number)]
    return part_of(plan, {cell.id for batch in together[slice(*edges)] for cell in batch})


def batches(plan: Plan) -> list[list[Cell]]:
    """The cells that run together, one batch after another, ordered by the first cell of each. Cells of one
    lane have the same guests and never run together; a part of a plan may have several of them and none of
    another lane."""
    groups: dict[object, list[list[Cell]]] = {}
    found = []
    for cell in plan.parts:
        group = groups.setdefault(_together(cell), [])
        batch = next((one for one in group if _has_room(one, cell, plan.side_by_side)), None)
        if batch is None:
            batch = []
            group.append(batch)
            found.append(batch)
        batch.append(cell)
    return found


def _has_room(batch: Sequence[Cell], cell: Cell, most: int) -> bool:
    taken = {guest.name for one in batch for guest in one.guests}
    return len(batch) < most and taken.isdisjoint(guest.name for guest in cell.guests)
