"""The `cycle` section: how guests are frozen, and what goes with what."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from lab.core.patch import conflict
from lab.core.plan import CycleSpec, FreezeMethod
from lab.playbook.fields import (
    Budget,
    Duration,
    DurationOrZero,
    Flag,
    Folder,
    Load,
    Method,
    default,
    needed,
    section,
    time,
)
from lab.playbook.migration_keys import MigrationKeys
from lab.playbook.mistakes import Clash
from lab.playbook.patch_section import PatchOrWord
from lab.playbook.scalars import alternatives

_OWN_KEYS = {
    key: [method for method in FreezeMethod if key in method.traits.own_keys]
    for key in dict.fromkeys(key for method in FreezeMethod for key in method.traits.own_keys)
}
"""Keys that go with some methods only, and with which. They are None when they are left out."""


class CycleSection(MigrationKeys):
    """One settle, measure, freeze, patch, resume and watch cycle."""

    # A matrix may bring the patch; what is needed then is said at the top of the schema.
    model_config = section("{patch: {hold: 5s}}", required=[])

    method: Method | None = default(
        None,
        "How guests are frozen. Default: the patch's first method. "
        + " ".join(f"{method}: {method.traits.about}." for method in FreezeMethod),
    )
    patch: PatchOrWord = needed("What is done to the host while the guests are frozen.")
    settle: DurationOrZero = time(CycleSpec.settle_ns, "Quiet time before the first reading.")
    before: Duration = time(CycleSpec.before_ns, "How long offset and drift are measured before the freeze.")
    budget: Budget = time(
        CycleSpec.budget_ns,
        "The longest freeze, at most 1 h. When it ends, guests are resumed, whatever "
        "the patch does, and the cycle fails. With tolerance: 30 s more than its longest pause.",
    )
    watch: Duration = time(CycleSpec.watch_ns, "How long guests are watched after the resume.")
    prove_memory: Flag = default(
        CycleSpec.prove_memory,
        "Take digests of the guest's memory, page by page, after the stop and before "
        "the resume. Only with methods that leave memory in place.",
    )
    save_to: Folder | None = default(
        None,
        "Absolute path of the folder for the files of save-restore and of snapshots. "
        "Default: the run's folder.",
    )
    effects: Flag = default(
        CycleSpec.effects,
        "Record the other effects of a pause in the guests: late timers, clocks that "
        "go backward between vCPUs, RTC and BOOTTIME. This uses some of their CPU time.",
    )
    load: Load = default(
        CycleSpec.load, "Share of every vCPU that busy programs in the guests use during the cycle.", "0%"
    )
    wake: Flag = default(
        CycleSpec.wake,
        "Wake guests that sleep when a cycle begins. Default: they are reported and not frozen.",
    )

    @property
    def way(self) -> FreezeMethod:
        """The method, or the patch's usual one."""
        return self.method or self.patch.to_plan().methods[0]

    @model_validator(mode="after")
    def _together(self) -> Self:
        patch, way = self.patch.to_plan(), self.way
        if why := conflict(patch, way):
            raise Clash(why, f"leave method out for {patch.methods[0]}", "method")
        if self.prove_memory and not (way.keeps_memory and way.freezes):
            good = [method for method in patch.methods if method.keeps_memory and method.freezes]
            what = f"with method {way} " + (
                "the guest runs on, so its memory changes"
                if way.keeps_memory
                else "memory does not stay in place, so there is nothing to prove"
            )
            todo = f"set method to {alternatives(good)}" if good else "delete it"
            raise Clash(what, todo, "prove_memory")
        if self.dirty_memory is not None and self.dirty_rate is None:
            raise Clash(
                "dirty_memory without dirty_rate", "add dirty_rate: 20 MiB/s, or delete it", "dirty_memory"
            )
        for key, owners in _OWN_KEYS.items():
            if getattr(self, key) is not None and way not in owners:
                todo = f"delete it, or set method to {alternatives(owners)}"
                raise Clash(f"{key} does not go with method {way}", todo, key)
        return self

    def to_plan(self) -> CycleSpec:
        """The cycle as the plan has it."""
        return CycleSpec(
            method=self.way,
            patch=self.patch.to_plan(),
            settle_ns=self.settle,
            before_ns=self.before,
            budget_ns=self.budget,
            watch_ns=self.watch,
            prove_memory=self.prove_memory,
            save_to=self.save_to or "",
            effects=self.effects,
            load=self.load,
            wake=self.wake,
            migration=self.migration(),
            dirty=self.dirty(),
        )
