"""What the guest's kernel says of who keeps its clock: adjtimex(2) with modes 0, which changes nothing."""

from __future__ import annotations

import json

from lab.core.look import Discipline
from lab.errors import GuestError
from lab.guest.program import command
from lab.guest.ssh import SSH

# struct timex of Linux on x86-64 and other LP64 systems (include/uapi/linux/timex.h).
_PROGRAM = b"""
import ctypes, json, os, struct
b = ctypes.create_string_buffer(512)
state = ctypes.CDLL(None).adjtimex(b)
modes, offset, freq, maxerror, esterror, status = struct.unpack_from("@Illlli", b.raw)
tick = struct.unpack_from("@Illllillllll", b.raw)[-1]
names = []
for pid in os.listdir("/proc"):
    try:
        if pid.isdigit():
            names.append(open("/proc/%s/comm" % pid).read().strip())
    except OSError:
        pass
print(json.dumps([state, status, freq, tick, maxerror, names]))
"""
DAEMONS = ("chronyd", "ntpd", "systemd-timesyn", "phc2sys", "ptp4l", "openntpd")
"""Names in /proc/PID/comm, which the kernel cuts at 15 characters."""


def discipline(ssh: SSH) -> Discipline | None:
    """None when the guest cannot be asked (its Python has no ctypes). GuestError on a lost connection."""
    result = ssh.run(command(_PROGRAM), timeout_s=20)
    try:
        state, status, freq, tick, maxerror, names = json.loads(result.out)
        if state < 0:
            return None
        return Discipline(status, freq / 65536, tick, maxerror, tuple(n for n in DAEMONS if n in names))
    except (ValueError, TypeError) as error:
        if result.status:
            return None
        raise GuestError("adjtimex was answered with nonsense", where=f"guest {ssh.address.guest}") from error
