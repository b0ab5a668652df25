"""From a playbook's file to a plan."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import ValidationError

from lab.core.plan import (
    CommandPatch,
    CycleSpec,
    Expectations,
    GuestSpec,
    HoldPatch,
    Patch,
    Plan,
)
from lab.playbook import models
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
    try:
        document = models.Document.model_validate(root)
    except ValidationError as error:
        mistakes += [explain(one, root) for one in error.errors(include_url=False)]
        raise as_error(file, mistakes) from None
    if mistakes:
        raise as_error(file, mistakes)
    return _plan(document, hashlib.sha256(data).hexdigest())


def _plan(document: models.Document, digest: str) -> Plan:
    return Plan(
        name=document.name,
        about=document.about,
        digest=digest,
        guests=tuple(spec for guest in document.guests for spec in _guests(guest)),
        resync=document.resync,
        cycle=_cycle(document.cycle),
        expectations=_expectations(document.expect),
        repeat=document.repeat,
        control=document.control,
    )


def _guests(guest: models.Guest) -> list[GuestSpec]:
    return [
        GuestSpec(name=name, image=guest.image, vcpus=guest.vcpus, memory_bytes=guest.memory)
        for name in guest.names()
    ]


def _patch(patch: models.Patch) -> Patch:
    if patch.hold is not None:
        return HoldPatch(patch.hold)
    return CommandPatch(patch.command or (), patch.deadline or 0)  # the model has seen to both


def _cycle(cycle: models.Cycle) -> CycleSpec:
    return CycleSpec(
        method=cycle.method,
        patch=_patch(cycle.patch),
        settle_ns=cycle.settle,
        before_ns=cycle.before,
        budget_ns=cycle.budget,
        watch_ns=cycle.watch,
    )


def _expectations(expect: models.Expect) -> Expectations:
    in_time = expect.in_time
    return Expectations(
        regime=expect.regime,
        pause_at_least_ns=expect.pause.at_least if expect.pause else None,
        pause_at_most_ns=expect.pause.at_most if expect.pause else None,
        in_time_within_ns=in_time.within if in_time else None,
        tolerance_ns=in_time.tolerance if in_time else Expectations.tolerance_ns,
        hold_ns=in_time.hold if in_time else Expectations.hold_ns,
        final_offset_ns=expect.final_offset.within if expect.final_offset else None,
        drift_ppm=expect.drift.within if expect.drift else None,
        clean_kernel_log=expect.kernel_log is models.KernelLog.CLEAN,
    )
