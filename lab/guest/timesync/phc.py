"""Clocks of the host that a guest's kernel shows as a PTP device: ptp_kvm's and vmclock's."""

from __future__ import annotations

from lab.core.mechanism import ResyncMechanism
from lab.errors import Refused
from lab.guest.ssh import SSH

CLOCKS = {
    ResyncMechanism.CHRONY_PHC: ("ptp_kvm", "KVM virtual PTP"),
    ResyncMechanism.VMCLOCK: ("ptp_vmclock", "vmclock"),
}
"""The module, and how its clock's name begins: Linux drivers/ptp/ptp_kvm_common.c and ptp_vmclock.c, the file
clock_name in sysfs."""


def device(ssh: SSH, mechanism: ResyncMechanism) -> str:
    """The path of the device. Refused, with the guest's own words, when it has none."""
    module, name = CLOCKS[mechanism]
    where = f"guest {ssh.address.guest}"
    loaded = ssh.run(f"modprobe {module}")
    found = ssh.run(f"grep -l '^{name}' /sys/class/ptp/*/clock_name").out.split()
    if found:
        return f"/dev/{found[0].split('/')[-2]}"
    if loaded.status != 0:
        why = (loaded.err.strip().splitlines() or ["no message"])[-1]
        raise Refused(f"no {module} in this guest: {why}", where=where)
    raise Refused(f"{module} has no device in this guest", where=where)
