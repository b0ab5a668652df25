"""The programs on the host that are workloads' clients: whether they are there."""

from __future__ import annotations

from pathlib import Path

from lab.core.plan import Plan, WorkloadSpec
from lab.errors import MachineError, UsageError
from lab.process import runner


def client_obstacles(plan: Plan) -> list[UsageError]:
    """Clients that cannot be started here: there is no such program, or it is not executable."""
    found: dict[str, UsageError] = {}
    for spec in (spec for cell in plan.parts for spec in cell.workloads):
        error = _obstacle(spec)
        if error is not None:
            found.setdefault(str(error), error)
    return list(found.values())


def check_clients(plan: Plan) -> None:
    """UsageError, a line for each, when clients cannot be started here."""
    if lacking := client_obstacles(plan):
        raise UsageError("\n".join(str(error).replace("\n", "; ") for error in lacking))


def _obstacle(spec: WorkloadSpec) -> UsageError | None:
    if not spec.command or spec.on:
        return None
    program, where = spec.command[0], f"workload {spec.name}"
    try:
        if "/" in program and not Path(program).exists():
            return UsageError(f"no file {program}", where=where)
        runner.find(program)
    except MachineError as error:
        return UsageError(f"{program}: {error.what}", where=where, hint=error.hint)
    except (OSError, ValueError):  # a name too long, a zero byte
        return UsageError(f"no file {program}", where=where)
    return None
