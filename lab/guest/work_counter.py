"""A program in a guest that dirties memory, and counts how fast the guest works."""

from __future__ import annotations

from collections.abc import Callable

from lab.core.units import format_size
from lab.core.work import DirtySpec, WorkCounts
from lab.errors import GuestError
from lab.guest.client import ANSWER_S, STOP_S, BackgroundProgram
from lab.guest.ssh import SSH


class GuestWorkCounter:
    """ports.WorkCounter over SSH. A context manager. ssh: see BackgroundProgram. most_ns: see
    CycleProgram."""

    def __init__(self, ssh: Callable[[], SSH], spec: DirtySpec, most_ns: int) -> None:
        self._spec, self._begin = spec, f"cycle {most_ns}"
        self._program = BackgroundProgram(ssh, "work_counter", "the program that dirties memory")

    def __enter__(self) -> GuestWorkCounter:
        letter, found = self._program.start(str(self._spec.rate), str(self._spec.memory))
        if letter == "N":
            raise GuestError(
                f"dirty_memory of {format_size(self._spec.memory)} does not fit: "
                f"{format_size(found['available'] >> 20 << 20)} are free",
                where=self._program.where,
                hint="more memory for the guest, or a smaller dirty_memory",
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._program.stop("X", STOP_S)

    def start_cycle(self) -> None:
        self._program.ask(self._begin, "C", ANSWER_S)

    def counts(self) -> WorkCounts | None:
        found = self._program.ask("counts", "W", ANSWER_S)
        return WorkCounts(**{name: tuple(row) for name, row in found.items()}) if found else None
