"""How long a booted guest takes to start the probe's program: from the command to its first line.

    .venv/bin/python -m tests.bench.probe_start [--boots 10] [--times 5] [--other FILE]

A command, no test: what it tells is about this machine at this moment. A guest is booted over and over; in
each, the program is started for the first time, and --times more. --other: a file with another version's
command, which is started in turn with ours in the same guests, first in every second one. Another version
prints it in its clone by

    .venv/bin/python -c 'from lab.guest.probe_command import start_command; print(start_command())' > FILE

Times are of this host's MONOTONIC. Home: FREEZELAB_HOME, as for freezelab itself.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from lab.core.plan import GuestSpec, ResyncMechanism
from lab.guest.client import START_S, ChannelLines
from lab.guest.probe_command import start_command
from lab.guest.ssh import SSH
from lab.ports import NullView
from lab.process.clock import HostClock
from lab.record.journal import NullJournal
from lab.session.guests import Guests
from lab.session.paths import default_home
from tests.guest.without_a_run import settings_for

GUEST = GuestSpec("web-0")
END_S = 20.0


def start(ssh: SSH, command: str) -> float:
    """Milliseconds from the command to the program's first line; it has ended afterwards."""
    began = time.monotonic()
    channel = ssh.channel(command)
    lines = ChannelLines(channel)
    first = lines.read(began + START_S)
    took = time.monotonic() - began
    if not first.startswith(b"H "):
        raise SystemExit(f"not a probe: {first!r}")
    channel.sendall(b"q\n")
    try:
        while True:
            lines.read(time.monotonic() + END_S)
    except EOFError:
        channel.close()
    return took * 1e3


def boot_and_start(home: Path, commands: list[tuple[str, str]], times: int) -> dict[str, list[float]]:
    """The times by name, of one guest. The first one in a guest reads Python from its disk."""
    clock = HostClock()
    found: dict[str, list[float]] = {name: [] for name, _ in commands}
    with (
        settings_for(home, "probe-start", [GUEST], ResyncMechanism.NONE, clock) as (
            hypervisor,
            settings,
            _plan,
        ),
        Guests(hypervisor, settings, clock, NullView(), NullJournal()) as guests,
        guests.login(GUEST) as ssh,
    ):
        ssh.run("systemctl is-system-running --wait")  # degraded will do
        for _ in range(1 + times):
            for name, command in commands:
                found[name].append(start(ssh, command))
    return found


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--boots", type=int, default=10)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--other", type=Path)
    asked = parser.parse_args()
    commands = [("this", start_command())]
    if asked.other:
        commands.append(("other", asked.other.read_text(encoding="utf-8").strip()))
    first: dict[str, list[float]] = {name: [] for name, _ in commands}
    later: dict[str, list[float]] = {name: [] for name, _ in commands}
    for boot in range(asked.boots):
        order = commands if boot % 2 == 0 else commands[::-1]
        found = boot_and_start(default_home(), order, asked.times)
        fresh = order[0][0]
        first[fresh].append(found[fresh][0])
        for name, took in found.items():
            later[name] += took[1:]
        print(boot + 1, {name: [round(ms) for ms in took] for name, took in found.items()}, flush=True)
    for name, command in commands:
        fresh_ms, again_ms = spread(first[name]), spread(later[name])
        print(f"{name}: {len(command)} bytes; in a fresh guest {fresh_ms}; again {again_ms}")


def spread(times: list[float]) -> str:
    if not times:
        return "-"
    return f"{statistics.median(times):.0f} ms ({min(times):.0f} to {max(times):.0f}, {len(times)} times)"


if __name__ == "__main__":
    main()
