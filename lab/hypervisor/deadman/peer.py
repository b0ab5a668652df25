"""Ends the migration of a domain of the user's own to another daemon, with which libvirt goes on when its
controller has ended: one that does not converge would slow the guest down for ever."""

from __future__ import annotations

from dataclasses import dataclass

from lab.hypervisor.deadman.rescue import Opened, Rescued, ResumePlan


@dataclass(frozen=True)
class AbortMigration(ResumePlan):
    """live-migrate between two daemons. to: the URI of the other one, where the guest runs if its process
    here has ended."""

    to: str = ""

    def rescue(self, opened: Opened) -> Rescued:
        rescued = opened.process.let_run("its migration was called off: it was resumed", leaving=True)
        if rescued.act == "ended":
            return Rescued("ended", f"it has been migrated to {self.to}")
        return rescued
