"""A guest's clock, read and stepped by the host.

Lines from the host, and what is answered (numbers are nanoseconds of the guest's CLOCK_REALTIME):

    r N     R N received before        the clock on receipt, and before the answer
    p N     P                          the clock is stepped by N
    t       T seconds before after     the RTC's second that just began, and the clock around its beginning
    z       Z                          the kernel's corrections are forgotten: frequency, tick, slew, status
            H pid version              first line of all

It ends with its standard input.
"""

import fcntl
import os
import struct
import sys
import time

from lab.guest.inside.adjtimex import (
    ADJ_ESTERROR,
    ADJ_FREQUENCY,
    ADJ_MAXERROR,
    ADJ_NANO,
    ADJ_SETOFFSET,
    ADJ_STATUS,
    ADJ_TICK,
    STA_UNSYNC,
    Adjtimex,
)
from lab.guest.inside.clocks import REAL, S, gettime

USUAL_TICK_US = 10000
UNKNOWN_US = 16000000  # the kernel's NTP_PHASE_LIMIT


def step(kernel: Adjtimex, by: int) -> None:
    """Move CLOCK_REALTIME by so many nanoseconds, in one system call: nothing is lost in between."""
    kernel.adjust(modes=ADJ_SETOFFSET | ADJ_NANO, seconds=by // S, nanoseconds=by % S)


def forget(kernel: Adjtimex) -> None:
    """As after boot. A step of nothing clears what is still to be slewed (the kernel's ntp_clear)."""
    step(kernel, 0)
    kernel.adjust(
        modes=ADJ_FREQUENCY | ADJ_MAXERROR | ADJ_ESTERROR | ADJ_STATUS | ADJ_TICK,
        maxerror=UNKNOWN_US,
        esterror=UNKNOWN_US,
        status=STA_UNSYNC,
        tick=USUAL_TICK_US,
    )


RTC_RD_TIME = 0x80247009  # rtc(4), linux/rtc.h: _IOR('p', 9, struct rtc_time), nine ints


def rtc_second(rtc: int) -> int:
    """What the RTC shows, in seconds since the epoch; it runs on UTC."""
    shown = fcntl.ioctl(rtc, RTC_RD_TIME, bytes(36))
    second, minute, hour, day, month, year = struct.unpack_from("6i", shown)
    # Days from 1970-01-01, with years that begin in March. (calendar.timegm takes Python 0.2 s to import.)
    year, month = divmod(12 * (1900 + year) + month - 2, 12)
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 719469
    return int(((days * 24 + hour) * 60 + minute) * 60 + second)


def tick() -> "tuple[int, int, int]":
    """The RTC's next second, and REALTIME before it was seen not to have begun, and after it was seen to
    have."""
    rtc = os.open("/dev/rtc0", os.O_RDONLY)
    try:
        last = gettime(REAL)
        first = rtc_second(rtc)
        while True:
            before = gettime(REAL)
            now = rtc_second(rtc)
            if now != first:
                return now, last, gettime(REAL)
            last = before
            time.sleep(0.001)
    finally:
        os.close(rtc)


def main() -> None:
    try:
        os.nice(-19)
    except OSError:
        pass
    kernel = Adjtimex()
    os.write(1, b"H %d %d.%d.%d\n" % ((os.getpid(),) + sys.version_info[:3]))
    waiting = b""
    while True:
        data = os.read(0, 4096)
        received = gettime(REAL)
        if not data:
            return
        waiting += data
        while b"\n" in waiting:
            asked, waiting = waiting.split(b"\n", 1)
            what = asked[:1]
            try:
                if what == b"r":
                    os.write(1, b"R %s %d %d\n" % (asked[2:], received, gettime(REAL)))
                elif what == b"p":
                    step(kernel, int(asked[2:]))
                    os.write(1, b"P\n")
                elif what == b"t":
                    os.write(1, b"T %d %d %d\n" % tick())
                elif what == b"z":
                    forget(kernel)
                    os.write(1, b"Z\n")
            except OSError as error:
                os.write(1, b"E %s\n" % str(error).encode())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
