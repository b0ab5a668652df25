"""Who keeps a guest's clock, as its kernel knows: adjtimex(2) with modes 0, which changes nothing."""

from __future__ import annotations

import json

from lab.core.drift_study import Discipline
from lab.errors import GuestError
from lab.guest import program
from lab.guest.ssh import SSH

DAEMONS = ("chronyd", "ntpd", "systemd-timesyn", "phc2sys", "ptp4l", "openntpd")
"""Names in /proc/PID/comm, which the kernel cuts at 15 characters."""


def discipline(ssh: SSH) -> Discipline | None:
    """None when the guest cannot be asked (its Python has no ctypes). GuestError on a lost connection."""
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
