"""Runs as a service of a user's systemd (systemd_lab.py). Installs a night there, has it run, removes it.

night_timer_inside.py user OUTPUT FOLDER
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lab.errors import UsageError
from lab.host import night_units
from lab.host.night_units import HOME, SERVICE, TIMER, NightJob
from lab.session import night_timer
from tests.host.systemd_lab import report
from tests.unit.hostile_words import HOSTILE

NOTE = "import json, os, sys; json.dump([sys.argv[2:], dict(os.environ)], open(sys.argv[1], 'w'))"


def systemctl(*arguments: str) -> str:
    return subprocess.run(
        ["systemctl", "--user", *arguments], check=True, capture_output=True, text=True
    ).stdout


def missed_night(out: Path) -> bool:
    """Whether the timer, without anybody's start of the service, makes up for the nights of two days for
    which the machine was off: it keeps the time of the last one in a file."""
    systemctl("stop", TIMER)
    out.unlink()
    last = Path.home() / f".local/share/systemd/timers/stamp-{TIMER}"
    os.utime(last, (time.time() - 2 * 86400,) * 2)
    systemctl("start", TIMER)
    end = time.monotonic() + 20
    while not out.exists() and time.monotonic() < end:
        time.sleep(0.05)
    return out.exists()


def look(folder: Path) -> dict[str, Any]:
    os.environ.pop("XDG_CONFIG_HOME", None)  # systemd there has none
    home = str(folder / "50% off/a b")
    os.environ[HOME] = home
    units, out = night_units.unit_folder(), folder / "given 50%"
    note = (sys.executable, "-c", NOTE, str(out), *HOSTILE)
    environment = {HOME: home, "X": " ".join(HOSTILE)}
    night_timer.install(NightJob(3, 7, note, environment))
    first = night_units.timer_state(units)
    night_timer.install(NightJob(4, 8, note, environment))
    second = night_units.timer_state(units)
    systemctl("start", SERVICE)  # a oneshot: waits for its end
    argv, env = json.loads(out.read_text())
    missed = missed_night(out)
    night_timer.install(NightJob(4, 8, ("/bin/sleep", "60"), environment))
    systemctl("start", "--no-block", SERVICE)
    end = time.monotonic() + 20
    while not (running := night_units.timer_state(units)) or not running.running:
        assert time.monotonic() < end
        time.sleep(0.05)
    systemctl("stop", SERVICE)
    os.environ[HOME] = str(folder)
    try:
        night_timer.remove()
        refusal = ""
    except UsageError as error:
        refusal = error.what
    os.environ[HOME] = home
    removed = night_timer.remove()
    return {
        "argv": argv,
        "environment": {name: env.get(name) for name in environment},
        "wanted": environment,
        "missed": missed,
        "next": [state.next_at if state is not None else "" for state in (first, second)],
        "homes": [state.home if state is not None else "" for state in (first, second)],
        "refusal": refusal,
        "removed": [Path(path).name for path in removed],
        "left": [str(path.relative_to(units)) for path in units.rglob("*freezelab*")],
        "after": systemctl("show", "--property=LoadState", "--value", TIMER).strip(),
    }


if __name__ == "__main__":
    report(lambda: look(Path(sys.argv[3])))
