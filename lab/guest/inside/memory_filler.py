"""Fills the guest's memory, and verifies it.

It takes the number of bytes and what it has to leave free as arguments, writes one line, and goes on in the
background:

    R {json}        ready: where to connect to, whether the memory is locked
    N {json}        not done: what is available

Who connects sends one line, and gets lines until the answer is complete (numbers are bytes):

    wait            P done …, then D {json}
    verify          P done …, then V {json}
    stop            E, and it ends

No two pages are equal, and none can be made smaller: a block of random bytes is written again and again,
its pages each marked with their number. The block is larger than what the usual compressors look back
(zstd 2 MiB, xz 8 MiB at their default levels).
"""

import mmap
import os
import select
import socket
import sys
from array import array

from lab.guest.inside.background import enter_background, leave_parent
from lab.guest.inside.files import available
from lab.guest.inside.host_streams import line_of
from lab.guest.inside.unix_socket import listen, receive_request

PAGE = 4096
BLOCK = 16 << 20
PART = 1 << 20
LOCK_AS_TOUCHED = 1 | 2 | 4  # MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT
MOST_NAMED = 16
PATIENCE_S = 5.0


def lock() -> bool:
    """Have every page kept in memory from its first touch on; whether the kernel agreed."""
    try:
        import ctypes  # not in every distribution's smallest Python

        return bool(ctypes.CDLL(None).mlockall(LOCK_AS_TOUCHED) == 0)
    except (ImportError, OSError, AttributeError):
        return False


class MarkedPages:
    """The pages. Block by block, so that requests are answered in between."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pages = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.block = bytearray(min(BLOCK, size))
        for start in range(0, len(self.block), PART):
            part = os.urandom(min(PART, len(self.block) - start))
            self.block[start : start + len(part)] = part
        self.words = memoryview(self.block).cast("Q")

    def expected(self, start: int) -> memoryview:
        """What belongs to the block at `start`: the random one, with each page's number as its first word."""
        length = min(len(self.block), self.size - start)
        first = start // PAGE
        numbers = array("Q", range(first, first + length // PAGE))
        self.words[: length // 8 : PAGE // 8] = memoryview(numbers)
        return memoryview(self.block)[:length]

    def fill(self, start: int) -> int:
        wanted = self.expected(start)
        self.pages[start : start + len(wanted)] = wanted
        return len(wanted)

    def differing(self, start: int) -> "tuple[int, list[int]]":
        """How many bytes were looked at, and the numbers of the pages that are not as they were written."""
        wanted = self.expected(start)
        wrong = []  # type: list[int]
        for part in range(0, len(wanted), PART):
            first, here = start + part, bytes(wanted[part : part + PART])
            there = self.pages[first : first + len(here)]
            if there != here:
                offsets = range(0, len(here), PAGE)
                wrong += [(first + o) // PAGE for o in offsets if there[o : o + PAGE] != here[o : o + PAGE]]
        return len(wanted), wrong


class Filler:
    def __init__(self, memory: MarkedPages, listener: socket.socket) -> None:
        self.memory, self.listener = memory, listener
        self.done = 0
        self.waiting = []  # type: list[socket.socket]
        self.verifying = []  # type: list[socket.socket]
        self.looked = 0
        self.wrong = 0
        self.named = []  # type: list[int]

    def work(self) -> None:
        while True:
            busy = self.done < self.memory.size or self.verifying
            if select.select([self.listener], [], [], 0 if busy else None)[0] and not self.serve():
                return
            if self.done < self.memory.size:
                self.done += self.memory.fill(self.done)
                self.waiting = send_to_all(self.waiting, line_of("P", self.done))
                if self.done >= self.memory.size:
                    self.end(self.waiting, line_of("D", {"bytes": self.done}))
                    self.waiting = []
            elif self.verifying:
                self.verify()

    def serve(self) -> bool:
        """Take one request; whether to go on."""
        peer, asked = receive_request(self.listener, PATIENCE_S)
        if peer is None:
            return True
        if asked == b"wait" and self.done >= self.memory.size:
            self.end([peer], line_of("D", {"bytes": self.done}))
        elif asked == b"wait":
            self.waiting.append(peer)
        elif asked == b"verify":
            self.verifying.append(peer)
            self.looked = self.wrong = 0  # for everybody who asks: from the start
            self.named = []
        elif asked == b"stop":
            self.end([peer], b"E\n")
            return False
        else:
            peer.close()
        return True

    def verify(self) -> None:
        looked, wrong = self.memory.differing(self.looked)
        self.looked += looked
        self.wrong += len(wrong)
        self.named = (self.named + wrong)[:MOST_NAMED]
        self.verifying = send_to_all(self.verifying, line_of("P", self.looked))
        if self.looked >= self.memory.size:
            result = {"pages": self.looked // PAGE, "differ": self.wrong, "differing": self.named}
            self.end(self.verifying, line_of("V", result))
            self.verifying = []

    def end(self, peers: "list[socket.socket]", line: bytes) -> None:
        for peer in send_to_all(peers, line):
            peer.close()


def send_to_all(peers: "list[socket.socket]", line: bytes) -> "list[socket.socket]":
    """Those that have got it: one whose connection was lost asks again."""
    left = []
    for peer in peers:
        try:
            peer.sendall(line)
            left.append(peer)
        except OSError:
            peer.close()
    return left


def main() -> None:
    size, reserve = int(sys.argv[1]), int(sys.argv[2])
    free = available()
    if size + min(BLOCK, size) + reserve > free:
        os.write(1, line_of("N", {"available": free}))
        return
    parent = enter_background()
    os.nice(19)
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # should memory run out all the same: this, not the guest's own services
    locked = lock()
    listener, path = listen()
    os.write(1, line_of("R", {"path": path, "locked": locked}))
    leave_parent(parent)
    if path:
        Filler(MarkedPages(size), listener).work()


if __name__ == "__main__":
    main()
