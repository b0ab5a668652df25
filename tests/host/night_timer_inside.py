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

from lab.host import night_units
from lab.host.night_units import HOME, SERVICE, NightJob
from tests.host.systemd_lab import report
from tests.unit.hostile_words import HOSTILE

NOTE = "import json, os, sys; json.dump([sys.argv[2:], dict(os.environ)], open(sys.argv[1], 'w'))"


def systemctl(*arguments: str) -> str:
    return subprocess.run(
        ["systemctl", "--user", *arguments], check=True, capture_output=True, text=True
    ).stdout


def look(folder: Path) -> dict[str, Any]:
    os.environ.pop("XDG_CONFIG_HOME", None)  # systemd there has none
    units = night_units.unit_folder()
    out = folder / "given 50%"
    environment = {HOME: f"/tmp/{HOSTILE[0]}", "X": " ".join(word for word in HOSTILE if "\n" not in word)}
    night_units.write_units(
        NightJob(3, 7, (sys.executable, "-c", NOTE, str(out), *HOSTILE), environment), units
    )
    night_units.start_timer()
    first = night_units.timer_state(units)
    night_units.write_units(
        NightJob(4, 8, (sys.executable, "-c", NOTE, str(out), *HOSTILE), environment), units
    )
    night_units.start_timer()
    second = night_units.timer_state(units)
    systemctl("start", SERVICE)  # a oneshot: waits for its end
    argv, env = json.loads(out.read_text())
    hang = NightJob(4, 8, ("/bin/sleep", "60"), environment)
    night_units.write_units(hang, units)
    night_units.start_timer()
    systemctl("start", "--no-block", SERVICE)
    time.sleep(0.5)
    running = night_units.timer_state(units)
    systemctl("stop", SERVICE)
    removed = night_units.remove_units(units)
    return {
        "argv": argv,
        "environment": {name: env.get(name) for name in environment},
        "wanted": environment,
        "next": [state.next_at if state is not None else "" for state in (first, second)],
        "homes": [state.home if state is not None else "" for state in (first, second)],
        "running": [state.running if state is not None else None for state in (second, running)],
        "removed": [Path(path).name for path in removed],
        "left": [str(path.relative_to(units)) for path in units.rglob("*") if not path.is_dir()],
        "after": systemctl("show", "--property=LoadState", "--value", night_units.TIMER).strip(),
    }


if __name__ == "__main__":
    report(lambda: look(Path(sys.argv[3])))
