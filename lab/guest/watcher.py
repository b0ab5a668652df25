"""A program in a guest that watches what its own programs say of its clock, and what else a pause does to it.

It outlives its SSH connection: it is asked over a socket of its own, for one answer at a time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import paramiko

from lab.core.claims import Claim
from lab.core.effects import Backward, Effects, RtcLook, Timers
from lab.core.mechanism import ResyncMechanism
from lab.errors import GuestError
from lab.guest import program
from lab.guest.ssh import SSH

START_S, ANSWER_S, STOP_S = 60.0, 30.0, 10.0
_TRIES = 3


def asked(mechanism: ResyncMechanism) -> str:
    """Which programs the guest is asked through, beside adjtimex(2). timedatectl's "synchronized" is made of
    adjtimex's maximum error; to ask it starts D-Bus and two services, so it is done only where a daemon
    claims something, and seldom."""
    names = []
    if mechanism.is_chrony:
        names.append("chronyc")
    if mechanism is ResyncMechanism.TIMESYNCD:
        names.append("timesync")
    if mechanism is ResyncMechanism.NTPD:
        names.append("ntpq")
    if mechanism.is_daemon:
        names.append("timedatectl")
    return ",".join(names)


class GuestWatcher:
    """ports.Watcher over SSH. A context manager.

    ssh: the connection to use, had again when it was lost (GuestProbe.ssh); it is not closed here.
    mechanism: whose programs are asked. effects: watch for what else a pause does. load: share of each vCPU
    that is kept busy from start_cycle until effects() is asked. vcpus: how many the guest has.
    """

    def __init__(
        self,
        guest: str,
        ssh: Callable[[], SSH],
        mechanism: ResyncMechanism,
        effects: bool,
        load: float,
        vcpus: int,
    ) -> None:
        self.guest, self._ssh = guest, ssh
        self._arguments = (asked(mechanism), str(int(effects)), str(load), str(vcpus))
        self._watches_effects = effects
        self._path = ""

    def __enter__(self) -> GuestWatcher:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it and all that it has started. Nothing happens when it, or its guest, is gone already."""
        if self._path:
            with suppress(GuestError):
                self._ask("stop", "X", STOP_S)
        self._path = ""

    def start_cycle(self) -> None:
        if self._ask("cycle", "C") is None:  # gone, with the guest that was rebooted
            self._start()
            self._ask("cycle", "C")

    def claims(self) -> Sequence[Claim]:
        said = self._ask("claims", "W") or {}
        found = [Claim(source, *_claimed(row)) for source, rows in said.items() for row in rows]
        return sorted(found, key=lambda claim: claim.from_raw_ns)

    def effects(self) -> Effects | None:
        said = self._ask("effects", "E")
        return _effects(said) if said and self._watches_effects else None

    def _start(self) -> None:
        """GuestError when it cannot be started."""
        ssh = self._ssh()
        said = ssh.check(program.start_command("pause_watcher", *self._arguments), START_S)
        path = json.loads(said[2:])["path"] if said.startswith("R ") else ""
        if not path:
            raise GuestError(
                f"the watcher does not start: {said.strip() or 'no answer'}", where=f"guest {self.guest}"
            )
        self._path = path

    def _ask(self, what: str, letter: str, timeout_s: float = ANSWER_S) -> dict[str, Any] | None:
        """Its answer; None when it is gone. Asked again when the connection is lost meanwhile."""
        where = f"guest {self.guest}"
        for tries_left in reversed(range(_TRIES)):
            channel = self._ssh().socket(self._path, timeout_s) if self._path else None
            if channel is None:
                return None
            try:
                return _converse(channel, what, letter, timeout_s)
            except TimeoutError:
                raise GuestError(
                    f"the watcher did not answer within {timeout_s:.0f} s", where=where
                ) from None
            except (OSError, EOFError, paramiko.SSHException) as error:
                if not tries_left:
                    raise GuestError("the watcher's connection was lost", where=where) from error
            finally:
                with suppress(OSError, EOFError):
                    channel.close()
        return None


def _converse(channel: paramiko.Channel, what: str, letter: str, timeout_s: float) -> dict[str, Any] | None:
    deadline = time.monotonic() + timeout_s
    channel.sendall(what.encode() + b"\n")
    said = bytearray()
    while not said.endswith(b"\n"):
        channel.settimeout(max(0.01, deadline - time.monotonic()))
        data = channel.recv(65536)
        if not data:
            raise EOFError
        said += data
    if not said.startswith(letter.encode() + b" "):
        raise EOFError
    answer: dict[str, Any] | None = json.loads(said[2:])
    return answer if answer is not None else {}


def _claimed(row: list[Any]) -> tuple[int, int, bool | None, int | None, str, tuple[int, int]]:
    begun, ended, low, high, synced, bound, text = row
    return begun, ended, synced, bound, text, (low, high)


def _effects(said: dict[str, Any]) -> Effects:
    timers = (
        Timers(**{**kind, "buckets": tuple((edge, count) for edge, count in kind["buckets"])})
        for kind in said["timers"]
    )
    return Effects(
        tuple(timers),
        tuple(Backward(*row) for row in said["backward"]),
        tuple(RtcLook(*row) for row in said["rtc"]),
        said["boot_minus_mono_ns"],
    )
