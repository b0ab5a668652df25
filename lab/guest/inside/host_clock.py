"""The host's REALTIME, read in the guest: a part of the probe.

ptp_kvm asks the hypervisor for it (KVM_HC_CLOCK_PAIRING). Its cross-timestamp (PTP_SYS_OFFSET_PRECISE) has
the guest's MONOTONIC_RAW at the very reading of the TSC that the host's time was computed from. Linux 6.1
refuses it when another clocksource than kvm-clock is in use; then the clock is read between two readings of
MONOTONIC_RAW.
"""

import fcntl
import os
import struct

from lab.guest.inside.clocks import RAW, S, gettime
from lab.guest.inside.files import text_of

CLOCKS = "/sys/class/ptp"
PTP_KVM = "KVM virtual PTP"
# include/uapi/linux/ptp_clock.h, struct ptp_sys_offset_precise: device, REALTIME, MONOTONIC_RAW
PRECISE = 0xC0403D08
OFFSETS = struct.Struct("=qI4xqI4xqI4x16x")


class HostRealtime:
    def __init__(self) -> None:
        self.file = -1

    def look(self) -> None:
        """Open the device, where there is one and this is root."""
        if self.file >= 0 or not os.path.isdir(CLOCKS):
            return
        for name in os.listdir(CLOCKS):
            if text_of("%s/%s/clock_name" % (CLOCKS, name)) == PTP_KVM:
                try:
                    self.file = os.open("/dev/" + name, os.O_RDONLY)
                except OSError:
                    pass

    def words(self) -> bytes:
        """The words x HOST LEAST MOST: its REALTIME, and the bounds of the guest's MONOTONIC_RAW at that
        instant; b"" when it cannot be read."""
        if self.file < 0:
            return b""
        try:
            data = fcntl.ioctl(self.file, PRECISE, bytes(OFFSETS.size))
            seconds, rest, _, _, raw_seconds, raw_rest = OFFSETS.unpack(data)
            raw = raw_seconds * S + raw_rest
            return b" x %d %d %d" % (seconds * S + rest, raw, raw)
        except OSError:
            pass
        try:
            before = gettime(RAW)
            host = gettime((~self.file << 3) | 3)  # include/linux/posix-timers.h, FD_TO_CLOCKID
            return b" x %d %d %d" % (host, before, gettime(RAW))
        except OSError:
            return b""
