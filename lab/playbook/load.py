"""From a playbook's file to a plan."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lab.core.plan import Cell, Plan
from lab.playbook import models
from lab.playbook.cells import axes_of, expand, given_twice, settled
from lab.playbook.explain import explain
from lab.playbook.mistakes import Mistake, as_error, printable
from lab.playbook.scalars import found
from lab.playbook.source import decode, read
from lab.playbook.tree import Map, compose


def load(path: Path) -> Plan:
    """The plan in the playbook at `path`. PlaybookError tells all mistakes, a line each."""
    return parse(read(path), str(path))


def parse(data: bytes, file: str) -> Plan:
    """The plan in a playbook's bytes; `file` is what messages call it. PlaybookError as load()."""
    file = printable(file)
    root, mistakes = compose(decode(data, file))
    if root is None:
        raise as_error(file, mistakes)
    if not isinstance(root, Map):
        what = f"keys and values are expected here, not {found(root)}"
        todo = "begin with a line like name: first-freeze"
        raise as_error(file, [*mistakes, Mistake(root.place, what, todo)])
    axes = axes_of(root)
    mistakes += [explain(error, root) for error in _errors(root) if not settled(error, axes)]
    mistakes += given_twice(root, axes)
    if mistakes:
        raise as_error(file, mistakes)
    digest = hashlib.sha256(data).hexdigest()
    if not axes:
        document = models.Document.model_validate(root)
        return _plan(document, digest, _cell("", (), document))
    expansion = expand(root)
    if expansion.mistakes:
        raise as_error(file, expansion.mistakes)
    cells = tuple(_cell(one.id, one.values, one.document) for one in expansion.cells)
    plan = _plan(expansion.cells[0].document, digest, cells[0])
    return replace(plan, cells=cells, left_out=tuple(expansion.left_out))


def _errors(root: Map) -> list[ErrorDetails]:
    try:
        models.Document.model_validate(root)
    except ValidationError as error:
        return error.errors(include_url=False)
    return []


def _cell(name: str, values: tuple[tuple[str, str], ...], document: models.Document) -> Cell:
    return Cell(
        id=name,
        values=values,
        guests=tuple(spec for guest in document.guests for spec in guest.meant()),
        resync=document.resync,
        cycle=document.cycle.meant(),
        expectations=document.expect.meant(),
        repeat=document.repeat,
        control=document.control,
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
    )
