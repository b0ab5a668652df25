"""Clocks of the host that a guest's kernel shows as a PTP device: ptp_kvm's and vmclock's."""

from __future__ import annotations

from lab.core.mechanism import PtpClock
from lab.errors import Refused
from lab.guest.ssh import SSH


def device(ssh: SSH, clock: PtpClock) -> str:
    """The path of the device. Refused, with the guest's own words, when it has none."""
    where = f"guest {ssh.address.guest}"
    loaded = ssh.run(f"modprobe {clock.module}")
    found = ssh.run(f"grep -l '^{clock.name}' /sys/class/ptp/*/clock_name").out.split()
    if found:
        return f"/dev/{found[0].split('/')[-2]}"
    if loaded.status != 0:
        why = (loaded.err.strip().splitlines() or ["no message"])[-1]
        raise Refused(f"no {clock.module} in this guest: {why}", where=where)
    raise Refused(f"{clock.module} has no device in this guest", where=where)
