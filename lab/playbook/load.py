"""From a playbook's file to a plan."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lab.core.fleet_placement import AXIS
from lab.core.parallel_cells import laned
from lab.core.plan import Cell, Plan
from lab.playbook import models
from lab.playbook.cells import axes_of, expand, given_twice, settled, with_search
from lab.playbook.explain import explain
from lab.playbook.fields import FOLDER
from lab.playbook.matrix import Matrix
from lab.playbook.mistakes import Mistake, as_error, printable
from lab.playbook.placement import placement
from lab.playbook.scalars import MOST_NAME, found
from lab.playbook.source import decode, read
from lab.playbook.tree import Map, compose

HERE = Path()


def load(path: Path) -> Plan:
    """The plan in the playbook at `path`. PlaybookError tells all mistakes, a line each."""
    return parse(read(path), str(path), path.parent)


def parse(data: bytes, file: str, folder: Path = HERE) -> Plan:
    """The plan in a playbook's bytes; `file` is what messages call it, `folder` where a handler's path
    begins. PlaybookError as load()."""
    file = printable(file)
    root, mistakes = compose(decode(data, file))
    if root is None:
        raise as_error(file, mistakes)
    if not isinstance(root, Map):
        what = f"keys and values are expected here, not {found(root)}"
        todo = "begin with a line like name: first-freeze"
        raise as_error(file, [*mistakes, Mistake(root.place, what, todo)])
    root = with_search(root)
    axes = axes_of(root)
    mistakes += [explain(error, root) for error in _errors(root, folder) if not settled(error, axes)]
    mistakes += given_twice(root, axes)
    if mistakes:
        raise as_error(file, mistakes)
    digest = hashlib.sha256(data).hexdigest()
    if not axes:
        document = models.Document.model_validate(root, context={FOLDER: folder})
        whole = _cell("", (), document)
        return replace(_plan(document, digest, whole), cells=_placed(document, whole))
    expansion = expand(root, folder)
    if expansion.mistakes:
        raise as_error(file, expansion.mistakes)
    cells = tuple(
        replace(_cell(one.id, one.values, one.document), may_be_refused=one.may_be_refused)
        for one in expansion.cells
    )
    plan = _plan(expansion.cells[0].document, digest, cells[0])
    lanes = Matrix.model_validate(root["matrix"]).side_by_side
    if lanes > 1:
        mistakes = _no_lanes(plan, root)
    if mistakes:
        raise as_error(file, mistakes)
    return laned(replace(plan, cells=cells, left_out=tuple(expansion.left_out), side_by_side=lanes))


def _placed(document: models.Document, whole: Cell) -> tuple[Cell, ...]:
    """A cell for each host that guests are on; () without hosts."""
    specs = {spec.name: spec for spec in whole.guests}
    where = placement(document.hosts, document.entries()) if document.hosts else {}
    return tuple(
        replace(whole, id=host, values=((AXIS, host),), guests=tuple(specs[name] for name in names))
        for host, names in where.items()
    )


def _no_lanes(plan: Plan, root: Map) -> list[Mistake]:
    """Why the plan's guests cannot be there several times."""
    matrix = root["matrix"]
    place = matrix.keys_at["side_by_side"] if isinstance(matrix, Map) else root.place
    for guest in plan.guests:
        if guest.bridge or guest.lab:
            what = f"side_by_side: {guest.name} has a fixed address"
            return [Mistake(place, what, "delete side_by_side, or the guest's network")]
        if guest.compute_name:
            what = f"side_by_side: {guest.name} has a fixed name in events, {guest.compute_name}"
            todo = "delete side_by_side, or compute_name and scale_sets"
            return [Mistake(place, f"{what}, so several copies of it cannot run at once", todo)]
        if len(guest.name) > MOST_NAME - 2:
            what = f"side_by_side adds two characters to {guest.name}, which makes it too long"
            return [Mistake(place, what, "shorten its name")]
    return []


def _errors(root: Map, folder: Path) -> list[ErrorDetails]:
    try:
        models.Document.model_validate(root, context={FOLDER: folder})
    except ValidationError as error:
        return error.errors(include_url=False)
    return []


def _cell(name: str, values: tuple[tuple[str, str], ...], document: models.Document) -> Cell:
    return Cell(
        id=name,
        values=values,
        guests=document.specs(),
        resync=document.resync,
        cycle=replace(document.cycle.to_plan(), announce=document.announcement()),
        expectations=document.expect.to_plan(),
        repeat=document.repeat,
        control=document.control,
        workloads=document.workloads(),
        tolerance=document.tolerance.to_plan() if document.tolerance else None,
    )


def _plan(document: models.Document, digest: str, first: Cell) -> Plan:
    return Plan(
        name=document.name,
        about=document.about,
        digest=digest,
        guests=first.guests,
        resync=first.resync,
        cycle=first.cycle,
        expectations=first.expectations,
        repeat=first.repeat,
        control=first.control,
        ntp_offset_ns=document.time_server.off_by,
        ntp_fault=document.time_server.to_plan(),
        rollout=document.rolled(),
        golden=document.golden,
        network=document.lab_network.to_plan() if document.lab_network else None,
        workloads=first.workloads,
        tolerance=first.tolerance,
    )
