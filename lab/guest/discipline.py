"""What keeps a guest's clock: the kernel's adjtimex(2) state, read with modes 0, and running time daemons."""

from __future__ import annotations

import json

from lab.core.drift_study import Discipline
from lab.errors import GuestError
from lab.guest import program
from lab.guest.ssh import SSH

DAEMONS = ("chronyd", "ntpd", "systemd-timesyn", "phc2sys", "ptp4l", "openntpd")
"""Daemons' names in /proc/PID/comm, which has at most 15 characters (proc(5))."""


def discipline(ssh: SSH) -> Discipline | None:
    """What keeps the guest's clock; None when its Python has no ctypes. GuestError on a lost connection."""
    result = ssh.run(program.start_command("time_keepers"), timeout_s=20)
    try:
        state, status, freq, tick, maxerror, names = json.loads(result.out)
        if state < 0:
            return None
        return Discipline(status, freq / 65536, tick, maxerror, tuple(n for n in DAEMONS if n in names))
    except (ValueError, TypeError) as error:
        if result.status:
            return None
        raise GuestError("adjtimex gave an invalid answer", where=f"guest {ssh.address.guest}") from error
