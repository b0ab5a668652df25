"""What a pause does to a guest besides its clock: the parts of the watcher that run as processes of their
own.

Each is given one end of a socket pair: when that becomes readable it writes its report, as JSON, and ends.
So they end with who started them as well.
"""

import json
import os
import select
import socket
import struct
import threading
import time

from lab.guest.inside.asker import Asker, look
from lab.guest.inside.clocks import BOOT, MONO, MS, RAW, REAL, S, gettime

EDGES_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 30000, 60000, 3600000)
PERIODS_MS = (300, 500, 800, 1100, 1500, 1900)  # of the timers of each kind: some 9 a second
AT_ONCE_NS = 10 * MS
AFTER_NS = 100 * MS  # after the largest hole
TFD_NONBLOCK, TFD_CLOEXEC, TFD_TIMER_ABSTIME = 0o4000, 0o2000000, 1
BURST_NS = 250 * MS
LAPS = 2
OWN_LOOKS = 4
STEP_NS = 1 * MS
HAND = struct.Struct("=4q")  # MONOTONIC_RAW, MONOTONIC, REALTIME, whose they are
BUSY_NS = 20 * MS
RTC_NS = 2 * S
RTC_SLOW_NS, RTC_FAST_NS, RTC_EARLY_NS = 20 * MS, 3 * MS, 12 * MS
RTC = "/sys/class/rtc/rtc0/since_epoch"


class TimerKind:
    """The timers of one kind."""

    def __init__(self, name: str) -> None:
        self.name, self.timers, self.count, self.worst, self.early = name, 0, 0, 0, 0
        self.buckets = [0] * len(EDGES_MS)
        self.after = []  # type: list[int]

    def fired(self, late: int) -> None:
        self.count += 1
        self.early += late < 0
        self.worst = max(self.worst, late)
        for number, edge in enumerate(EDGES_MS):
            if late <= edge * MS or number == len(EDGES_MS) - 1:
                self.buckets[number] += 1
                return

    def at_once(self) -> int:
        """The most of `after` within AT_ONCE_NS."""
        return max((sum(0 <= b - a <= AT_ONCE_NS for b in self.after) for a in self.after), default=0)

    def report(self) -> "dict[str, object]":
        return {
            "kind": self.name,
            "timers": self.timers,
            "count": self.count,
            "buckets": [[edge * MS, n] for edge, n in zip(EDGES_MS, self.buckets)],
            "worst_ns": self.worst,
            "at_once": self.at_once(),
            "early": self.early,
        }


class TimerSet:
    """Timers of several kinds with spread periods. All are absolute on their own clock, and armed again from
    when they were due; one that is late by more than its period leaves out what it missed.

    The realtime ones are set without TFD_TIMER_CANCEL_ON_SET: when somebody sets the clock forward they fire
    late by their own clock, as cron's jobs would."""

    def __init__(self) -> None:
        self.kinds = []  # type: list[TimerKind]
        self.lock = threading.Lock()
        self.last = gettime(RAW)
        self.hole = self.hole_end = 0

    def fired(self, kind: TimerKind, late: int, raw: int) -> None:
        with self.lock:
            if raw - self.last > self.hole:
                self.hole, self.hole_end = raw - self.last, raw
                for each in self.kinds:
                    each.after = []
            self.last = max(self.last, raw)
            if raw - self.hole_end <= AFTER_NS:
                kind.after.append(raw)
            kind.fired(late)

    def files(self) -> "dict[int, tuple[TimerKind, int, int, list[int]]]":
        """The timerfds by number: kind, clock, period, and when it is due. None without ctypes."""
        try:
            import ctypes

            libc = ctypes.CDLL(None, use_errno=True)
            create, settime = libc.timerfd_create, libc.timerfd_settime
        except (ImportError, OSError, AttributeError):
            return {}

        def arm(file: int, due: int) -> None:
            wanted = (ctypes.c_long * 4)(0, 0, due // S, due % S)
            settime(file, TFD_TIMER_ABSTIME, wanted, None)

        self.arm = arm
        found = {}
        for name, clock in ("monotonic", MONO), ("realtime", REAL), ("boottime", BOOT):
            kind = TimerKind("timerfd " + name)
            self.kinds.append(kind)
            for period in PERIODS_MS:
                file = create(clock, TFD_NONBLOCK | TFD_CLOEXEC)
                if file < 0:
                    continue
                due = gettime(clock) + period * MS
                kind.timers += 1
                found[file] = (kind, clock, period * MS, [due])
                arm(file, due)
        return found

    def sleep(self, kind: TimerKind, period: int) -> None:
        """A thread that sleeps and nothing else."""
        while True:
            due = gettime(MONO) + period
            time.sleep(period / 1e9)
            self.fired(kind, gettime(MONO) - due, gettime(RAW))

    def work(self, control: socket.socket) -> None:
        files = self.files()
        sleepers = TimerKind("sleep")
        self.kinds.append(sleepers)
        for period in PERIODS_MS:
            sleepers.timers += 1
            threading.Thread(target=self.sleep, args=(sleepers, period * MS), daemon=True).start()
        poll = select.epoll()
        for file in (control.fileno(), *files):
            poll.register(file, select.EPOLLIN)
        while True:
            ready = poll.poll()
            now = {MONO: gettime(MONO), REAL: gettime(REAL), BOOT: gettime(BOOT)}
            raw = gettime(RAW)
            for file, _ in ready:
                if file == control.fileno():
                    with self.lock:
                        report(control, [kind.report() for kind in self.kinds if kind.timers])
                    os._exit(0)  # the sleepers sleep on
                kind, clock, period, due = files[file]
                try:
                    os.read(file, 8)
                except OSError:
                    continue
                self.fired(kind, now[clock] - due[0], raw)
                due[0] += period * max(1, 1 + (now[clock] - due[0]) // period)
                self.arm(file, due[0])


class Tally:
    """Looks at clocks that have an order, of one pair of vCPUs."""

    CLOCKS = ("monotonic raw", "monotonic", "realtime")

    def __init__(self) -> None:
        self.looks = 0
        self.backward = [0, 0, 0]
        self.worst = [0, 0, 0]

    def compare(self, one: "tuple[int, ...]", two: "tuple[int, ...]") -> None:
        """`two` was read after `one`. REALTIME may be stepped by whoever keeps the time, which moves it
        against MONOTONIC_RAW as well; by less than STEP_NS is no step."""
        self.looks += 1
        for number in range(3):
            back = one[number] - two[number]
            if back > 0 and (number < 2 or abs((two[2] - two[0]) - (one[2] - one[0])) < STEP_NS):
                self.backward[number] += 1
                self.worst[number] = max(self.worst[number], back)


def clocks() -> "tuple[int, int, int]":
    return gettime(RAW), gettime(MONO), gettime(REAL)


def hand_on(control: socket.socket, own: int, first: bool, here: int, there: int) -> None:
    """One vCPU's part of the ring: take the clocks' values from the one before, compare, look some more, and
    hand on. A value that was written to a pipe is older than one read after it was taken out of it.
    first: it starts a burst of LAPS every BURST_NS."""
    tallies = {}  # type: dict[int, Tally]
    next_burst, laps = gettime(RAW), 0
    while True:
        wait = max(0, next_burst - gettime(RAW)) / 1e9 if first else None
        ready = select.select([control.fileno(), here], [], [], wait)[0]
        now = clocks()
        if control.fileno() in ready:
            found = []
            for other, tally in tallies.items():
                for number, clock in enumerate(Tally.CLOCKS):
                    row = [clock, other, own, tally.looks, tally.backward[number], tally.worst[number]]
                    found.append(row)
            report(control, found)
            return
        if here in ready:
            raw, mono, real, whose = HAND.unpack(os.read(here, HAND.size))
            if whose != own:
                tallies.setdefault(whose, Tally()).compare((raw, mono, real), now)
            if first:
                laps -= 1
                if laps <= 0:
                    continue
        elif not first or gettime(RAW) < next_burst:
            continue
        else:
            next_burst = gettime(RAW) + BURST_NS
            laps = LAPS
        mine = tallies.setdefault(own, Tally())
        for _ in range(OWN_LOOKS):
            later = clocks()
            mine.compare(now, later)
            now = later
        os.write(there, HAND.pack(*(now + (own,))))


def burn(control: socket.socket, share: float) -> None:
    """Keep a vCPU busy for this share of its time."""
    if share <= 0:
        return
    work, rest = int(BUSY_NS * share), BUSY_NS * (1 - share) / 1e9
    while True:
        until = gettime(MONO) + work
        while gettime(MONO) < until:
            for _ in range(2000):
                pass
        if select.select([control], [], [], rest)[0]:
            report(control, [])
            return


class Rtc(Asker):
    """Looks at the RTC's seconds as they change. Through sysfs: /dev/rtc0 can be open once only, and hwclock
    would be refused while we look.

    It asks in short intervals until the second changes; from then on it knows when the next one will. The
    change is somewhere between two looks, so the bound is half of that."""

    def __init__(self, now: int) -> None:
        Asker.__init__(self, now)
        self.looks = []  # type: list[list[int]]
        self.edge = 0
        self.tries = 0
        self.before = None  # type: tuple[int, tuple[int, int, int, int]] | None

    def act(self, now: int) -> None:
        begun = look()
        try:
            with open(RTC) as file:
                seconds = int(file.read())
        except (OSError, ValueError):
            self.next = now + 60 * S
            return
        ended, before = look(), self.before
        self.before = (seconds, begun)
        self.tries += 1
        if before is None or seconds == before[0]:
            fast = self.edge and self.tries * RTC_FAST_NS < 4 * RTC_EARLY_NS
            self.next = ended[1] + (RTC_FAST_NS if fast else RTC_SLOW_NS)
            return
        low, high = min(before[1][2], ended[2]), max(before[1][3], ended[3])
        if seconds == before[0] + 1 and high - low < STEP_NS:
            least, most = before[1][0] + low, ended[1] + high  # REALTIME at the change
            middle = (least + most) // 2
            self.looks.append([ended[1], seconds * S - middle, most - middle])
            self.edge = ended[1]
        self.before, self.tries = None, 0
        self.next = (self.edge or ended[1]) + RTC_NS - RTC_EARLY_NS


def boot_minus_mono() -> int:
    """CLOCK_BOOTTIME less CLOCK_MONOTONIC, from the closest of some looks."""
    best = None  # type: tuple[int, int] | None
    for _ in range(5):
        one, boot, two = gettime(MONO), gettime(BOOT), gettime(MONO)
        if best is None or two - one < best[0]:
            best = (two - one, boot - (one + two) // 2)
    return best[1] if best else 0


def report(
    control: socket.socket, data: "list[object] | list[dict[str, object]] | list[list[object]]"
) -> None:
    try:
        control.sendall(json.dumps(data).encode())
    except OSError:
        pass
