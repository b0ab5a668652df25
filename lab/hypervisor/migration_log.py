"""Watches a live migration from its source: QEMU's answers to query-migrate, as they come."""

from __future__ import annotations

import contextlib
from typing import Any, Protocol

from lab.core.migration import MigrationReport, MigrationSample, MigrationSpec
from lab.core.units import NS_PER_MS
from lab.hypervisor.qmp import ANSWER_S, MonitorError
from lab.ports import Clock

PERIOD_NS = 100 * NS_PER_MS
_SOON_S = 0.001
MOST_SAMPLES = 2_000
"""After these, the source is asked ten times as seldom: a budget may be an hour."""


class MigrationSource(Protocol):
    """Answers query-migrate; see QemuControl, which is one."""

    def execute(self, command: str, wait_s: float = ANSWER_S, **arguments: Any) -> Any: ...

    def send(self, command: str, **arguments: Any) -> int: ...

    def answer(self, number: int, wait_s: float = ANSWER_S) -> Any: ...

    def wait(self, number: int, wait_s: float) -> bool: ...


class MigrationLog:
    """What the source of one live migration has answered so far. It is asked without waiting for its answer,
    because its main loop may be busy for the whole of the switch-over."""

    def __init__(self, control: MigrationSource, settings: MigrationSpec, clock: Clock) -> None:
        self._control, self._settings, self._clock = control, settings, clock
        self._began = self._next_ns = clock.now().raw_ns
        self._number: int | None = None
        self._samples: list[MigrationSample] = []
        self._last: dict[str, Any] = {}

    def ask_through(self, control: MigrationSource) -> None:
        """Ask through another connection to the same process from now on."""
        self._control, self._number = control, None

    def look(self) -> None:
        """Take an answer that has come, and ask when it is time to. Never waits."""
        now = self._clock.now().raw_ns
        with contextlib.suppress(MonitorError):
            if self._number is None and now >= self._next_ns:
                slow = 10 if len(self._samples) >= MOST_SAMPLES else 1
                self._next_ns = now + slow * PERIOD_NS
                self._number = self._control.send("query-migrate")
            elif self._number is not None and self._control.wait(self._number, 0):
                number, self._number = self._number, None
                self._add(self._control.answer(number, _SOON_S))

    def _add(self, answer: dict[str, Any]) -> None:
        self._last = answer
        ram = answer.get("ram", {})
        self._samples.append(
            MigrationSample(
                self.age_ns,
                str(answer.get("status", "none")),
                int(ram.get("dirty-sync-count", 0)),
                int(ram.get("remaining", 0)),
                int(ram.get("transferred", 0)),
                int(ram.get("dirty-pages-rate", 0)) * int(ram.get("page-size", 4096)),
                int(answer.get("cpu-throttle-percentage", 0)),
            )
        )

    @property
    def age_ns(self) -> int:
        """The time since the order."""
        return self._clock.now().raw_ns - self._began

    @property
    def last(self) -> MigrationSample | None:
        """The last answer; None before the first."""
        return self._samples[-1] if self._samples else None

    def report(self, wait_s: float) -> MigrationReport:
        """What is known, after the source was asked once more, for at most `wait_s` seconds."""
        took_ns = self.age_ns
        with contextlib.suppress(MonitorError):
            self._add(self._control.execute("query-migrate", wait_s))
        last, told = self._last, next((one for one in reversed(self._samples) if one.transferred), None)
        done = last.get("status") == "completed"
        return MigrationReport(
            self._began,
            took_ns,
            str(last.get("status", "none")),
            round(last["downtime"] * NS_PER_MS) if done and "downtime" in last else None,
            round(last["total-time"] * NS_PER_MS) if done and "total-time" in last else None,
            told.transferred if told is not None else 0,
            told.passes if told is not None else 0,
            self._settings,
            tuple(self._samples),
        )


def shortfall(sample: MigrationSample | None, seconds: float) -> str:
    """Why a migration has not converged, in words. seconds: how long it took."""
    if sample is None:
        return f"its memory was not sent within {seconds:.1f} s"
    text = f"{sample.remaining >> 20} MiB of memory remained after {seconds:.1f} s and {sample.passes} passes"
    if sample.dirty_bytes_s:
        text += f", while the guest dirtied {sample.dirty_bytes_s / (1 << 20):.0f} MiB/s"
    return text
