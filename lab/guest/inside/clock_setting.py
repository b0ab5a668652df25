"""How the host sets a guest's clock: the answers to its lines (clock_setter.py has them all), a part of
clock_setter and of golden_probe.
"""

import fcntl
import os
import struct
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


if hasattr(time, "clock_settime_ns"):
    settime = time.clock_settime_ns  # novm
else:

    def settime(clock: int, now: int) -> int:  # typeshed has the other one return an int
        step(Adjtimex(), now - gettime(clock))
        return 0


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


def answer(kernel: Adjtimex, asked: bytes, received: int) -> bytes:
    """The answer to a line. received: REALTIME on its receipt."""
    words = asked.split()
    what, number = words[0], words[1]
    try:
        if what == b"s":
            now = int(words[2])
            if received < now:
                settime(REAL, gettime(REAL) + now - received)  # not to `now`, which has passed meanwhile
            return b"S %s %d %d\n" % (number, received, gettime(REAL))
        if what == b"r":
            return b"R %s %d %d\n" % (number, received, gettime(REAL))
        if what == b"p":
            step(kernel, int(words[2]))
            return b"P %s %d\n" % (number, gettime(REAL))
        if what == b"c":
            settime(REAL, gettime(REAL))  # not a step of nothing
        if what == b"t":
            return b"T %s %d %d %d\n" % ((number,) + tick())
        if what == b"z":
            forget(kernel)
        return b"%s %s\n" % (what.upper(), number)
    except OSError as error:
        return b"E %s %s\n" % (number, str(error).encode())
