"""Commands in the lab host, and files to and from it."""

from __future__ import annotations

from collections.abc import Sequence

from lab.errors import GuestError
from lab.process import runner

NAME = "labhost"
PLACE = "/srv/freezelab"

STATE = "/root/.local/state/freezelab"
RUNS = f"{STATE}/runs"
PID_FILE = "/run/freezelab-{run}.pid"
RUNNING = """for file in /run/freezelab-*.pid; do
    [ ! -e "$file" ] || ! kill -0 "$(cat "$file")" 2>/dev/null || echo "$file"
done"""

_CIPHER = ("-c", "aes128-ctr,chacha20-poly1305@openssh.com")
"""Three times as fast as OpenSSH's first choice under TCG. The connection does not leave this machine."""

_BOOT = f"{PLACE}/boot_s"
_USUAL_BOOT_S = 20.0
"""The longest usual time from the lab host's first instruction until it answers SSH."""

_MOST_SLOWER = 30.0

_COMMAND_S, _SEND_S = 60.0, 600.0


class LabHostShell:
    """Commands in a lab host, and files to and from it, by OpenSSH. login: the command line that logs in.
    accelerator: what runs the lab host."""

    def __init__(self, login: Sequence[str], accelerator: str = "") -> None:
        self._login, self._slower, self.accelerator = list(login), 0.0, accelerator

    def command(self, command: str, *options: str) -> list[str]:
        """The command line that runs a shell command there. options: of ssh."""
        return [*self._login, "-o", "BatchMode=yes", *options, command]

    def run(self, command: str, timeout_s: float = _COMMAND_S) -> str:
        """The standard output of a shell command. GuestError when it fails."""
        return self._done(self.command(command), timeout_s)

    def send(self, source: Sequence[str], command: str) -> None:
        """Run a shell command there with the output of a command here as its standard input."""
        there = self.command(command, *_CIPHER)
        self._done(["sh", "-c", f"{runner.quote(source)} | {runner.quote(there)}"], _SEND_S)

    def fetch(self, command: str, target: Sequence[str]) -> None:
        """Run a command here with the output of a shell command there as its standard input."""
        there = self.command(command, *_CIPHER)
        self._done(["sh", "-c", f"{runner.quote(there)} | {runner.quote(target)}"], _SEND_S)

    def _done(self, argv: list[str], timeout_s: float) -> str:
        finished = runner.run(argv, timeout_s * self._how_slow(), check=False)
        if not finished.ok:
            why = " / ".join(finished.stderr.split("\n")[:3]).strip(" /")
            raise GuestError(f"{finished.why}: {why or 'no output'}", where=f"lab host {NAME}")
        return finished.stdout

    def _how_slow(self) -> float:
        """How many times longer than usual its boot took, at least 1; limits are multiplied by it. The first
        command in it measures that, and leaves it in a file; at most _MOST_SLOWER, should that be a late
        one."""
        if not self._slower:
            measure = f"mkdir -p {PLACE} && cut -d ' ' -f 1 /proc/uptime | tee {_BOOT}"
            look = f"cat {_BOOT} 2>/dev/null || {{ {measure}; }}"
            found = runner.run(self.command(look), _COMMAND_S, check=False)
            boot_s = float(found.stdout) if found.ok and found.stdout.strip() else 0.0
            self._slower = min(max(1.0, boot_s / _USUAL_BOOT_S), _MOST_SLOWER)
        return self._slower
