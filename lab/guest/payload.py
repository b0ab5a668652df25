"""The probe's inside: runs in the guest, on any Linux with Python 3.6 or later.

This file is sent over SSH as text and is never imported by the lab. One process, one thread: a
thread of its own for the sampler would take turns with the one that answers readings, and each
would see the other as noise.

Lines from the host, and what is answered (numbers are nanoseconds of the guest's clocks):

    r N     R N raw real mono boot boot mono real raw     clocks on receipt, and before the answer
    c       C                                             forget samples, mark the kernel log's end
    s       S {json}                                      the sampler's record since c
    f       F {json}                                      boot id, clocksource, kernel log since c
    q                                                     end
            H {json}                                      first line of all
            B N raw                                       a heartbeat, by itself

The sampler looks at MONOTONIC_RAW and REALTIME every PERIOD_NS. It keeps the distances that are
larger than FLOOR_NS (holes), and the moments at which REALTIME moved against MONOTONIC_RAW.
"""

import errno
import gc
import json
import os
import re
import select
import sys
import time

PERIOD_NS = 4000000
FLOOR_NS = 2 * PERIOD_NS
BEAT_NS = 20000000
MOST_KEPT = 5000
STEP_FLOOR_NS = 500000
STEP_SHARE = 8  # of the distance: chrony slews by at most a twelfth (maxslewrate 83333 ppm)

READING = b"R %s %d %d %d %d %d %d %d %d\n"
CLOCK_BOOTTIME = 7  # time.CLOCK_BOOTTIME came with Python 3.7
TROUBLE = re.compile(
    r"soft lockup|hard LOCKUP|rcu.*(stall|kthread starved)|blocked for more than|clocksource|[Uu]nstable|TSC"
)

if hasattr(time, "clock_gettime_ns"):
    RESOLUTION_NS = 1
    gettime = time.clock_gettime_ns
else:
    RESOLUTION_NS = 512  # a double near 2e9 s is good to 2**-22 s

    def gettime(clock: int) -> int:
        return int(time.clock_gettime(clock) * 1e9)


REAL, MONO, RAW = time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_MONOTONIC_RAW


class Out:
    """Standard output without blocking: a heartbeat that does not fit is dropped, never waited for."""

    def __init__(self) -> None:
        os.set_blocking(1, False)
        self.pending = b""

    def push(self) -> None:
        try:
            self.pending = self.pending[os.write(1, self.pending) :]
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK):
                raise

    def answer(self, line: bytes) -> None:
        if self.pending:
            self.pending += line
            self.push()
            return
        try:
            written = os.write(1, line)  # mostly all of it: the shortest way out for a reading
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK):
                raise
            written = 0
        if written < len(line):
            self.pending = line[written:]

    def beat(self, line: bytes) -> None:
        if not self.pending:
            self.answer(line)


class Sampler:
    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.first = self.last = gettime(RAW)
        self.apart = gettime(REAL) - self.last
        self.count = 1
        self.recent = [0] * 512
        self.holes = []  # type: list[tuple[int, int]]
        self.steps = []  # type: list[tuple[int, int]]

    def look(self) -> int:
        raw = gettime(RAW)
        real = gettime(REAL)
        if gettime(RAW) - raw > STEP_FLOOR_NS // 2:  # interrupted in between: these two say nothing
            raw = gettime(RAW)
            real = gettime(REAL)
            if gettime(RAW) - raw > STEP_FLOOR_NS // 2:
                real = raw + self.apart
        distance = raw - self.last
        if distance > FLOOR_NS and len(self.holes) < MOST_KEPT:
            self.holes.append((self.last, raw))
        moved = real - raw - self.apart
        if abs(moved) > STEP_FLOOR_NS + distance // STEP_SHARE and len(self.steps) < MOST_KEPT:
            self.steps.append((raw, moved))
        self.apart += moved
        self.recent[self.count % 512] = distance
        self.count += 1
        self.last = raw
        return raw

    def report(self) -> "dict[str, object]":
        recent = sorted(self.recent[: min(self.count, 512)])
        return {
            "period_ns": PERIOD_NS,
            "floor_ns": FLOOR_NS,
            "count": self.count,
            "first_raw_ns": self.first,
            "last_raw_ns": self.last,
            "usual_ns": recent[len(recent) // 2],
            "holes": self.holes,
            "steps": self.steps,
        }


class Facts:
    def __init__(self) -> None:
        self.kmsg = None  # type: int | None
        try:
            self.kmsg = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
            self.clear()
        except OSError:
            pass

    def clear(self) -> None:
        if self.kmsg is not None:
            os.lseek(self.kmsg, 0, os.SEEK_END)

    def trouble(self) -> "list[str] | None":
        """New lines about trouble; None when the log cannot be read here."""
        if self.kmsg is None:
            return None
        lines = []  # type: list[str]
        while True:
            try:
                record = os.read(self.kmsg, 8192).decode("utf-8", "replace")
            except OSError as error:
                if error.errno == errno.EPIPE:  # overwritten while it was read: the next one is there
                    continue
                break
            text = record.split("\n", 1)[0].split(";", 1)[-1]
            if TROUBLE.search(text) and len(lines) < 50:
                lines.append(text)
        return lines

    def all(self) -> "dict[str, object]":
        def line(path: str) -> str:
            try:
                with open(path) as file:
                    return file.read().strip()
            except OSError:
                return ""

        return {
            "boot_id": line("/proc/sys/kernel/random/boot_id"),
            "clocksource": line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            "kernel": os.uname().release,
            "python": "%d.%d.%d" % sys.version_info[:3],
            "resolution_ns": RESOLUTION_NS,
            "kernel_lines": self.trouble(),
        }


def line_of(letter: str, data: "dict[str, object]") -> bytes:
    return ("%s %s\n" % (letter, json.dumps(data, separators=(",", ":")))).encode()


def main() -> None:
    gc.disable()
    try:
        # Not a real-time class: sshd would then wait until we sleep to send what we wrote.
        os.nice(-19)
    except OSError:
        pass
    out, sampler, facts = Out(), Sampler(), Facts()
    out.answer(line_of("H", facts.all()))
    facts.clear()
    beats, waiting = 0, b""
    next_look = next_beat = gettime(RAW)
    while True:
        wait = max(0, next_look - gettime(RAW)) / 1e9
        readable = select.select([0], [1] if out.pending else [], [], wait)[0]
        if readable:
            # The two that matter most come first here and last below: under TCG a look costs 50 µs.
            t2 = (gettime(RAW), gettime(REAL), gettime(MONO), gettime(CLOCK_BOOTTIME))
            data = os.read(0, 4096)
            if not data:
                return
            waiting += data
            while b"\n" in waiting:
                line, waiting = waiting.split(b"\n", 1)
                what = line[:1]
                if what == b"r":
                    t3 = (gettime(CLOCK_BOOTTIME), gettime(MONO), gettime(REAL), gettime(RAW))
                    out.answer(READING % ((line[2:],) + t2 + t3))
                elif what == b"c":
                    sampler.clear()
                    facts.clear()
                    out.answer(b"C\n")
                elif what == b"s":
                    sampler.look()
                    out.answer(line_of("S", sampler.report()))
                elif what == b"f":
                    out.answer(line_of("F", facts.all()))
                elif what == b"q":
                    return
        if out.pending:
            out.push()
        if gettime(RAW) >= next_look:
            now = sampler.look()
            next_look = now + PERIOD_NS
            if now >= next_beat:
                beats += 1
                next_beat = now + BEAT_NS
                out.beat(b"B %d %d\n" % (beats, now))


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        pass
