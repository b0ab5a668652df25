"""Checks guests' health with a command or URL of the user's inside each guest."""

from __future__ import annotations

import queue
import shlex
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

import paramiko

from lab.core.plan import Gate, GateKind
from lab.core.units import NS_PER_S
from lab.errors import FreezelabError, Interrupted
from lab.guest.ssh import SSH, Result
from lab.ports import Clock, Health

_LEAST_S = 0.05
_TIMED_OUT = (124, 137)
"""Exit statuses of timeout(1): the time is over; the program was killed."""

_BOUNDED = """\
(set -- {shell} {command}
command -v timeout >/dev/null && exec timeout -k 1 {seconds:.2f} "$@"
exec "$@")"""
_CURL = (
    "command -v curl >/dev/null || {{ echo 'there is no curl in the guest' >&2; exit 127; }}; "
    "curl -gsS -o /dev/null -w '%{{http_code}}' --max-time {seconds:.2f} --noproxy '*' --proto =http,https "
    "--url {url}"
)


class GuestDoctor:
    """ports.Doctor over SSH.

    probes: by guest's name, a function that returns its SSH connection, re-established if it was lost. It is
    called in the caller's thread, and may take as long as a new connection; everything else keeps the
    deadline. masks: by guest's name, what takes its secrets out of its texts.
    """

    def __init__(
        self,
        probes: Mapping[str, Callable[[], SSH]],
        clock: Clock,
        masks: Mapping[str, Callable[[str], str]] | None = None,
    ) -> None:
        self._probes, self._clock, self._masks = probes, clock, masks or {}

    def ask(self, guest: str, gate: Gate, deadline_raw_ns: int) -> Health:
        """See ports.Doctor. KeyError when there is no such guest."""
        health = self._asked(guest, gate, deadline_raw_ns)
        return replace(health, why=self._masks.get(guest, str)(health.why))

    def _asked(self, guest: str, gate: Gate, deadline_raw_ns: int) -> Health:
        connection = self._probes[guest]
        try:
            ssh = connection()
        except Interrupted:
            raise
        except FreezelabError as error:
            return Health(False, error.what)
        left_s = max(_LEAST_S, (deadline_raw_ns - self._clock.now().raw_ns) / NS_PER_S)
        if gate.kind is GateKind.HTTP:
            return _of_url(
                _within(ssh, _CURL.format(seconds=left_s, url=shlex.quote(gate.text)), left_s), left_s
            )
        # The command must not outlive its check, because checks are repeated.
        return _of_command(_within(ssh, bounded(gate.text, left_s), left_s), left_s)


def bounded(command: str, seconds: float, shell: str = "/bin/sh -c") -> str:
    """A command for the guest's shell that is ended after `seconds`, with status 124 or 137 of timeout(1).
    What the shell itself reports of the second one does not go where the command's errors are redirected."""
    return _BOUNDED.format(seconds=seconds, shell=shell, command=shlex.quote(command))


def _of_command(result: Result | str, left_s: float) -> Health:
    if isinstance(result, str):
        return Health(False, result)
    if result.status == 0:
        return Health(True)
    if result.status in _TIMED_OUT:
        return Health(False, f"not finished within {left_s:.1f} s")
    last = _last_line(result)
    return Health(False, f"exited with {result.status}{f': {last}' if last else ''}")


def _of_url(result: Result | str, left_s: float) -> Health:
    if isinstance(result, str):
        return Health(False, result)
    if result.status == 0:
        status = result.out.strip()
        return Health(status.startswith("2"), "" if status.startswith("2") else f"answered {status}")
    if result.status == 28:  # curl(1): time-out
        return Health(False, f"no answer within {left_s:.1f} s")
    return Health(False, _last_line(result).removeprefix(f"curl: ({result.status}) ") or "no answer")


def _last_line(result: Result) -> str:
    lines = [line.strip() for line in (result.err.strip() or result.out.strip()).splitlines()]
    return lines[-1] if lines else ""


def _within(ssh: SSH, command: str, left_s: float) -> Result | str:
    """The command's result, or why there is none. It runs in a thread, because a frozen guest keeps paramiko
    waiting in several places, in some of them for ever; the thread ends with the connection."""
    answers: queue.SimpleQueue[Result | str] = queue.SimpleQueue()

    def run() -> None:
        try:
            # A little longer than the guest's own time limit, whose error is more specific.
            answers.put(ssh.run(command, left_s + 1))
        except FreezelabError as error:
            answers.put("SSH is gone" if not ssh.alive else error.what)
        except (paramiko.SSHException, OSError, EOFError) as error:
            answers.put(f"SSH failed: {error}")

    threading.Thread(target=run, name=f"doctor-{ssh.address.guest}", daemon=True).start()
    try:
        return answers.get(timeout=left_s)
    except queue.Empty:
        return f"no answer within {left_s:.1f} s"
