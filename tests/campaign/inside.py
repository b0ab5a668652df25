"""Commands in the guest, over a connection of the campaign's own."""

from __future__ import annotations

import time
from pathlib import Path

import paramiko

from lab.process.pace import paced
from tests.campaign.place import HOME

_COMMANDS = {
    # Whoever does it is an sshd's child, so it is done by somebody else.
    ("sshd", "kill"): "setsid sh -c 'pkill -9 sshd' >/dev/null 2>&1 </dev/null &",
    ("sshd", "stop"): "setsid sh -c 'pkill -STOP sshd; sleep {stopped}; pkill -CONT sshd' >/dev/null 2>&1 "
    "</dev/null &",
    ("clock", "ahead"): "date -s '+75 min'",
    ("clock", "back"): "date -s '-75 min'",
    ("clock", "nudge"): 'date -s "@$(awk "BEGIN {{printf \\"%.3f\\", $(date +%s.%N) + 0.4}}")"',
}


class Inside:
    """One connection, made when it is needed and kept."""

    def __init__(self) -> None:
        self._client: paramiko.SSHClient | None = None

    def open(self, host: str, port: int) -> None:
        """OSError or SSHException when it cannot be had in time."""
        key = paramiko.Ed25519Key.from_private_key_file(str(Path(HOME) / "keys" / "lab_ed25519"))
        within_s = paced(8.0)
        end = time.monotonic() + within_s
        while True:
            client = paramiko.SSHClient()
            client.set_missing_host_key_policy(paramiko.AutoAddPolicy())  # noqa: S507 - our own guest
            try:
                client.connect(host, port, "root", pkey=key, timeout=within_s, allow_agent=False)
            except (OSError, paramiko.SSHException):
                client.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
            else:
                self._client = client
                return

    def do(self, target: str, action: str, stopped_s: float) -> None:
        """One of the faults that are done in there."""
        command = _COMMANDS[target, action].format(stopped=f"{stopped_s:g}")
        self.run(command)

    def run(self, command: str) -> str:
        if self._client is None:
            raise OSError("no connection")
        _stdin, out, _err = self._client.exec_command(command, timeout=paced(5))
        return out.read().decode(errors="replace")

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
