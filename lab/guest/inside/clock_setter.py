"""A guest's clock, read and stepped by the host.

Lines from the host, and what is answered. N is a number that the host chooses; times are nanoseconds of
CLOCK_REALTIME:

    r N     R N received before        the clock on receipt, and before the answer
    s N T   S N received before        the clock is set to T where it showed less on receipt
    p N BY  P N before                 the clock is stepped by BY
    t N     T N seconds before after   the RTC's second that just began, and the clock around its beginning
    z N     Z N                        the kernel's corrections are forgotten: frequency, tick, slew, status
    q N     Q N                        end
            E N message                instead of an answer: it failed
            H pid version              first line of all, on standard output

They come over standard input and, where the guest has it, over a virtio-serial channel of their own, in a
thread that waits for nothing else. It ends with its standard input.

In `s`, T is what the host's clock showed before it sent the line. So whenever the line is read, the host's
clock shows T or later: a clock that shows less is behind, and one that is set to T is not ahead. That is
done by clock_settime(2), because it is nearer to Python than adjtimex(2): when an emulator has just been
started and has translated nothing yet, each line of C and Python on the way costs (docs/design.md).
"""

import fcntl
import os
import struct
import sys
import time
from _thread import start_new_thread

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
from lab.guest.inside.serial_channel import PUSH_PORT, device

USUAL_TICK_US = 10000
UNKNOWN_US = 16000000  # the kernel's NTP_PHASE_LIMIT
PAUSE_S = 0.005  # while nobody is at the channel's other end, or another program has it


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
                settime(REAL, now)
            return b"S %s %d %d\n" % (number, received, gettime(REAL))
        if what == b"r":
            return b"R %s %d %d\n" % (number, received, gettime(REAL))
        if what == b"p":
            step(kernel, int(words[2]))
            return b"P %s %d\n" % (number, gettime(REAL))
        if what == b"t":
            return b"T %s %d %d %d\n" % ((number,) + tick())
        if what == b"z":
            forget(kernel)
        return b"%s %s\n" % (what.upper(), number)
    except OSError as error:
        return b"E %s %s\n" % (number, str(error).encode())


def serve(kernel: Adjtimex, source: int, target: int) -> None:
    """Answer lines from `source` until it ends."""
    waiting = b""
    while True:
        try:
            data = os.read(source, 4096)
        except OSError:
            return
        received = gettime(REAL)
        if not data:
            return
        lines = (waiting + data).split(b"\n")
        waiting = lines.pop()
        for asked in lines:
            os.write(target, answer(kernel, asked, received))
            if asked[:1] == b"q":
                os._exit(0)


def serve_channel(kernel: Adjtimex, path: str) -> None:
    """Answer lines from the virtio-serial channel, for ever. A read from it ends at once while nobody is at
    the other end."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # of this thread: 0 is the caller
    except OSError:
        pass
    file = -1
    while True:
        try:
            if file < 0:
                file = os.open(path, os.O_RDWR)
            serve(kernel, file, file)
        except OSError:  # another program has it, or the host has gone while it was answered
            pass
        time.sleep(PAUSE_S)


def main() -> None:
    try:
        os.nice(-19)
    except OSError:
        pass
    kernel = Adjtimex()
    os.write(1, b"H %d %d.%d.%d\n" % ((os.getpid(),) + sys.version_info[:3]))
    path = device(PUSH_PORT)
    if path:
        start_new_thread(serve_channel, (kernel, path))
    serve(kernel, 0, 1)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
