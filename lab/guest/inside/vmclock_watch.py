"""Watches vmclock's disruption marker, and has the guest's time daemon poll when it moves.

The command to run then is its arguments. It writes one line, and goes on in the background:

    R {json}        it watches: where to connect to, the marker, QEMU's flags, the period in ns
    N {json}        it cannot: why

Who connects sends one line, and gets an answer:

    report          D {json}: the disruptions since the last report, see Disruption
    stop            E, and it ends

QEMU's device has no clock for the guest (counter_id is invalid) and no notification, so the page is read
again and again. Times are of CLOCK_MONOTONIC_RAW, which stands still while the guest is saved or handed over:
what passes between the last reading of the old marker and the first of the new one is the guest's own time,
and an upper bound of the time since the resume.
"""

import mmap
import os
import select
import socket
import struct
import sys

from lab.guest.inside.background import enter_background, leave_parent
from lab.guest.inside.clocks import MS, RAW, REAL, S, gettime
from lab.guest.inside.host_streams import line_of
from lab.guest.inside.unix_socket import listen, receive_request, send_answer

DEVICE = "/dev/vmclock0"
HEAD = struct.Struct("<IIHBBIQQ")  # include/uapi/linux/vmclock-abi.h, struct vmclock_abi, up to flags
MAGIC = 0x4B4C4356  # "VCLK"
PERIOD_NS = 10 * MS
STEP_NS = MS  # a smaller move of REALTIME is no step
STEP_WAIT_NS = 20 * S
PATIENCE_S = 5.0


class MarkerPage:
    """The page that QEMU writes. seq_count is odd while it does, and differs afterwards."""

    def __init__(self) -> None:
        file = os.open(DEVICE, os.O_RDONLY)
        try:
            self.memory = mmap.mmap(file, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)
        finally:
            os.close(file)
        if self.read()[0] != MAGIC:
            raise ValueError("its page is none of vmclock's")

    def read(self) -> "tuple[int, ...]":
        while True:
            head = HEAD.unpack_from(self.memory)
            if head[5] % 2 == 0 and HEAD.unpack_from(self.memory)[5] == head[5]:
                return head

    def marker(self) -> int:
        return self.read()[6]


def run(command: "list[str]") -> int:
    """The command's exit status."""
    child = os.fork()
    if not child:
        try:
            os.execvp(command[0], command)  # noqa: S606 - a list, without a shell
        finally:
            os._exit(127)
    status = os.waitpid(child, 0)[1]
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)


def real_less_raw() -> "tuple[int, int]":
    """The bounds of REALTIME less RAW: whatever passed between the readings lies in them."""
    before = gettime(RAW)
    real = gettime(REAL)
    return real - gettime(RAW), real - before


class Disruption:
    """A move of the marker. last: when the old one was last read, the beginning of all times here."""

    def __init__(self, old: int, new: int, last: int) -> None:
        self.last = last
        self.bounds = real_less_raw()
        self.told = {"old": old, "new": new, "noticed_ns": gettime(RAW) - last}

    def repair(self, command: "list[str]") -> None:
        self.told["status"] = run(command)
        self.told["told_ns"] = gettime(RAW) - self.last

    @property
    def waits(self) -> bool:
        """Whether a step may still come."""
        return "stepped_ns" not in self.told and gettime(RAW) - self.last < STEP_WAIT_NS

    def look(self) -> None:
        low, high = real_less_raw()
        now = gettime(RAW)
        slewed = STEP_NS + (now - self.last) // 2000  # a slew of 500 ppm is no step
        if low - self.bounds[1] > slewed or high - self.bounds[0] < -slewed:
            self.told["stepped_ns"] = now - self.last
            self.told["step_ns"] = (low + high - self.bounds[0] - self.bounds[1]) // 2


def watch(page: MarkerPage, command: "list[str]", listener: socket.socket) -> None:
    marker, last = page.marker(), gettime(RAW)
    found = []  # type: list[Disruption]
    while True:
        waits = bool(found) and found[-1].waits
        if select.select([listener], [], [], (MS if waits else PERIOD_NS) / S)[0]:
            peer, asked = receive_request(listener, PATIENCE_S)
            if peer is not None:
                answer = b""
                if asked == b"report":
                    answer = line_of("D", {"found": [one.told for one in found]})
                    found = found[-1:] if waits else []
                elif asked == b"stop":
                    answer = b"E\n"
                send_answer(peer, answer)
                if asked == b"stop":
                    return
        if waits and found:
            found[-1].look()
        now = page.marker()
        if now != marker:
            found.append(Disruption(marker, now, last))
            found[-1].repair(command)
            marker = now
        last = gettime(RAW)


def main() -> None:
    try:
        page = MarkerPage()
    except (OSError, ValueError) as error:
        os.write(1, line_of("N", {"why": str(error)}))
        return
    parent = enter_background()
    try:
        os.nice(-19)
    except OSError:
        pass
    listener, path = listen()
    head = page.read()
    facts = {"path": path, "marker": head[6], "flags": head[7], "counter": head[3], "period_ns": PERIOD_NS}
    os.write(1, line_of("R", facts))
    leave_parent(parent)
    if path:
        watch(page, sys.argv[1:], listener)


if __name__ == "__main__":
    main()
