"""`freezelab calibrate`: how exact the lab is on this machine.

An ordinary run with a plan of its own injects pauses of known length; the calibration is a function of that
run's history (core.calibration), and HOME/calibration.json has what it came to. Later runs quote it.
"""

from __future__ import annotations

import hashlib
import json
import random
import secrets
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.core.calibration import Figures, Machine, calibrate, stale_why
from lab.core.history import Host, RunEnded
from lab.core.judge import cells_of
from lab.core.mechanism import ResyncMechanism
from lab.core.method import FreezeMethod
from lab.core.patch import HoldPatch
from lab.core.plan import Cell, CycleSpec, Expectations, GuestSpec, Plan
from lab.core.units import NS_PER_MS, format_duration
from lab.core.verdict import Outcome
from lab.errors import FreezelabError, GuestError, MachineError, RecordError, UsageError
from lab.host import emulators
from lab.host import facts as host_facts
from lab.record.journal import History, read_history
from lab.record.model import Calibration
from lab.record.rebuild import observations_of, plan_of

SCHEMA = "freezelab.calibration/1"
NAME = "calibrate"
LENGTHS_NS = tuple(ms * NS_PER_MS for ms in (5, 20, 100, 500, 2000))
SETTLE_NS, BEFORE_NS, WATCH_NS = 200 * NS_PER_MS, 1500 * NS_PER_MS, 1500 * NS_PER_MS
REPEAT = 2
CYCLES, CONTROLS = 30, 10
QUICK, QUICK_CONTROLS = 6, 3
SUSPEND_EVERY = 3
"""In every third cell the pauses are QEMU's own, so that both regimes are seen; in the others by signal."""

COMMAND = "freezelab calibrate"


@dataclass(frozen=True)
class Saved:
    """A calibration as it is on disk. made_real_ns: the host's REALTIME when it was made. figures: those of
    core.calibration, as JSON. summary: what a run's record quotes, without `stale` and `rough`. load, cpus:
    of the host while it was made."""

    made: str
    made_real_ns: int
    run: str
    seed: int
    machine: Machine
    summary: dict[str, Any]
    figures: dict[str, Any]
    load: float = 0.0
    cpus: int = 0

    @property
    def busy(self) -> bool:
        """The host had more to do than its CPUs can: so exact is the lab on a busy machine."""
        return self.load > self.cpus > 0

    @property
    def rough(self) -> str:
        """Why its figures are less than this machine can have, "" when they are not."""
        count = self.figures["all"]["count"] + self.figures["all"]["lost"]
        few = f"only {count} of {CYCLES} pauses" if count < CYCLES else ""
        busy = f"made at a load of {self.load:.1f} on {self.cpus} CPUs" if self.busy else ""
        return ", ".join(filter(None, (few, busy)))


def plan_for(cycles: int, controls: int, seed: int) -> Plan:
    """The calibration's plan: `cycles` pauses and `controls` cycles without one, in cells of REPEAT pauses of
    one kind, in an order that `seed` decides. The controls are the cells' first cycles."""
    whole, rest = divmod(cycles, REPEAT)
    repeats = [REPEAT] * whole + [rest] * (rest > 0)
    kinds: list[tuple[FreezeMethod, int, int]] = []
    for number, repeat in enumerate(repeats):
        suspend = number % SUSPEND_EVERY == SUSPEND_EVERY - 1
        # Each method takes the lengths in turn.
        turn = number // SUSPEND_EVERY if suspend else number - number // SUSPEND_EVERY
        method = FreezeMethod.SUSPEND if suspend else FreezeMethod.SIGSTOP
        kinds.append((method, LENGTHS_NS[turn % len(LENGTHS_NS)], repeat))
    random.Random(seed).shuffle(kinds)  # noqa: S311 - an order that can be had again
    guests = (GuestSpec("web-0"),)
    each, more = divmod(controls, len(kinds))
    cells = []
    for number, (method, length_ns, repeat) in enumerate(kinds):
        length = format_duration(length_ns)
        cells.append(
            Cell(
                f"{number:02d}-{method.value}-{length.replace(' ', '')}",
                (("cell", str(number)), ("method", method.value), ("pause", length)),
                guests,
                ResyncMechanism.NONE,
                CycleSpec(method, HoldPatch(length_ns), SETTLE_NS, BEFORE_NS, watch_ns=WATCH_NS),
                Expectations(),
                repeat,
                each + (number < more),
            )
        )
    first = cells[0]
    about = f"pauses of known length, seed {seed}"
    return Plan(NAME, about, "", guests, first.resync, first.cycle, first.expectations, cells=tuple(cells))


@dataclass(frozen=True)
class Asked:
    """What the command line says. cycles, seed: None for ours."""

    cycles: int | None = None
    quick: bool = False
    seed: int | None = None
    accelerator: str = "auto"


def make(home: Path, asked: Asked, *, quiet: bool = False) -> tuple[Saved, str]:
    """Run a calibration, judge it, save what it came to; and why it was not saved, "" when it was.
    FreezelabError when the run was ended early, GuestError when not one pause could be measured; then the
    last calibration stays."""
    from lab.cli.options import accelerator_request
    from lab.cli.running import Options, RunStopped, perform  # which quotes the last one in its turn
    from lab.cli.signals import Signals
    from lab.cli.views import view_for

    seed = secrets.randbits(32) if asked.seed is None else asked.seed
    plan = plan_for(*counts(asked.cycles, quick=asked.quick), seed)
    options = Options(None, accelerator_request(asked.accelerator))
    with Signals() as signals:
        try:
            with view_for([guest.name for guest in plan.guests], quiet=quiet) as (view, progress):
                _run, folder = perform(plan, options, view, progress, signals.shield)
        except RunStopped as stopped:
            raise stopped.failure from None
    saved = judged(read_history(folder), seed)
    return saved, keep(home, saved)


def keep(home: Path, saved: Saved) -> str:
    """Have it be this machine's calibration, unless it is rough and the one that is there is not. Why it is
    not, "" when it is."""
    try:
        standing = load(home)
    except RecordError:
        standing = None
    if saved.rough and standing is not None and not standing.rough and not stale(standing, saved.machine):
        return f"{saved.rough}; the calibration of {standing.made} stands ({COMMAND} --forget removes it)"
    _write(home, saved)
    return ""


def forget(home: Path) -> str:
    """Remove the last calibration, readable or not; what is told. UsageError when there is none."""
    try:
        _path(home).unlink()
    except FileNotFoundError:
        raise UsageError("no calibration yet", where=str(home), hint=COMMAND) from None
    except OSError as error:
        raise MachineError(f"cannot be removed: {error.strerror}", where=str(_path(home))) from error
    return f"forgotten: {_path(home)}; the next reports quote none"


def judged(history: History, seed: int = 0) -> Saved:
    """A calibration run's history, judged. GuestError when not one pause could be measured."""
    figures = figures_of(history)
    if figures is None:
        hint = f"freezelab report {history.start.id}"
        raise GuestError("not one pause could be measured", where=str(history.folder), hint=hint)
    start, made_ns = history.start, history.ended.real_ns
    made = datetime.fromtimestamp(made_ns / 1e9, UTC).isoformat(timespec="seconds")
    noise, bound = figures.noise, figures.offset_bound_ns
    summary = Calibration(
        made=made,
        cycles=figures.all.count,
        bias_ns=figures.all.bias_ns,
        spread_ns=figures.all.spread_ns,
        coverage=figures.all.coverage,
        noise_ns=noise.pause_ns if noise is not None else 0,
        offset_bound_ns=bound or 0,
    )
    data = asdict(summary)
    del data["stale"], data["rough"]  # told anew each time
    looks = [start.host.details, *(end.host for end in history.of(RunEnded) if end.host is not None)]
    return Saved(
        made,
        made_ns,
        start.id,
        seed,
        machine_of(start.host),
        data,
        as_data(figures),
        max(float(look.get("load", 0.0)) for look in looks),
        int(looks[0].get("cpus", 0)),
    )


def figures_of(history: History) -> Figures | None:
    """The calibration as a function of a run's history."""
    cells = cells_of(plan_of(history))
    asked = []
    for obs in observations_of(history):
        patch = cells[obs.cell].cycle.patch
        asked.append((patch.duration_ns if isinstance(patch, HoldPatch) else 0, obs))
    return calibrate(asked)


def as_data(figures: Figures) -> dict[str, Any]:
    """The figures as JSON has them."""

    def accuracy(given: Any) -> dict[str, Any]:
        return {**asdict(given), "coverage": given.coverage, "spread_ns": given.spread_ns}

    return {
        "all": accuracy(figures.all),
        "parts": [
            {"method": method.value, "pause_ns": length, **accuracy(part)}
            for method, length, part in figures.parts
        ],
        "noise": None if figures.noise is None else asdict(figures.noise),
        "offset_bound_ns": figures.offset_bound_ns,
    }


def machine_of(host: Host) -> Machine:
    """The machine that a run's record tells of, which is this one."""
    return Machine(_machine_id(), host.cpu, host.kernel, host.qemu, host.accelerator)


def machine_now(saved: Saved) -> Machine:
    """This machine, as far as it can be told without a hypervisor; of the accelerator, nothing."""
    facts, emulator = host_facts.look(), emulators.system()
    try:
        qemu = emulators.version(emulator).split()[0] if emulator is not None else ""
    except FreezelabError:
        qemu = ""
    return Machine(_machine_id(), facts.cpu, facts.kernel, qemu, saved.machine.accelerator)


def stale(saved: Saved, now: Machine) -> str:
    """Why it does not hold now; "" when it does."""
    return stale_why(saved.made_real_ns, saved.machine, time.time_ns(), now)


def for_record(home: Path, host: Host) -> dict[str, Any] | None:
    """What a run's record quotes, as lab.record.model.Calibration has it; None when there is none that can be
    read. host: as running.host_of tells it."""
    try:
        saved = load(home)
    except RecordError:
        return None
    if saved is None:
        return None
    return {
        **saved.summary,
        "stale": stale(saved, machine_of(host)),
        "rough": saved.rough,
    }


def load(home: Path) -> Saved | None:
    """The last calibration; None when there is none. RecordError when its file is damaged."""
    path = _path(home)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        return Saved(**{**data, "machine": Machine(**data["machine"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        hint = f"{COMMAND} makes a new one"
        raise RecordError("is not a calibration of ours", where=str(path), hint=hint) from error


def counts(cycles: int | None, *, quick: bool) -> tuple[int, int]:
    """Pauses and controls. UsageError when both were asked for."""
    if quick and cycles is not None:
        raise UsageError("--quick has a number of its own", where="--cycles")
    if quick:
        return QUICK, QUICK_CONTROLS
    return (CYCLES, CONTROLS) if cycles is None else (cycles, max(1, cycles * CONTROLS // CYCLES))


def exit_code(saved: Saved) -> int:
    """failed when an interval does not hold the known pause, inconclusive when one could not be measured."""
    everything = saved.figures["all"]
    if everything["met"] < everything["count"]:
        return Outcome.FAILED.exit_code
    return (Outcome.INCONCLUSIVE if everything["lost"] else Outcome.PASSED).exit_code


def last(home: Path) -> Saved:
    """The last calibration. UsageError when there is none."""
    saved = load(home)
    if saved is None:
        raise UsageError("no calibration yet", where=str(home), hint=COMMAND)
    return saved


def to_json(saved: Saved, stale_now: str) -> str:
    """What --json prints: the file, whether it still holds, and why it is rough."""
    return (
        json.dumps({"schema": SCHEMA, **asdict(saved), "stale": stale_now, "rough": saved.rough}, indent=1)
        + "\n"
    )


def _path(home: Path) -> Path:
    return home / "calibration.json"


def _write(home: Path, saved: Saved) -> None:
    """Whole or not at all."""
    path = _path(home)
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(json.dumps({"schema": SCHEMA, **asdict(saved)}, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def _machine_id() -> str:
    """A digest: the id itself is to be kept to the machine (machine-id(5))."""
    try:
        text = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        text = ""
    return hashlib.sha256(f"freezelab {text}".encode()).hexdigest()[:16]
