"""The stored calibration of this host: HOME/calibration.json, which later runs quote. `freezelab calibrate`
makes it (calibration_run)."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.core.calibration import CalibratedMachine, Figures, calibrate, stale_why
from lab.core.history import Host, RunEnded
from lab.core.judge import cells_of
from lab.core.verdict import Outcome
from lab.errors import FreezelabError, GuestError, MachineError, RecordError, UsageError
from lab.host import emulators
from lab.host import facts as host_facts
from lab.record.journal import History
from lab.record.model import Calibration
from lab.record.rebuild import observations_of, plan_of

SCHEMA = "freezelab.calibration/1"
COMMAND = "freezelab calibrate"
CYCLES = 30
"""The least number of pauses of a calibration that is not rough."""


@dataclass(frozen=True)
class Saved:
    """A calibration on disk. made_real_ns: the host's REALTIME when it was made. figures: those of
    core.calibration, as JSON. summary: the part that a run's record quotes, without `stale` and `rough`.
    load, cpus: those of the host while it was made."""

    made: str
    made_real_ns: int
    run: str
    seed: int
    machine: CalibratedMachine
    summary: dict[str, Any]
    figures: dict[str, Any]
    load: float = 0.0
    cpus: int = 0

    @property
    def busy(self) -> bool:
        """True when the host's load exceeded its CPUs: the figures are then those of a busy host."""
        return self.load > self.cpus > 0

    @property
    def rough(self) -> str:
        """Why its figures are less exact than possible on this host, "" when they are not."""
        count = self.figures["all"]["count"] + self.figures["all"]["lost"]
        few = f"only {count} of {CYCLES} pauses" if count < CYCLES else ""
        busy = f"measured at a load of {self.load:.1f} on {self.cpus} CPUs" if self.busy else ""
        return ", ".join(filter(None, (few, busy)))


def store(home: Path, saved: Saved) -> str:
    """Store a calibration, unless it is rough and the stored one is not. The result: the reason for not
    storing it, "" when it was stored."""
    try:
        standing = load(home)
    except RecordError:
        standing = None
    if saved.rough and standing is not None and not standing.rough and not stale(standing, saved.machine):
        return f"{saved.rough}; the calibration of {standing.made} stays ({COMMAND} --forget removes it)"
    _write(home, saved)
    return ""


def forget(home: Path) -> str:
    """Remove the stored calibration, readable or not; the result is a line for the user. UsageError when
    there is none."""
    try:
        _path(home).unlink()
    except FileNotFoundError:
        raise UsageError("no calibration yet", where=str(home), hint=COMMAND) from None
    except OSError as error:
        raise MachineError(f"cannot be removed: {error.strerror}", where=str(_path(home))) from error
    return f"removed {_path(home)}; later reports quote no calibration"


def judged(history: History, seed: int = 0) -> Saved:
    """The calibration from a calibration run's history. GuestError when no pause could be measured."""
    figures = figures_of(history)
    if figures is None:
        hint = f"freezelab report {history.start.id}"
        raise GuestError("no pause could be measured", where=str(history.folder), hint=hint)
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
    """The figures as a function of a run's history."""
    cells = cells_of(plan_of(history))
    return calibrate([(cells[obs.cell].cycle.patch.shortest_ns, obs) for obs in observations_of(history)])


def as_data(figures: Figures) -> dict[str, Any]:
    """The figures as JSON values."""

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


def machine_of(host: Host) -> CalibratedMachine:
    """The host of a run's record."""
    return CalibratedMachine(host_facts.machine_id(), host.cpu, host.kernel, host.qemu, host.accelerator)


def machine_now(saved: Saved) -> CalibratedMachine:
    """This host, as far as it is known without a hypervisor; its accelerator is ""."""
    facts, emulator = host_facts.look(), emulators.system()
    try:
        qemu = emulators.version(emulator).split()[0] if emulator is not None else ""
    except FreezelabError:
        qemu = ""
    return CalibratedMachine(
        host_facts.machine_id(), facts.cpu, facts.kernel, qemu, saved.machine.accelerator
    )


def stale(saved: Saved, now: CalibratedMachine) -> str:
    """Why it is not valid now; "" when it is."""
    return stale_why(saved.made_real_ns, saved.machine, time.time_ns(), now)


def for_record(home: Path, host: Host) -> dict[str, Any] | None:
    """The calibration for a run's record, in the form of lab.record.model.Calibration; None without a
    readable one. host: see GuestHost.facts."""
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
    """The stored calibration; None when there is none. RecordError when its file is damaged."""
    path = _path(home)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("schema") != SCHEMA:
            raise ValueError("its schema is unknown")
        return Saved(**{**data, "machine": CalibratedMachine(**data["machine"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        hint = f"run {COMMAND} again"
        raise RecordError("not a calibration of freezelab", where=str(path), hint=hint) from error


def exit_code(saved: Saved) -> int:
    """The exit code: failed when an interval does not contain the known pause, inconclusive when a pause
    could not be measured."""
    everything = saved.figures["all"]
    if everything["met"] < everything["count"]:
        return Outcome.FAILED.exit_code
    return (Outcome.INCONCLUSIVE if everything["lost"] else Outcome.PASSED).exit_code


def last(home: Path) -> Saved:
    """The stored calibration. UsageError when there is none."""
    saved = load(home)
    if saved is None:
        raise UsageError("no calibration yet", where=str(home), hint=COMMAND)
    return saved


def to_json(saved: Saved, stale_now: str) -> str:
    """Output of --json: the file, whether it is still valid, and why it is rough."""
    return (
        json.dumps({"schema": SCHEMA, **asdict(saved), "stale": stale_now, "rough": saved.rough}, indent=1)
        + "\n"
    )


def _path(home: Path) -> Path:
    return home / "calibration.json"


def _write(home: Path, saved: Saved) -> None:
    """Write the file atomically."""
    path = _path(home)
    draft = path.with_name(f".{path.name}.new")
    draft.write_text(json.dumps({"schema": SCHEMA, **asdict(saved)}, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)
