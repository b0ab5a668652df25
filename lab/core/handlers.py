"""Event handlers in guests, and the verdict of a run in which one of them ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lab.core.verdict import Finding, Outcome

HANDLER = "handler"
"""The metric of their findings."""


@dataclass(frozen=True)
class HandlerEnd:
    """A handler that ended although the lab had not stopped it.

    program: its file's name. result, code, status: systemd's $SERVICE_RESULT, $EXIT_CODE and $EXIT_STATUS
    (systemd.exec(5)), "unknown" and "" where systemd does not report them. last_line: the last line of its
    output, "" when there was none.
    """

    program: str
    result: str = ""
    code: str = ""
    status: str = ""
    last_line: str = ""

    @property
    def succeeded(self) -> bool:
        """True when it exited with status 0."""
        return self.result == "success" and self.code == "exited"

    @property
    def text(self) -> str:
        """ "exited with status 1: ValueError: Invalid isoformat string"."""
        how = f"exited with status {self.status}" if self.code == "exited" else "ended"
        if self.code in ("killed", "dumped"):
            how = f"was killed by SIG{self.status}" + (
                " (out of memory)" if self.result == "oom-kill" else ""
            )
        return f"{how}: {self.last_line or 'no output'}"


def handler_findings(ends: Iterable[tuple[str, int, HandlerEnd]], cell: str = "") -> list[Finding]:
    """One finding for each guest whose handler has ended: failed, or inconclusive when it exited with status
    0, because it handles no later events. ends: guest, cycle and end, in their order; the first end of a
    guest counts."""
    first: dict[str, tuple[int, HandlerEnd]] = {}
    for guest, cycle, end in ends:
        first.setdefault(guest, (cycle, end))
    return [
        Finding(
            guest, cycle, HANDLER, "runs until the run is over", end.text,
            Outcome.INCONCLUSIVE if end.succeeded else Outcome.FAILED,
            f"the handler {end.program} {end.text}", cell,
        )
        for guest, (cycle, end) in first.items()
    ]  # fmt: skip
