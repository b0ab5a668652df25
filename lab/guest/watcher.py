"""A program in a guest that records what the guest's own programs claim about its clock, and side effects of
a pause.

It outlives its SSH connection: it is queried over its own socket, for one answer at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lab.core.claims import Claim
from lab.core.effects import Backward, Effects, RtcLook, Timers
from lab.core.mechanism import Means, ResyncMechanism
from lab.guest.client import CycleProgram
from lab.guest.ssh import SSH

_CLIENTS = {
    Means.CHRONYD: "chronyc",
    Means.VMCLOCK: "chronyc",
    Means.TIMESYNCD: "timesync",
    Means.TIMESYNCD_RESYNC: "timesync",
    Means.NTPD: "ntpq",
}
"""The client through which each daemon is queried, by the names of inside/clock_claims.py."""


def asked(mechanism: ResyncMechanism) -> str:
    """Which clients the watcher uses in the guest, beside adjtimex(2). timedatectl's "synchronized" is
    derived from adjtimex's maximum error, and querying it starts D-Bus and two services. So it is queried
    seldom, and only where a daemon makes claims."""
    client = _CLIENTS.get(mechanism.means)
    return f"{client},timedatectl" if client else ""


class GuestWatcher(CycleProgram):
    """ports.Watcher over SSH: a CycleProgram.

    mechanism: the mechanism whose programs are queried. effects: whether to record side effects. load: the
    share of each vCPU that is kept busy from start_cycle until effects() is called. vcpus: the guest's number
    of vCPUs. most_ns: see CycleProgram.
    """

    def __init__(
        self,
        guest: str,
        ssh: Callable[[], SSH],
        mechanism: ResyncMechanism,
        effects: bool,
        load: float,
        vcpus: int,
        most_ns: int,
    ) -> None:
        arguments = (asked(mechanism), str(int(effects)), str(load), str(vcpus))
        super().__init__(guest, ssh, "pause_watcher", "the watcher", arguments, most_ns)
        self._watches_effects = effects

    def claims(self) -> Sequence[Claim]:
        report = self._ask("claims", "W") or {}
        found = [Claim(source, *_claimed(row)) for source, rows in report.items() for row in rows]
        return sorted(found, key=lambda claim: claim.from_raw_ns)

    def effects(self) -> Effects | None:
        report = self._ask("effects", "E")
        return _effects(report) if report and self._watches_effects else None


def _claimed(row: list[Any]) -> tuple[int, int, bool | None, int | None, str, tuple[int, int]]:
    begun, ended, low, high, synced, bound, text = row
    return begun, ended, synced, bound, text, (low, high)


def _effects(report: dict[str, Any]) -> Effects:
    timers = (
        Timers(**{**kind, "buckets": tuple((edge, count) for edge, count in kind["buckets"])})
        for kind in report["timers"]
    )
    return Effects(
        tuple(timers),
        tuple(Backward(*row) for row in report["backward"]),
        tuple(RtcLook(*row) for row in report["rtc"]),
        report["boot_minus_mono_ns"],
    )
