"""Who has the lab host's kernel: the run that replaces it, or what a killed one left in the lab host.

The run holds the lock of HOME/labhost.lock while it lives. The file's text, "RUN UUID", says that the run has
a guest in the lab host with that UUID; it is empty when nothing is left.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from lab.errors import GuestError, HypervisorError, Refused
from lab.hypervisor.domain_status import ENDED
from lab.hypervisor.qmp import MonitorError, QmpSocket
from lab.session import kept_guest_access, kept_guests
from lab.session.kept_guests import KeptGuest
from lab.session.lab_host_code import WITH_CODE
from lab.session.lab_host_shell import LabHostShell

LOCK = "labhost.lock"

ADDRESS = "10.0.2.16"
"""The guest's address on QEMU's user-mode network, beside the lab host's."""

KEEPER = f"{WITH_CODE} python3 -m lab.hypervisor.kexec.keeper"

_STOP_S, _MONITOR_S = 180.0, 10.0
_FORWARD = re.compile(rf"HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+{re.escape(ADDRESS)}\s+22\b")


class KernelLock:
    """The lock, while it is held. file: it, open for reading and appending."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def left(self) -> tuple[str, str] | None:
        """The run that has left a guest, and the UUID of the lab host that has it."""
        self._file.seek(0)
        words = self._file.read().split()
        return (words[0], words[1]) if len(words) == 2 else None

    def note(self, run_id: str, lab_host: KeptGuest) -> None:
        """From now on the run has a guest in the lab host."""
        self.clear()
        self._file.write(f"{run_id} {lab_host.uuid}")
        self._file.flush()

    def clear(self) -> None:
        """Nothing is left."""
        self._file.truncate(0)


@contextmanager
def alone(home: Path) -> Iterator[KernelLock]:
    """Keep other runs from the lab host's kernel. Refused when one has it."""
    with (home / LOCK).open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            what = "another run replaces its kernel"
            raise Refused(what, where="lab host", hint="wait for its end") from None
        yield KernelLock(file)


def remove_left(home: Path) -> Iterator[str]:
    """Remove the guest that a killed run has left in the lab host, and its port here; a line when there was
    one. HypervisorError when the lab host does not do it."""
    if not (home / LOCK).exists():
        return
    try:
        with alone(home) as lock:
            if (left := lock.left()) is None:
                return
            run_id, uuid = left
            guest = next((one for one in kept_guests.read_all(home) if one.uuid == uuid), None)
            if guest is not None and kept_guests.state(home, guest) not in ENDED:
                _remove(guest)
                yield f"removed the guest of run {run_id} in the lab host"
            lock.clear()
    except Refused:
        return  # its run is alive


def _remove(lab_host: KeptGuest) -> None:
    shell = LabHostShell(kept_guest_access.login(lab_host, []), lab_host.accelerator)
    try:
        shell.run(f"{KEEPER} stop", _STOP_S)
        close_ports(lab_host)
    except (GuestError, HypervisorError) as error:
        what = f"a killed run's guest was not removed: {error.what}"
        raise HypervisorError(what, where="lab host", hint="try again, or: freezelab labhost down") from error


def monitor_of(lab_host: KeptGuest) -> QmpSocket:
    """A connection to the lab host's QEMU, which has one at a time. HypervisorError without one."""
    try:
        return QmpSocket(lab_host.sockets[4])
    except MonitorError as error:
        raise HypervisorError(str(error), where="lab host") from error


def ask_monitor(lab_host: KeptGuest, line: str) -> str:
    """The answer to a command of QEMU's human monitor. HypervisorError without one."""
    asked = {"command-line": line}
    try:
        with monitor_of(lab_host) as monitor:
            return str(monitor.execute("human-monitor-command", _MONITOR_S, **asked)).strip()
    except MonitorError as error:
        raise HypervisorError(str(error), where="lab host") from error


def close_ports(lab_host: KeptGuest) -> None:
    """Close the ports of this machine's loopback that lead to a guest in the lab host."""
    for port in _FORWARD.findall(ask_monitor(lab_host, "info usernet")):
        ask_monitor(lab_host, f"hostfwd_remove lab0 tcp:127.0.0.1:{port}")
