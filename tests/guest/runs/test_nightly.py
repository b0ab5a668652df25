"""A night with guests: one whose run hangs while its guest is frozen, and what is left of both."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.core.night import NightVerdict
from lab.core.quantities import format_length
from lab.playbook import load
from lab.process.pace import paced
from lab.record.nights import nights_folder
from lab.session import nights
from lab.session.nights import NightOptions, NightPlaybook, run_night
from tests.guest.conftest import Cli

FREEZES = """
name: freezes
guests: [{name: web-0}]
resync: none
cycle: {settle: 200ms, before: 1s, watch: 1s, patch: {hold: 20s}}
"""


def test_a_controller_that_stands_still_is_killed_at_the_limit_and_its_guest_is_gone(
    cli: Cli, eventually: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FREEZELAB_HOME", str(cli.home))
    monkeypatch.setattr(nights, "GRACE_S", 3.0)
    path = tmp_path / "freezes 50%.yaml"
    path.write_text(FREEZES.replace("20s", "0s"))
    cli("run", str(path), timeout=300)  # a golden guest that has to be made first has no part in the limit
    path.write_text(FREEZES)
    stopped: list[psutil.Process] = []

    def logs() -> list[Path]:
        return list(nights_folder(cli.home).glob("*/1.log"))

    def stop() -> None:
        """As soon as the guest is frozen, the controller does no more; it does not take SIGTERM, either."""
        eventually(lambda: any("frozen, budget" in log.read_text() for log in logs()), 150)
        for process in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):  # another child, which ended meanwhile, has no command line
                if "--run-id" in process.cmdline():
                    process.send_signal(signal.SIGSTOP)
                    stopped.append(process)

    thread = threading.Thread(target=stop)
    thread.start()
    limit_s = round(paced(60))
    options = NightOptions(limit_ns=limit_s * 10**9)
    night = run_night(cli.home, [NightPlaybook(str(path), load(path))], options, lambda _line: None)
    thread.join()
    (part,) = night.playbooks
    assert len(stopped) == 1
    assert part.verdict is NightVerdict.ERROR
    limit = f"time limit of {format_length(limit_s * 10**9)}"
    assert part.why.startswith(f"ended at its {limit}; recover: removed guest web-0 of run ")
    assert not cli.qemu()
    assert not cli.left()
    assert '"kind":"deadman"' in cli.journal()  # it resumed the guest long before
