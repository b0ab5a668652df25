"""Histories of whole runs, made of simulated cycles: what the runner would have journalled.

python -m tests.unit.histories FOLDER      writes them all, to be looked at with `freezelab report FOLDER/…`
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lab.core.claims import Claim
from lab.core.clock import GuestClock
from lab.core.effects import Backward, Effects, RtcLook, Timers
from lab.core.plan import (
    Cell,
    CycleSpec,
    Expectations,
    FreezeMethod,
    GuestSpec,
    HoldPatch,
    LeftOut,
    ResyncMechanism,
)
from lab.core.timeline import Observation, Step
from lab.core.timesync_setup import Setup
from lab.core.units import parse_duration
from tests.unit.journalled import CALIBRATION, EXPECT, PROOF, Journalled, cell, cycle, rebooted, write
from tests.unit.simulation import MS, US, Repair, S


def methods(folder: Path) -> Path:
    """Each method once; one that the guest refuses, and one cell that was never reached."""
    given = [
        Journalled(cell(method), [cycle(method, i, 3 * S, seed=i)])
        for i, method in enumerate(
            (FreezeMethod.SUSPEND, FreezeMethod.SIGSTOP, FreezeMethod.SAVE_RESTORE, FreezeMethod.IN_PLACE)
        )
    ]
    given.append(
        Journalled(
            cell(FreezeMethod.GUEST_SLEEP), [],
            "guest-sleep: the guest's agent knows no suspend to RAM (no S3)", refused=True,
        )
    )  # fmt: skip
    given.append(Journalled(cell(FreezeMethod.REBOOT), [rebooted(5)]))
    none = replace(cycle(FreezeMethod.NONE, 6, 0), patch="livepatch fix.ko", patch_impact="none")
    given.append(Journalled(cell(FreezeMethod.NONE), [none]))
    return write(folder, "methods", given)


def sizes() -> Iterator[tuple[int, str]]:
    for memory in (512, 1024, 4096, 8192):
        yield memory, f"{memory}MiB"


def benchmark(folder: Path, cycles: int = 8) -> Path:
    """in-place against save-restore, as in-place-vs-save.yaml has it; the last cell did not fit."""
    r, given = random.Random(1), []
    for memory, text in sizes():
        one = cell(FreezeMethod.IN_PLACE, repeat=cycles, memory=text)
        seen = [
            cycle(FreezeMethod.IN_PLACE, i, 17 * MS + r.randint(0, 9 * MS), seed=i, return_ns=8 * MS)
            for i in range(cycles)
        ]
        given.append(Journalled(one, seen))
        for place in ("/dev/shm", "/var/tmp"):
            two = cell(FreezeMethod.SAVE_RESTORE, repeat=cycles, memory=text, save_to=place)
            if memory > 4096:
                given.append(Journalled(two, [], f"needs 6.3 GiB in {place}, 4.1 GiB are free"))
                continue
            per = 1700 if place == "/dev/shm" else 6100
            given.append(
                Journalled(
                    two,
                    [
                        cycle(
                            FreezeMethod.SAVE_RESTORE, i,
                            2 * S + int(memory / 1024 * per * MS * r.uniform(0.9, 1.2)), seed=i,
                        )
                        for i in range(cycles)
                    ],
                )
            )  # fmt: skip
    return write(folder, "in-place-vs-save", given)


def upgrade(folder: Path) -> Path:
    """One exchange for a newer QEMU, its memory proven, its connections cut by user-mode networking."""
    seen = cycle(FreezeMethod.IN_PLACE, 0, 190 * MS, blind_ns=1200 * MS, return_ns=12 * MS)
    assert seen.stop is not None
    assert seen.resume is not None
    begin, end = seen.stop.returned.raw_ns, seen.resume.called.raw_ns
    steps = (
        Step("prove memory", begin + 10 * US, begin + 80 * MS),
        Step("state out", begin + 80 * MS, begin + 92 * MS),
        Step("state in", begin + 92 * MS, begin + 104 * MS),
        Step("prove memory again", end - 80 * MS, end - 20 * US),
    )
    seen = replace(
        seen, steps=steps, proof=PROOF, patch="replace-hypervisor qemu-10.0",
        version_before="QEMU 7.2.22 pc-q35-7.2", version_after="QEMU 10.0.2 pc-q35-7.2",
    )  # fmt: skip
    one = cell(FreezeMethod.IN_PLACE, proof="yes")
    return write(folder, "hypervisor-upgrade", [Journalled(one, [seen])], matrix=False)


def called_off(folder: Path) -> Path:
    """A successor that refused the state: the guest went on where it was."""
    seen = cycle(FreezeMethod.IN_PLACE, 0, 120 * MS, seed=4)
    why = "the successor refused the device state: Unknown savevm section 'cpu_v2'"
    seen = replace(seen, called_off=why, patch_ok=False, patch_why=f"not applied: {why}")
    return write(folder, "called-off", [Journalled(cell(FreezeMethod.IN_PLACE), [seen])], matrix=False)


def playbook_of_ansible(folder: Path) -> Path:
    """A patch with steps of its own, under a suspended guest, several times."""
    given = []
    for i in range(6):
        seen = cycle(FreezeMethod.SUSPEND, i, 2 * S, seed=i)
        assert seen.stop is not None
        at = seen.stop.returned.raw_ns + 5 * MS
        tasks = (("gather facts", 900), ("install the package", 700), ("restart the service", 250 + i))
        steps = []
        for name, ms in tasks:
            steps.append(Step(name, at, at + ms * MS))
            at += ms * MS
        given.append(replace(seen, patch_steps=tuple(steps), patch="ansible host.yaml"))
    return write(folder, "ansible", [Journalled(cell(FreezeMethod.SUSPEND, repeat=6), given)], matrix=False)


M = ResyncMechanism
WRONG_S = 2
"""For how many seconds after the resume chronyd takes its clock for right in `resync_matrix`, at least."""


def _resync_cell(mechanism: M, hold: str, method: FreezeMethod = FreezeMethod.SUSPEND) -> Cell:
    values = {"method": method.value, "hold": hold, "resync": mechanism.value}
    spec = CycleSpec(method, HoldPatch(parse_duration(hold)), watch_ns=5 * S)
    expect = Expectations(tolerance_ns=100 * MS, hold_ns=300 * MS, as_predicted=True)
    name = "-".join(values.values())
    return Cell(name, tuple(values.items()), (GuestSpec("web-0"),), mechanism, spec, expect)


def _resync_cycle(one: Cell, seed: int, repair: Repair, **more: object) -> Observation:
    """A cycle in which the clock comes back by `repair`, whatever the mechanism's rules say."""
    assert isinstance(one.cycle.patch, HoldPatch)
    seen = cycle(
        one.cycle.method, 0, one.cycle.patch.duration_ns, seed=seed, repair=repair,
        **{"watch_ns": 5 * S, **more},
    )  # fmt: skip
    config = one.resync.config("127.0.0.1", 20123)
    setup = Setup(one.resync, PROGRAMS.get(one.resync, ""), config, STATUS.get(one.resync, {}))
    return replace(seen, setup=setup)


PROGRAMS = {M.CHRONY: "chronyd 4.3", M.CHRONY_DISTRIBUTION: "chronyd 4.3", M.CHRONY_FROZEN: "chronyd 4.3",
            M.TIMESYNCD: "systemd 252", M.NTPD: "ntpd ntpsec-1.2.2"}  # fmt: skip
STATUS = {M.CHRONY_DISTRIBUTION: {"updates": "40"}, M.TIMESYNCD: {"PollIntervalUSec": "34min 8s"}}


def _claimed(seen: Observation, source: str, bound_ns: int, until_ns: int) -> tuple[Claim, ...]:
    """What a program says once every ten readings: synchronised, to `bound_ns`; that it is not, in the second
    that begins until_ns after the resume."""
    assert seen.resume is not None
    resumed, found = seen.resume.returned.raw_ns, []
    for r in seen.readings[::10]:
        since = r.t1.raw_ns - resumed
        synced = not until_ns < since < until_ns + S
        known = bound_ns if synced else None
        text = f"System time within {bound_ns / MS:g} ms" if synced else "Not synchronised"
        found.append(Claim(source, r.t2[GuestClock.RAW], r.t3[GuestClock.RAW], synced, known, text))
    return tuple(found)


def _effects(seen: Observation, late_ns: int) -> Effects:
    """What a pause does to a guest whose clocks stop: timers are as late as the vCPUs were."""
    assert seen.resume is not None
    edges = (MS // 10, MS, 10 * MS, 100 * MS, S, 10 * S, 1 << 62)
    fleet = tuple(zip(edges, (2950, 212, 31, 4, 0, 0, 0), strict=True))
    after = tuple(zip(edges, (2411, 180, 22, 2, 0, 64, 0), strict=True))
    raw = [r.t2[GuestClock.RAW] for r in seen.readings]
    return Effects(
        (
            Timers("timerfd monotonic", 64, sum(n for _, n in fleet), fleet, 41 * MS, 5),
            Timers("timerfd realtime", 64, sum(n for _, n in after), after, late_ns, 64),
            Timers("sleep", 64, sum(n for _, n in fleet), fleet, 38 * MS, 4),
        ),
        (
            Backward("monotonic", 0, 1, 20_411, 0), Backward("monotonic", 1, 0, 20_410, 0),
            Backward("realtime", 0, 1, 20_411, 0), Backward("realtime", 1, 0, 20_410, 0),
        ),
        (RtcLook(raw[0], -2 * MS, MS), RtcLook(raw[-1], 3 * MS, MS)),
        0,
    )  # fmt: skip


def resync_matrix(folder: Path) -> Path:
    """Mechanisms that do as their rules say, one that does not (chrony-frozen), two that would have to be
    watched for longer (chrony-distribution, timesyncd), one that the machine has not, and a program that
    claims to be right while it is not (chrony-distribution's)."""
    given: list[Journalled] = []
    for mechanism, repair, more in (
        (M.NONE, Repair.NONE, {}),
        (M.AGENT, Repair.AGENT, {}),
        (M.CHRONY, Repair.LATE_STEP, {"repair_after_ns": 900 * MS}),
        (M.CHRONY_DISTRIBUTION, Repair.SLEW, {"repair_after_ns": 700 * MS}),
        (M.CHRONY_FROZEN, Repair.SLEW, {"repair_after_ns": 200 * MS}),
        (M.TIMESYNCD, Repair.NONE, {}),
    ):
        for hold in ("200ms", "3s"):
            one = _resync_cell(mechanism, hold)
            short = hold == "200ms" and mechanism in (M.CHRONY, M.CHRONY_DISTRIBUTION)
            seen = _resync_cycle(one, len(given), Repair.SLEW if short else repair, **more)
            if mechanism is M.CHRONY_DISTRIBUTION:
                seen = replace(seen, claims=_claimed(seen, "chronyc tracking", 2 * MS, WRONG_S * S))
            if mechanism is M.AGENT:
                seen = replace(seen, claims=_claimed(seen, "adjtimex", 16 * S, 90 * S))
            given.append(Journalled(one, [seen]))
    for hold in ("200ms", "3s"):
        one = _resync_cell(M.CHRONY_PHC, hold)
        why = "chrony-phc: the guest has no ptp_kvm: it needs KVM"
        given.append(Journalled(one, [], why, refused=True))
    for mechanism in (M.NONE, M.CHRONY):
        for hold in ("200ms", "3s"):
            one = _resync_cell(mechanism, hold, FreezeMethod.SIGSTOP)
            given.append(Journalled(one, [_resync_cycle(one, 50, Repair.NONE)]))
    out = LeftOut((("method", "sigstop"), ("hold", "3s"), ("resync", "push")), "excluded by the playbook")
    return write(folder, "resync-matrix", given, left_out=(out,), calibration=CALIBRATION)


def slewed(folder: Path) -> Path:
    """One guest, one freeze, watched until its clock was slewed back, with all that can be told of it."""
    one = replace(_resync_cell(M.CHRONY, "500ms"), expectations=EXPECT)
    seen = _resync_cycle(one, 3, Repair.SLEW, repair_after_ns=600 * MS, watch_ns=8 * S)
    claims = (
        *_claimed(seen, "chronyc tracking", 2 * MS, 400 * MS),
        *_claimed(seen, "adjtimex", 16 * S, 90 * S),
    )
    seen = replace(seen, claims=claims, effects=_effects(seen, 501 * MS))
    stale = {**CALIBRATION, "stale": "made under kernel 6.1.0-17-amd64"}
    return write(folder, "slewed", [Journalled(one, [seen])], matrix=False, calibration=stale)


def stepped(folder: Path) -> Path:
    """One guest whose agent sets its clock, and overshoots."""
    one = replace(_resync_cell(M.AGENT, "3s"), expectations=EXPECT)
    seen = _resync_cycle(one, 4, Repair.OVERSHOOT, repair_after_ns=120 * MS)
    return write(folder, "stepped", [Journalled(one, [seen])], matrix=False, calibration=CALIBRATION)


ALL = {f.__name__: f for f in (
    methods, benchmark, upgrade, called_off, playbook_of_ansible, resync_matrix, slewed, stepped,
)}  # fmt: skip

if __name__ == "__main__":
    for make in ALL.values():
        make(Path(sys.argv[1]))
