"""The probe: answers readings of the clocks, samples them, and sends heartbeats. The programs plain_probe and
golden_probe begin it.

One process, one thread: a thread of its own for the sampler would take turns with the one that answers
readings, and each would see the other as noise.

Lines from the host, and what is answered (numbers are nanoseconds of the guest's clocks):

    r N     R N raw real mono boot boot mono real raw     clocks on receipt, and before the answer
                x host least most                         then, with ptp_kvm: the host's clock (host_clock.py)
            K N arrived least left most                   after an R that ends with " +": packet_stamps.py
    c       C                                             forget samples, mark the kernel log's end
    p       P                                             neither samples nor heartbeats until the next c
    s       S {json}                                      the sampler's record since c
    f       F {json}                                      boot id, clocksource, kernel log since c
    q                                                     end
            H {json}                                      first line of all
            A N                                           first line to a host that came back; beats so far
            B N raw                                       a heartbeat, by itself

All but q, K, H, A and B goes over the serial channel as well (serial_channel.py), where the guest has one.

The sampler looks at MONOTONIC_RAW and REALTIME every PERIOD_NS. It keeps the distances that are
larger than FLOOR_NS (holes), and the moments at which REALTIME moved against MONOTONIC_RAW.

A lost host. When standard input ends or a write fails, it goes on for STAY_NS without one, and listens on
a Unix socket. Whoever connects to it is the host from then on: sshd itself, for a channel of the kind
direct-streamlocal. So there is no relay, and nothing has to be started in the guest: Python takes 0.15 s
under TCG to start, bash 0.1 s.
"""

import errno
import gc
import os
import re
import select
import signal
import socket
import struct
import sys

from lab.guest.inside.clocks import BOOT, MONO, RAW, REAL, RESOLUTION_NS, gettime
from lab.guest.inside.files import text_of
from lab.guest.inside.host_clock import HostRealtime
from lab.guest.inside.host_streams import drop_streams, line_of
from lab.guest.inside.packet_stamps import Packets
from lab.guest.inside.serial_channel import SerialChannel
from lab.guest.inside.unix_socket import accept, listen

PERIOD_NS = 4000000
FLOOR_NS = 2 * PERIOD_NS
BEAT_NS = 20000000
REST_NS = 500000000
MOST_RECORDS = 5000
MOST_LINES = 50
STAY_NS = 120 * 1000000000
NEVER = 1 << 63
PACKET_NS = 50000000  # until an answer's packet is given up
STEP_FLOOR_NS = 500000
STEP_SHARE = 8  # of the distance: chrony slews by at most a twelfth (maxslewrate 83333 ppm)

READING = b"R %s %d %d %d %d %d %d %d %d%s%s\n"
# What is worth a look; lab/core/kernel_log.py has the kernel's own texts, and what they mean.
NOTABLE = re.compile(
    r"soft lockup|hard LOCKUP|workqueue lockup|rcu.*(stall|kthread (starved|timer wakeup))|"
    r"blocked.* for more than|clocksource|[Uu]nstable|TSC|NETDEV WATCHDOG|"
    r"BUG: |Oops: |general protection fault|Kernel panic"
)


def receipt() -> "tuple[int, ...]":
    """The clocks on the receipt of a line."""
    return gettime(RAW), gettime(REAL), gettime(MONO), gettime(BOOT)


class HostLost(Exception):
    """There is no host at the other end any more."""


class Output:
    """Standard output without blocking: a heartbeat that does not fit is dropped, never waited for."""

    def __init__(self) -> None:
        self.pending = b""

    def push(self) -> None:
        try:
            self.pending = self.pending[os.write(1, self.pending) :]
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK):
                raise HostLost() from error

    def answer(self, line: bytes) -> None:
        if self.pending:
            self.pending += line
            self.push()
            return
        try:
            written = os.write(1, line)  # mostly all of it: the shortest way out for a reading
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK):
                raise HostLost() from error
            written = 0
        if written < len(line):
            self.pending = line[written:]

    def beat(self, line: bytes) -> None:
        if not self.pending:
            self.answer(line)


class HostLink:
    """The host's end: standard input and output, and how another host may take them over."""

    def __init__(self) -> None:
        os.set_blocking(1, False)
        self.listener, self.path = listen()
        self.ear = self.listener.fileno()
        self.inputs = [0, self.ear] if self.path else [0]  # select tells them in this order
        self.forsaken = NEVER
        self.sshd = os.getppid()  # the shell that was its child has become us

    def read(self) -> bytes:
        try:
            data = os.read(0, 4096)
        except OSError as error:
            raise HostLost() from error
        if not data:
            raise HostLost()
        return data

    def lose(self) -> None:
        drop_streams()
        self.inputs = [self.ear] if self.path else []
        self.forsaken = gettime(RAW) + (STAY_NS if self.path else 0)

    def extend_stay(self) -> None:
        """There is a host, if not at this end."""
        if self.forsaken != NEVER:
            self.forsaken = gettime(RAW) + STAY_NS

    def taken_over(self) -> bool:
        """Whether whoever connected has become the host."""
        host = accept(self.listener)
        if host is None:
            return False
        self.sshd = struct.unpack("3i", host.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        self.lose()  # also when the old host seems to be there still
        os.dup2(host.fileno(), 0)
        os.dup2(host.fileno(), 1)
        host.close()
        self.inputs = [0, self.ear]
        self.forsaken = NEVER
        return True


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
        if distance > FLOOR_NS and len(self.holes) < MOST_RECORDS:
            self.holes.append((self.last, raw))
        moved = real - raw - self.apart
        if abs(moved) > STEP_FLOOR_NS + distance // STEP_SHARE and len(self.steps) < MOST_RECORDS:
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
            "step_floor_ns": STEP_FLOOR_NS,
            "step_share": STEP_SHARE,
            "most_kept": MOST_RECORDS,
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
        self.lines = []  # type: list[str]
        try:
            self.kmsg = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
            self.clear()
        except OSError:
            pass

    def clear(self) -> None:
        self.lines = []
        if self.kmsg is not None:
            os.lseek(self.kmsg, 0, os.SEEK_END)

    def notable(self) -> "list[str] | None":
        """Lines of the kernel log worth a look, since clear; None when the log cannot be read here."""
        if self.kmsg is None:
            return None
        while True:
            try:
                record = os.read(self.kmsg, 8192).decode("utf-8", "replace")
            except OSError as error:
                if error.errno == errno.EPIPE:  # overwritten while it was read: the next one is there
                    continue
                break
            text = record.split("\n", 1)[0].split(";", 1)[-1]
            if NOTABLE.search(text) and len(self.lines) < MOST_LINES:
                self.lines.append(text)
        return self.lines

    def rtc(self, seconds: str) -> "int | None":
        """The RTC's whole seconds less REALTIME; None without an RTC."""
        return int(seconds) * 1000000000 - gettime(REAL) if seconds.isdigit() else None

    def steal(self) -> "int | None":
        """The time that the hypervisor took from the CPUs, in hundredths of a second as the kernel has it."""
        words = text_of("/proc/stat").split("\n", 1)[0].split()
        return int(words[8]) * 10000000 if len(words) > 8 else None

    def all(self) -> "dict[str, object]":
        return {
            "boot_id": text_of("/proc/sys/kernel/random/boot_id"),
            "clocksource": text_of("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            "kernel": os.uname().release,
            "python": "%d.%d.%d" % sys.version_info[:3],
            "resolution_ns": RESOLUTION_NS,
            "kernel_lines": self.notable(),
            "steal_ns": self.steal(),
            "rtc_minus_real_ns": self.rtc(text_of("/sys/class/rtc/rtc0/since_epoch")),
        }


class ClockProbe:
    def __init__(self) -> None:
        self.line, self.out, self.sampler, self.facts = HostLink(), Output(), Sampler(), Facts()
        self.packets, self.serial, self.host = Packets(), SerialChannel(), HostRealtime()
        self.beats = 0
        self.resting, self.rest_ns = False, REST_NS
        self.next_look = gettime(RAW)

    def attached(self) -> None:
        """Another host has taken over."""

    def serve(self, asked: bytes, t2: "tuple[int, ...]", over: "Output | SerialChannel") -> None:
        """Answer one line. t2: the clocks on its receipt."""
        what = asked[:1]
        if what == b"r":
            follows = b""
            if over is self.out:
                self.packets.ask(asked[2:])
                follows = self.packets.follows
            host = self.host.words()
            t3 = (gettime(BOOT), gettime(MONO), gettime(REAL), gettime(RAW))
            over.answer(READING % ((asked[2:],) + t2 + t3 + (host, follows)))
        elif what == b"c":
            self.sampler.clear()
            self.facts.clear()
            self.host.look()
            self.resting = False
            self.next_look = gettime(RAW)
            over.answer(b"C\n")
        elif what == b"p":
            self.resting = True
            over.answer(b"P\n")
        elif what == b"s":
            self.sampler.look()
            over.answer(line_of("S", self.sampler.report()))
        elif what == b"f":
            over.answer(line_of("F", self.facts.all()))
        elif what == b"q" and over is self.out:
            raise SystemExit

    def run(self) -> None:
        line, out, packets, serial = self.line, self.out, self.packets, self.serial
        packets.watch(line.sshd)
        hello = self.facts.all()
        hello["path"] = line.path
        out.pending = line_of("H", hello)
        self.facts.clear()
        waiting = b""
        next_beat = self.next_look
        while True:
            try:
                inputs = line.inputs + serial.inputs
                if packets.wanted is not None:
                    inputs = inputs + [packets.number]
                wait = max(0, self.next_look - gettime(RAW)) / 1e9
                readable = select.select(inputs, [1] if out.pending else [], [], wait)[0]
                if readable:
                    # The two that matter most come first here and last in an answer.
                    t2 = receipt()
                if packets.wanted is not None:
                    out.answer(packets.stamps_line(PACKET_NS))
                for source in readable:
                    if source == 0:
                        waiting += line.read()
                        while b"\n" in waiting:
                            asked, waiting = waiting.split(b"\n", 1)
                            self.serve(asked, t2, out)
                            t2 = receipt()  # the next line may have come after the first one's
                    elif source == line.ear:
                        if line.taken_over():
                            out.pending = waiting = b""
                            packets.watch(line.sshd)
                            out.answer(b"A %d\n" % self.beats)
                            self.attached()
                            break
                    elif source == serial.file:
                        for asked in serial.lines():
                            self.serve(asked, t2, serial)
                            t2 = receipt()
                            line.extend_stay()
                if out.pending:
                    out.push()
                if gettime(RAW) >= self.next_look:
                    now = gettime(RAW) if self.resting else self.sampler.look()
                    packets.fetch()
                    self.next_look = now + (self.rest_ns if self.resting else PERIOD_NS)
                    if self.resting:
                        serial.look()
                    elif now >= next_beat:
                        self.beats += 1
                        next_beat = now + BEAT_NS
                        out.beat(b"B %d %d\n" % (self.beats, now))
                        serial.look()
                    if now >= line.forsaken:
                        return
            except HostLost:
                out.pending = waiting = b""
                packets.close()
                line.lose()


def run_probe(kind: "type[ClockProbe]") -> None:
    gc.disable()
    try:
        # Not a real-time class: sshd would then wait until we sleep to send what we wrote.
        os.nice(-19)
    except OSError:
        pass
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    kind().run()
