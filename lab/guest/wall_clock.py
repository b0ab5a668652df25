"""Where KVM writes its wall clock into a guest's memory.

A guest registers a structure by its physical address, which it writes to an MSR (Linux,
Documentation/virt/kvm/x86/msr.rst, MSR_KVM_WALL_CLOCK_NEW), and KVM fills it in at once
(arch/x86/kvm/x86.c, kvm_write_wall_clock). A QEMU that loads a guest's state writes the MSR again, so this
page changes while the guest stands still.
"""

from __future__ import annotations

from lab.guest.ssh import SSH

PAGE = 4096
_MSR = 0x4B564D00
_READ = f"""modprobe -q msr
dd if=/dev/cpu/0/msr bs=8 count=1 iflag=skip_bytes skip={_MSR} 2>/dev/null | od -An -tu8"""


def wall_clock_page(ssh: SSH) -> int | None:
    """The number of the guest's page with KVM's wall clock; None when it has registered none, or its MSRs
    cannot be read."""
    found = ssh.run(_READ).out.strip()
    return int(found) // PAGE if found.isdigit() and int(found) else None
