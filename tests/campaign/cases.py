"""What a case is, and all that there are: every method, at each of its steps, with every fault that can be
had there."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from enum import IntEnum, StrEnum
from fnmatch import fnmatch
from typing import Any

from lab.process.pace import paced


class Stage(IntEnum):
    """What a step means for the guest."""

    BOOT = 0  # it is started, and set to time
    BEFORE = 1  # it runs, and will be frozen
    FREEZE = 2  # it is being stopped
    FROZEN = 3
    RESUME = 4  # it is being let run
    AFTER = 5  # it runs again, and is watched
    END = 6  # it is being removed, or is gone


class Target(StrEnum):
    """What something is done to."""

    CONTROLLER = "controller"
    DEADMAN = "deadman"
    QEMU = "qemu"
    SUCCESSOR = "successor"
    IOHELPER = "iohelper"
    SSHD = "sshd"  # in the guest
    CLOCK = "clock"  # in the guest
    STATE = "state"  # the state folder's file system
    RUNS = "runs"  # the run folder's
    SHM = "shm"  # /dev/shm
    PACKETS = "packets"  # between host and guest, which is on a bridge
    NOTHING = "nothing"  # the control: what a run without a fault comes to

    @property
    def is_process(self) -> bool:
        """Of this host: signals are sent to it."""
        return self in _PROCESSES

    @property
    def is_folder(self) -> bool:
        return self in (Target.STATE, Target.RUNS, Target.SHM)

    @property
    def is_inside(self) -> bool:
        """In the guest, which has to run for it."""
        return self in (Target.SSHD, Target.CLOCK)


_PROCESSES = (Target.CONTROLLER, Target.DEADMAN, Target.QEMU, Target.SUCCESSOR, Target.IOHELPER)
SIGNALS = ("kill", "stop", "term", "hup")
"""stop: for longer than the budget, then SIGCONT."""

ACTIONS: dict[Target, tuple[str, ...]] = {
    **dict.fromkeys(_PROCESSES, SIGNALS),
    Target.CONTROLLER: (*SIGNALS, "hangup"),  # the terminal is gone, and SIGHUP comes of it
    Target.SSHD: ("kill", "stop"),
    Target.CLOCK: ("ahead", "back", "nudge"),
    Target.STATE: ("full", "readonly"),
    Target.RUNS: ("full", "readonly"),
    Target.SHM: ("full", "readonly"),
    Target.PACKETS: ("lost", "late", "cut"),
    Target.NOTHING: ("at all",),
}

BUDGET_S = {"guest-sleep": 12.0, "in-place-cold": 8.0}
"""On a usual host; 6 s for other methods. A guest takes seconds to fall asleep, and a new process seconds to
start, when the machine is busy with other cases."""

STOPPED_S = 2.0
"""How much longer than the budget "stop" stops something."""

_FIRST = (
    ("event/run-start", Stage.BOOT),
    ("phase/start from the golden guest", Stage.BOOT),
    ("phase/time sync", Stage.BOOT),
)
_BEFORE = (("phase/prepare", Stage.BEFORE), ("phase/measure", Stage.BEFORE), ("phase/freeze", Stage.FREEZE))
_FROZEN = (("event/freeze", Stage.FROZEN), ("phase/patch", Stage.FROZEN))
_AFTER = (
    ("event/resume", Stage.AFTER),
    ("phase/watch", Stage.AFTER),
    ("event/samples", Stage.AFTER),
    ("event/cycle-end", Stage.AFTER),
    ("phase/remove guests", Stage.END),
    ("event/run-end", Stage.END),
)

STEPS: dict[str, tuple[tuple[str, Stage], ...]] = {
    "suspend": (*_FIRST, *_BEFORE, *_FROZEN, *_AFTER),
    "sigstop": (*_FIRST, *_BEFORE, *_FROZEN, *_AFTER),
    "save-restore": (
        *_FIRST, *_BEFORE, ("step/save", Stage.FREEZE), *_FROZEN, ("step/restore", Stage.RESUME), *_AFTER,
    ),
    "in-place": (
        *_FIRST, _BEFORE[0], ("step/start successor", Stage.BEFORE), ("step/negotiate", Stage.BEFORE),
        *_BEFORE[1:], ("step/suspend", Stage.FREEZE), ("step/state out", Stage.FREEZE),
        ("step/state in", Stage.FREEZE), *_FROZEN,
        ("step/resume", Stage.RESUME), ("step/retire", Stage.AFTER), *_AFTER,
    ),
    "in-place-cold": (
        *_FIRST, *_BEFORE, ("step/suspend", Stage.FREEZE), ("step/state out", Stage.FREEZE),
        ("step/end old process", Stage.FREEZE), *_FROZEN, ("step/start successor", Stage.RESUME),
        ("step/state in", Stage.RESUME), ("step/resume", Stage.RESUME), ("step/retire", Stage.AFTER), *_AFTER,
    ),
    "guest-sleep": (
        _FIRST[0], ("phase/boot", Stage.BOOT), _FIRST[2], *_BEFORE, ("step/fall asleep", Stage.FREEZE),
        *_FROZEN, *_AFTER,
    ),
    "reboot": (
        *_FIRST, ("phase/measure", Stage.BEFORE), ("phase/shut down", Stage.FREEZE),
        ("phase/patch", Stage.FROZEN), ("phase/boot", Stage.RESUME), *_AFTER,
    ),
}  # fmt: skip
"""In the order in which they come."""

_METHODS = {"in-place": 2.0, "save-restore": 2.0, "guest-sleep": 0.5, "reboot": 0.4}
_TARGETS = {Target.CONTROLLER: 2.0, Target.SUCCESSOR: 2.0, Target.DEADMAN: 1.5, Target.IOHELPER: 20.0}
_TIGHT = 3.0


@dataclass(frozen=True)
class Case:
    """One case. delay_ms: from the step to the fault; -1: the fault comes while the step waits for it."""

    method: str
    step: str
    target: Target
    action: str
    delay_ms: int = -1

    @property
    def fault(self) -> str:
        return f"{self.target}-{self.action}" if self.target is not Target.NOTHING else "nothing"

    @property
    def stage(self) -> Stage:
        return dict(STEPS[self.method])[self.step]

    @property
    def label(self) -> str:
        when = "at" if self.delay_ms < 0 else f"{self.delay_ms} ms after"
        return f"{self.method}/{self.fault} {when} {self.step}"

    def comes_after(self, step: str) -> bool:
        """Whether this case's step is that one or a later one; False when the method has no such step."""
        names = [name for name, _stage in STEPS[self.method]]
        return step in names and names.index(self.step) >= names.index(step)

    @property
    def budget_s(self) -> float:
        return paced(BUDGET_S.get(self.method, 6.0))

    @property
    def stopped_s(self) -> float:
        """How long "stop" stops something."""
        return self.budget_s + STOPPED_S

    def as_data(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, data: dict[str, Any]) -> Case:
        return cls(**{**data, "target": Target(data["target"])})


def weight(case: Case) -> float:
    """How early a case is drawn: where more can go wrong, and less where it takes half a minute."""
    tight = _TIGHT if Stage.FREEZE <= case.stage <= Stage.RESUME else 1.0
    return _METHODS.get(case.method, 1.0) * _TARGETS.get(case.target, 1.0) * tight


def grid() -> list[Case]:
    """All that make sense, without delays."""
    found = []
    for method, steps in STEPS.items():
        for step, _stage in steps:
            for target, actions in ACTIONS.items():
                found += [
                    case for action in actions if _makes_sense(case := Case(method, step, target, action))
                ]
    return found


def _makes_sense(case: Case) -> bool:
    stage, target = case.stage, case.target
    if target is Target.NOTHING:
        return case.step == "phase/measure"
    if target is Target.DEADMAN:  # it is there from the first freeze to the end of the run
        return stage >= Stage.FREEZE and case.step != "event/run-end" and case.method != "reboot"
    if target is Target.QEMU:
        there = case.step != "event/run-end" and case.comes_after("phase/time sync")
        gone = case.method in ("save-restore", "reboot", "in-place-cold") and stage in (
            Stage.FROZEN,
            Stage.RESUME,
        )
        return there and not gone
    if target is Target.SUCCESSOR:
        first = "step/negotiate" if case.method == "in-place" else "step/state in"
        return case.comes_after(first) and stage < Stage.END and case.method.startswith("in-place")
    if target is Target.IOHELPER:
        return case.step == "step/save"
    if target.is_inside:
        return stage in (Stage.BEFORE, Stage.AFTER) and not case.step.startswith("step/")
    if target is Target.PACKETS:  # guest-sleep's machine and a reboot are the same on a bridge as without
        return case.comes_after("phase/time sync") and case.method in ("suspend", "sigstop", "in-place")
    if case.action == "readonly" and target is Target.SHM:
        return stage <= Stage.FREEZE
    return True


def delay_of(case: Case, chance: random.Random) -> int:
    """Half of the cases come right at their step, the others somewhat later."""
    if chance.random() < 0.5 and case.target is not Target.IOHELPER:
        return -1
    most = {"phase/patch": 1000, "event/freeze": 1000, "phase/watch": 1000, "step/save": 300}
    return chance.randrange(most.get(case.step, 40))


def drawn(seed: int, only: str = "", without: str = "") -> list[Case]:
    """The whole grid in an order that the seed decides, each with a delay of its own; over and over is for
    the caller. only, without: patterns for "METHOD/FAULT", such as "in-place/*-kill"."""
    chance = random.Random(seed)
    names = [(f"{case.method}/{case.fault}", case) for case in grid()]
    cases = [case for name, case in names if fnmatch(name, only or "*") and not fnmatch(name, without)]
    # Sorted by a random key that its weight makes small: Efraimidis and Spirakis, 2006.
    keyed = [(chance.random() ** (1 / weight(case)), case) for case in cases]
    keyed.sort(key=lambda pair: -pair[0])
    return [
        Case(case.method, case.step, case.target, case.action, delay_of(case, chance)) for _key, case in keyed
    ]


def numbered(seed: int, count: int, only: str = "", without: str = "") -> list[Case]:
    """`count` of them: the grid as often as it takes, each time with other delays and in another order."""
    found: list[Case] = []
    turn = 0
    while len(found) < count:
        more = drawn(seed * 1000 + turn, only, without)
        if not more:
            break
        found += more
        turn += 1
    return found[:count]
