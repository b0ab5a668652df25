"""A program in a guest that watches what its own programs say of its clock, and what else a pause does to it.

It outlives its SSH connection: it is asked over a socket of its own, for one answer at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lab.core.claims import Claim
from lab.core.effects import Backward, Effects, RtcLook, Timers
from lab.core.mechanism import Means, ResyncMechanism
from lab.guest.client import ANSWER_S, BackgroundProgram
from lab.guest.ssh import SSH

STOP_S = 10.0


_CLIENTS = {Means.CHRONYD: "chronyc", Means.TIMESYNCD: "timesync", Means.NTPD: "ntpq"}
"""What a program's claims are asked through, by the names of inside/clock_claims.py."""


def asked(mechanism: ResyncMechanism) -> str:
    """Which programs the guest is asked through, beside adjtimex(2). timedatectl's "synchronized" is made of
    adjtimex's maximum error; to ask it starts D-Bus and two services, so it is done only where a daemon
    claims something, and seldom."""
    client = _CLIENTS.get(mechanism.means)
    return f"{client},timedatectl" if client else ""


class GuestWatcher:
    """ports.Watcher over SSH. A context manager.

    ssh: the connection to use, had again when it was lost (GuestProbe.ssh); it is not closed here.
    mechanism: whose programs are asked. effects: watch for what else a pause does. load: share of each vCPU
    that is kept busy from start_cycle until effects() is asked. vcpus: how many the guest has.
    """

    def __init__(
        self,
        guest: str,
        ssh: Callable[[], SSH],
        mechanism: ResyncMechanism,
        effects: bool,
        load: float,
        vcpus: int,
    ) -> None:
        self.guest = guest
        self._program = BackgroundProgram(ssh, "pause_watcher", "the watcher")
        self._arguments = (asked(mechanism), str(int(effects)), str(load), str(vcpus))
        self._watches_effects = effects

    def __enter__(self) -> GuestWatcher:
        self._program.start(*self._arguments)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it and all that it has started. Nothing happens when it, or its guest, is gone already."""
        self._program.stop("X", STOP_S)

    def start_cycle(self) -> None:
        if self._ask("cycle", "C") is None:  # gone, with the guest that was rebooted
            self._program.start(*self._arguments)
            self._ask("cycle", "C")

    def claims(self) -> Sequence[Claim]:
        report = self._ask("claims", "W") or {}
        found = [Claim(source, *_claimed(row)) for source, rows in report.items() for row in rows]
        return sorted(found, key=lambda claim: claim.from_raw_ns)

    def effects(self) -> Effects | None:
        report = self._ask("effects", "E")
        return _effects(report) if report and self._watches_effects else None

    def _ask(self, what: str, letter: str) -> dict[str, Any] | None:
        return self._program.ask(what, letter, ANSWER_S)


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
