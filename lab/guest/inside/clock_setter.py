"""A guest's clock, read and stepped by the host.

Lines from the host, and what is answered. N is a number that the host chooses; times are nanoseconds of
CLOCK_REALTIME:

    r N     R N received before        the clock on receipt, and before the answer
    s N T   S N received before        the clock is set to T where it showed less on receipt
    p N BY  P N before                 the clock is stepped by BY
    c N     C N                        the clock is set to where it is, which wakes who watches for that
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

import os
import sys
import time
from _thread import start_new_thread

from lab.guest.inside.adjtimex import Adjtimex
from lab.guest.inside.clock_setting import answer
from lab.guest.inside.clocks import REAL, gettime
from lab.guest.inside.serial_channel import PUSH_PORT, device

PAUSE_S = 0.005  # while nobody is at the channel's other end, or another program has it


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
