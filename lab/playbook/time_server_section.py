"""The `time_server` section: the NTP server on the host, and its faults."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, model_validator

from lab.core.plan import TimeFault, TimeFaultKind
from lab.core.units import NS_PER_S, format_duration
from lab.playbook.fields import Duration, DurationOrZero, default, section
from lab.playbook.mistakes import Wrong
from lab.playbook.scalars import one_of

FAULT_NS = 10 * NS_PER_S

ServerFault = Annotated[TimeFaultKind, one_of(*TimeFaultKind, hint="a fault of a time server")]


class TimeServer(BaseModel):
    """The NTP server on the host, for guests that help themselves."""

    model_config = section("{off_by: 2s}")

    off_by: DurationOrZero = default(0, "How far the time that it serves is ahead of the host's clock.", "0s")
    fault: ServerFault | None = default(
        None,
        "A fault from just before each freeze until fault_for after the resume. "
        "silent: it does not answer. late: its answers are late by late_by. "
        "unsynchronised: its answers declare that it is not synchronised.",
    )
    fault_for: DurationOrZero = default(
        FAULT_NS, "How long the fault lasts after the resume.", format_duration(FAULT_NS)
    )
    late_by: Duration | None = default(None, "Delay of the answers, with fault: late.")

    @model_validator(mode="after")
    def _in_itself(self) -> Self:
        late = self.fault is TimeFaultKind.LATE
        if late and self.late_by is None:
            raise Wrong("fault: late needs late_by", "add late_by: 200ms", within=("fault",))
        if not late and self.late_by is not None:
            raise Wrong(
                "late_by has no meaning without fault: late",
                "add fault: late, or delete it",
                within=("late_by",),
            )
        return self

    def to_plan(self) -> TimeFault | None:
        """The fault as the plan has it."""
        if self.fault is None:
            return None
        return TimeFault(self.fault, self.fault_for, self.late_by or 0)
