"""The command, which kills or interrupts itself at a moment of a snapshot.

    python -m tests.host.killed_in_snapshot MOMENT with|alone|once|twice|COMMAND ARGUMENTS…

with: by SIGKILL. alone: its dead-man is killed before, so that nobody acts until `recover` does. once, twice:
by SIGINT. Anything else is a shell command that is run at that moment, and the command goes on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.hypervisor import agent, overlays
from lab.hypervisor.freeze.snapshot import Snapshot

AGAIN_S = 0.3
SIGNALS = {"with": signal.SIGKILL, "alone": signal.SIGKILL, "once": signal.SIGINT, "twice": signal.SIGINT}

Point = tuple[Any, str, float | None]
"""An object and its function; how long after the call began, in seconds; None: when it has returned."""

POINTS: dict[str, Point] = {
    "prepared": (Snapshot, "prepare", None),
    "asked": (agent, "freeze_files", 0.0),
    "freezing": (agent, "freeze_files", 0.02),
    "frozen": (agent, "freeze_files", None),
    "taking": (overlays, "take", 0.003),
    "taken": (overlays, "take", None),
    "thawing": (agent, "thaw_files", 0.0),
    "thawed": (agent, "thaw_files", None),
    "flattening": (overlays, "flatten", 0.0),
    "committing": (overlays, "_pivot", 0.0),
    "pivoted": (overlays, "remove", 0.0),
    "half": (overlays, "remove", None),
}
POINTS |= {f"state-{name}": POINTS[name] for name in ("taken", "thawing")}
POINTS["state-taking"] = (overlays, "take", 0.05)
STAGES = {
    "taken": ("prepared", "asked", "freezing", "frozen", "taking", "taken", "state-taking", "state-taken"),
    "undone": ("thawing", "state-thawing", "thawed", "flattening", "committing", "pivoted", "half"),
}
"""All of them: until it has been taken, and afterwards."""

ALONE = ("frozen", "taken", "state-taken", "committing")
"""Those at which the dead-man is killed as well."""


def dead_men() -> list[int]:
    found = []
    for place in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if place.name.isdigit() and b"lab.hypervisor.deadman" in (place / "cmdline").read_bytes():
                found.append(int(place.name))
    return found


def end(how: str) -> None:
    for pid in dead_men() if how == "alone" else ():
        os.kill(pid, signal.SIGKILL)
    if how in SIGNALS:
        os.kill(os.getpid(), SIGNALS[how])
    else:
        subprocess.run(["sh", "-c", how], check=True)
    if how == "twice":
        later(AGAIN_S, "once")


def later(after_s: float, how: str) -> None:
    timer = threading.Timer(after_s, end, (how,))
    timer.daemon = True  # the command does not wait for it
    timer.start()


def ending(real: Callable[..., Any], after_s: float | None, how: str) -> Callable[..., Any]:
    """`real`, in whose first call or after it the command ends."""
    first = [True]

    def called(*arguments: Any, **more: Any) -> Any:
        if not first:
            return real(*arguments, **more)
        first.clear()
        if after_s == 0:
            end(how)
        elif after_s is not None:
            later(after_s, how)
        result = real(*arguments, **more)
        if after_s is None:
            end(how)
        time.sleep(1)
        return result

    return called


def main() -> None:
    moment, how = sys.argv[1:3]
    place, name, after_s = POINTS[moment]
    setattr(place, name, ending(getattr(place, name), after_s, how))
    sys.argv[1:3] = []
    from lab.cli.main import app

    app()


if __name__ == "__main__":
    main()
