"""The plan of `freezelab freeze`: one cycle over a kept guest, or over a domain of the user's own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from lab.core.depth import Depth
from lab.core.mechanism import ResyncMechanism
from lab.core.method import FreezeMethod
from lab.core.own_domain import SshTarget, refusal, resync_refusal
from lab.core.patch import HoldPatch
from lab.core.plan import Announcement, CycleSpec, Expectations, GuestSpec, Plan
from lab.core.units import NS_PER_S, parse_duration
from lab.errors import UsageError
from lab.session import kept_guests
from lab.session.kept_guest_access import check_running

BUDGET_NS = 30 * NS_PER_S
"""The budget beyond the hold: for the copies of save-restore, and a guest's own sleep."""

AFTER_NS = 4 * NS_PER_S
"""How long the guest is watched after the time at which its clock is to be right."""

_NAME = re.compile(r"[^a-z0-9]+")

_E = TypeVar("_E", bound=StrEnum)


@dataclass(frozen=True)
class Asked:
    """The command line. target: the kept guest's name or, with uri, the domain's. length, announce, in_time:
    durations as written. ssh: a Host of ssh_config; None: the domain's name. probe: a value of Depth."""

    target: str
    length: str
    method: str = "suspend"
    announce: str | None = None
    resync: str = "none"
    in_time: str | None = None
    uri: str | None = None
    ssh: str | None = None
    probe: str = Depth.AUTO


def plan_of(asked: Asked, home: Path) -> Plan:
    """The plan of one cycle. UsageError when something that was asked for does not exist or make sense,
    GuestGone when it is a kept guest that has ended."""
    method = _member(
        FreezeMethod, asked.method, "--method", (one for one in FreezeMethod if one.needs_resume)
    )
    resync = _member(ResyncMechanism, asked.resync, "--resync", ResyncMechanism)
    hold = HoldPatch(_time(asked.length, "--for"))
    why = refusal(method, hold)
    if method.traits.overlaps and not asked.uri:
        why = "it would be in another domain than `freezelab list` and `down` know; a playbook's guests move"
    if why:
        raise UsageError(f"a guest that runs already is not frozen by {method}: {why}", where="--method")
    expect, watch_ns = Expectations(), CycleSpec.watch_ns
    if asked.in_time is not None:
        within_ns = _time(asked.in_time, "--expect-in-time")
        expect = Expectations(in_time_within_ns=within_ns)
        watch_ns = max(watch_ns, within_ns + AFTER_NS)
    announce = None
    if asked.announce is not None:
        announce = Announcement(notice_ns=_time(asked.announce, "--announce", zero=True), time_factor=1.0)
    guest = _guest(asked, home)
    if why := resync_refusal(resync, guest.probe, is_own=bool(asked.uri)):
        hint = "name a domain by --connect, with --probe agent"
        raise UsageError(why, where="--resync", hint=hint)
    cycle = CycleSpec(
        method, hold, budget_ns=hold.duration_ns + BUDGET_NS, watch_ns=watch_ns, announce=announce
    )
    return Plan("freeze", f"{guest.name} by hand", "", (guest,), resync, cycle, expect)


def _guest(asked: Asked, home: Path) -> GuestSpec:
    probe = _member(Depth, asked.probe, "--probe", Depth)
    if asked.uri:
        name = _NAME.sub("-", asked.target.lower()).strip("-")[:40].strip("-") or "guest"
        if probe is Depth.AGENT and asked.ssh is not None:
            raise UsageError("does not go with --probe agent", where="--ssh", hint="leave out one of them")
        ssh = None if probe is Depth.AGENT else SshTarget(asked.ssh or asked.target)
        return GuestSpec(name, domain=asked.target, ssh=ssh, probe=probe)
    if asked.ssh is not None:
        raise UsageError(
            "goes with --connect", where="--ssh", hint="a kept guest is reached by the lab's key"
        )
    if probe is not Depth.AUTO:
        raise UsageError(
            "goes with --connect", where="--probe", hint="a kept guest has python3, or else a shell is used"
        )
    kept = kept_guests.find(home, asked.target)
    check_running(home, kept)
    return own_spec(kept)


def own_spec(kept: kept_guests.KeptGuest) -> GuestSpec:
    """A kept guest as a domain that runs already."""
    ssh = SshTarget(kept.host, kept.port, kept.user, kept.key, kept.known_hosts, "/dev/null")
    return GuestSpec(kept.name, kept.image, kept.vcpus, kept.memory_bytes, domain=kept.domain, ssh=ssh)


def _member(kind: type[_E], text: str, option: str, known: Iterable[_E]) -> _E:
    names = [one.value for one in known]
    if text not in names:
        raise UsageError(f"unknown: {text!r}", where=option, hint=f"known: {', '.join(names)}")
    return kind(text)


def _time(text: str, option: str, *, zero: bool = False) -> int:
    try:
        value = parse_duration(text)
    except ValueError as error:
        raise UsageError(str(error), where=option) from None
    if value <= 0 and not zero:
        raise UsageError("zero is not allowed here", where=option, hint="write it like 10s")
    return value
