"""Dirties the guest's memory at a given rate, and counts how fast the guest works meanwhile.

It takes the bytes to dirty in a second and the size of the area that they are in as arguments, writes one
line, and goes on in the background:

    R {json}        ready: where to connect to
    N {json}        not done: what is available

Who connects sends one line, and gets one:

    cycle NS  C {}          forget, and work from now on, for at most this many nanoseconds of MONOTONIC_RAW
    counts    W {json}      what was counted since; it rests
    stop      X {}          and it ends

What it counts are short loops, all alike, with the CPU time that it was given for them: a vCPU that is kept
from running meanwhile is not noticed by the guest, so the loops take longer. It has the lowest priority, and
takes what the guest's own programs leave.
"""

import mmap
import os
import select
import socket
import sys
import threading
import time
from array import array

from lab.guest.inside.background import enter_background, leave_parent
from lab.guest.inside.clocks import MS, RAW, S, gettime
from lab.guest.inside.files import available
from lab.guest.inside.host_streams import line_of
from lab.guest.inside.unix_socket import listen, receive_request, send_answer

CPU = time.CLOCK_THREAD_CPUTIME_ID
PAGE = 4096
WORDS = PAGE // 8
CHUNK = 64  # pages that are written at once
LOOPS = 2000
WINDOW_NS = 20 * MS
BEHIND_NS = 100 * MS  # what it is behind by more than this is not made up for
MOST = 4000  # windows; then two become one
RESERVE = 48 << 20
STAY_NS = 3600 * S
PATIENCE_S = 5.0


class WorkThread(threading.Thread):
    """ended: the guest's MONOTONIC_RAW at the end of each window. units, cpu, pages: what was done in it, and
    the CPU time of the units. until: when it ends by itself, MONOTONIC_RAW."""

    def __init__(self, rate: int, area: mmap.mmap, until: int) -> None:
        threading.Thread.__init__(self, daemon=True)
        self.until = until
        self.rate, self.words = rate, memoryview(area).cast("Q")
        self.count = len(area) // PAGE
        self.going, self.window = True, WINDOW_NS
        self.ended, self.units, self.cpu, self.pages = array("q"), array("q"), array("q"), array("q")
        self.next = self.number = 0

    def dirty(self, pages: int) -> None:
        """Write one word of each of the next pages."""
        end = min(self.count, self.next + pages)
        self.number += 1
        value = memoryview(array("Q", [self.number]) * (end - self.next))
        self.words[self.next * WORDS : end * WORDS : WORDS] = value
        self.next = end % self.count

    def run(self) -> None:
        begun = owed_from = gettime(RAW)
        units = cpu = pages = done = 0
        while self.going:
            now = gettime(RAW)
            if now >= self.until:
                return
            owed = (now - owed_from) * self.rate // S // PAGE - done
            if owed * PAGE * S > self.rate * BEHIND_NS:
                owed_from, done, owed = now, 0, CHUNK
            if owed > 0:
                wrote = min(owed, CHUNK)
                self.dirty(wrote)
                pages, done = pages + wrote, done + wrote
            before = gettime(CPU)
            for _ in range(LOOPS):
                pass
            cpu += gettime(CPU) - before
            units += 1
            if now - begun >= self.window:
                self.add(now, units, cpu, pages)
                begun, units, cpu, pages = now, 0, 0, 0

    def add(self, now: int, units: int, cpu: int, pages: int) -> None:
        if len(self.ended) >= MOST:
            self.window *= 2
            self.ended = self.ended[1::2]
            for name in ("units", "cpu", "pages"):
                row = getattr(self, name)
                setattr(self, name, array("q", map(sum, zip(row[::2], row[1::2]))))
        self.ended.append(now)
        self.units.append(units)
        self.cpu.append(cpu)
        self.pages.append(pages)

    def report(self) -> "dict[str, object]":
        return {name: list(getattr(self, name)) for name in ("ended", "units", "cpu", "pages")}


class WorkServer:
    def __init__(self, rate: int, area: mmap.mmap) -> None:
        self.rate, self.area = rate, area
        self.worker = None  # type: WorkThread | None

    def end(self) -> "dict[str, object]":
        """End the work. What was counted."""
        worker, self.worker = self.worker, None
        if worker is None:
            return {}
        worker.going = False
        worker.join(PATIENCE_S)
        return worker.report()

    def work(self, listener: socket.socket) -> None:
        while select.select([listener], [], [], STAY_NS / 1e9)[0] and self.serve(listener):
            pass
        self.end()

    def serve(self, listener: socket.socket) -> bool:
        """Take one request; whether to go on."""
        peer, asked = receive_request(listener, PATIENCE_S)
        if peer is None:
            return True
        answer, going = b"", True
        word, _, rest = asked.partition(b" ")
        if word == b"cycle":
            self.end()
            self.worker = WorkThread(self.rate, self.area, gettime(RAW) + int(rest))
            self.worker.start()
            answer = line_of("C", {})
        elif asked == b"counts":
            answer = line_of("W", self.end())
        elif asked == b"stop":
            self.end()
            answer, going = line_of("X", {}), False
        send_answer(peer, answer)
        return going


def main() -> None:
    rate, size = int(sys.argv[1]), int(sys.argv[2]) // PAGE * PAGE
    free = available()
    if size + RESERVE > free:
        os.write(1, line_of("N", {"available": free}))
        return
    parent = enter_background()
    os.nice(19)
    area = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, size, PAGE):
        area[at] = 1  # that a page is there for the first time is no part of the work
    listener, path = listen()
    os.write(1, line_of("R", {"path": path}))
    leave_parent(parent)
    if path:
        WorkServer(rate, area).work(listener)


if __name__ == "__main__":
    main()
