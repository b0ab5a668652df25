"""What `doctor --json` and `hosts check --json` print: machines, and how this one sees them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

DOCTOR: Literal["freezelab.doctor/1"] = "freezelab.doctor/1"
HOSTS: Literal["freezelab.hosts-check/1"] = "freezelab.hosts-check/1"


@dataclass(frozen=True)
class CheckResult:
    """A check of `doctor`; see core.machine_check."""

    name: str
    ok: bool | None
    result: str
    fix: str = ""


@dataclass(frozen=True)
class CalibrationState:
    """The machine's calibration. stale: why it is not valid now. rough: why it is less exact than
    possible."""

    made: str
    cycles: int
    stale: str = ""
    rough: str = ""


@dataclass(frozen=True)
class MachineReport:
    """A machine. code: a digest of freezelab's own files. machine, boot: digests of its id (machine-id(5))
    and of its kernel's boot id. qemu, libvirt: "" when there is none. calibration: None without one. checks:
    those of `doctor`, none if they were not made."""

    freezelab: str
    code: str
    python: str
    kernel: str
    cpu: str
    cpus: int
    memory_bytes: int
    load: float
    qemu: str
    libvirt: str
    machine: str
    boot: str
    calibration: CalibrationState | None = None
    checks: tuple[CheckResult, ...] = ()
    schema: Literal["freezelab.doctor/1"] = DOCTOR

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.ok is False)


@dataclass(frozen=True)
class HostOffset:
    """A host's clock and the link to it. offset_low_ns, offset_high_ns: bounds of the host's REALTIME minus
    this machine's. round_trip_least_ns, round_trip_median_ns: of the readings, MONOTONIC_RAW."""

    offset_low_ns: int
    offset_high_ns: int
    round_trip_least_ns: int
    round_trip_median_ns: int
    readings: int


@dataclass(frozen=True)
class HostReport:
    """A host. failure, todo: why there is no report of it, and what to do; "" with one. clock: None when it
    could not be read, for the reason in clock_failure."""

    name: str
    failure: str = ""
    todo: str = ""
    report: MachineReport | None = None
    clock: HostOffset | None = None
    clock_failure: str = ""


@dataclass(frozen=True)
class HostsProblem:
    """What is wrong with hosts, and what to do. fails: it stands in the way of a run."""

    hosts: tuple[str, ...]
    what: str
    todo: str
    fails: bool


@dataclass(frozen=True)
class HostsCheck:
    """The check of a hosts file. here: this machine, without its checks."""

    here: MachineReport
    hosts: tuple[HostReport, ...]
    problems: tuple[HostsProblem, ...]
    schema: Literal["freezelab.hosts-check/1"] = HOSTS


def as_json(made: MachineReport | HostsCheck) -> str:
    """It as JSON, its schema first."""
    data: dict[str, Any] = asdict(made)
    return json.dumps({"schema": data.pop("schema"), **data}, indent=1) + "\n"


def machine_report(text: str) -> MachineReport:
    """The report that another freezelab has printed. ValueError when it is none of this schema."""
    try:
        return TypeAdapter(MachineReport).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from None
