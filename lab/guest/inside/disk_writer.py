"""A writer in the guest that has each write synced, which stands still while its file system is frozen.

It keeps its record in memory, and reads nothing from the disk: it answers while file systems are frozen. It
can thaw them, and does so by itself at the end of a time limit: the last of those who thaw, for when the
guest's agent and the host do not.

    cycle NS  forget, and write from now on, for at most this many nanoseconds of MONOTONIC: a host that is
              gone has nobody stop
    arm NS    thaw by yourself after so long, write no longer than shortly after that, and allow the host to
              have the kernel thaw by a key (SysRq J), if that was wished at the start
    writes    what was recorded; write no more, thaw nothing by yourself, and allow what was allowed
    thaw      thaw now
"""

import fcntl
import os
import select
import socket
import sys
import threading
import time
from array import array

from lab.guest.inside.background import enter_background, leave_parent
from lab.guest.inside.clocks import MONO, MS, RAW, S, gettime
from lab.guest.inside.files import text_of
from lab.guest.inside.host_streams import line_of
from lab.guest.inside.unix_socket import listen, receive_request, send_answer

PERIOD_NS = 2 * MS
AFTER_NS = 5 * S  # how much longer than until its own thaw it writes
STAY_NS = 3600 * S
PATIENCE_S = 5.0
MOST = 500000  # writes that are recorded
MOST_LATE = 200
LATE_NS = 10 * MS  # a write that takes as long, and three times the median, is reported singly

FITHAW = 0xC0045878  # linux/fs.h
SYSRQ = "/proc/sys/kernel/sysrq"
SYSRQ_SIGNAL = 64  # of that bit mask: it allows J as well (drivers/tty/sysrq.c, sysrq_thaw_op)
SCRATCH = ("/var/tmp", "/root", "/")  # noqa: S108 - a file without a name


class DiskMounts:
    """The file systems on disks that are mounted for writing, held open, so that the thaw looks nothing
    up."""

    def __init__(self) -> None:
        self.files = {}  # type: dict[int, int]
        with open("/proc/self/mounts") as table:
            lines = [line.split() for line in table]
        for source, point, _kind, options, _dump, _check in lines:
            if not source.startswith("/dev/") or "rw" not in options.split(","):
                continue
            try:
                file = os.open(point.encode().decode("unicode_escape"), os.O_RDONLY | os.O_DIRECTORY)
            except OSError:
                continue
            device = os.fstat(file).st_dev
            if device in self.files:
                os.close(file)
            else:
                self.files[device] = file

    def thaw(self) -> int:
        """How many were frozen."""
        count = 0
        for file in self.files.values():
            try:
                fcntl.ioctl(file, FITHAW, 0)
                count += 1
            except OSError:
                pass  # EINVAL: it was not frozen
        return count


def scratch(mounts: "DiskMounts") -> int:
    """A file without a name on one of them; -1: on none."""
    for folder in SCRATCH:
        try:
            if os.stat(folder).st_dev in mounts.files:
                path = "%s/.freezelab-%d" % (folder.rstrip("/"), os.getpid())
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
                os.unlink(path)
                return file
        except OSError:
            continue
    return -1


class WritingThread(threading.Thread):
    """begun, ended: of each write, the guest's MONOTONIC_RAW. until: when it ends by itself, MONOTONIC."""

    def __init__(self, file: int, until: int) -> None:
        threading.Thread.__init__(self, daemon=True)
        self.file, self.until = file, until
        self.begun, self.ended = array("q"), array("q")
        self.going = True
        self.failed = ""

    def run(self) -> None:
        block = b"freezelab" * 56
        while self.going and len(self.ended) < MOST and gettime(MONO) < self.until:
            began = gettime(RAW)
            self.begun.append(began)
            try:
                os.pwrite(self.file, block, 0)
                os.fdatasync(self.file)
            except OSError as error:
                self.failed = str(error)
                return
            now = gettime(RAW)
            self.ended.append(now)
            time.sleep(max(0, began + PERIOD_NS - now) / 1e9)

    def report(self) -> "dict[str, object]":
        ended = self.ended[:]
        begun = self.begun[: len(ended)]
        lengths = sorted(end - begin for begin, end in zip(begun, ended))
        usual = lengths[len(lengths) // 2] if lengths else 0
        floor = max(LATE_NS, 3 * usual)
        rows = zip(ended, begun[1:], ended[1:])
        late = [list(row) for row in rows if row[2] - row[1] >= floor]
        late.sort(key=lambda row: row[1] - row[2])
        return {
            "count": len(ended),
            "usual_ns": usual,
            "first_raw_ns": begun[0] if begun else 0,
            "last_raw_ns": ended[-1] if ended else 0,
            "late": sorted(late[:MOST_LATE]),
            "failed": self.failed,
        }


class SysrqKey:
    """Allows the kernel's key J for a while."""

    def __init__(self, wished: bool) -> None:
        self.wished, self.before = wished, ""

    def allow(self) -> None:
        before = text_of(SYSRQ) if self.wished and not self.before else ""
        if before.isdigit() and before != "1" and not int(before) & SYSRQ_SIGNAL:
            self.put(str(int(before) | SYSRQ_SIGNAL))
            self.before = before

    def restore(self) -> None:
        if self.before:
            self.put(self.before)
            self.before = ""

    def put(self, text: str) -> None:
        try:
            with open(SYSRQ, "w") as file:
                file.write(text)
        except OSError:
            pass


class WriterServer:
    def __init__(self) -> None:
        self.sysrq = SysrqKey(sys.argv[1:] == ["sysrq"])
        self.mounts = DiskMounts()
        self.file = scratch(self.mounts)
        self.writer = None  # type: WritingThread | None
        self.until = 0
        self.thawed = 0
        self.asked = gettime(MONO)

    def begin(self, most: int) -> None:
        self.end()
        self.thawed = 0
        if self.file >= 0:
            self.writer = WritingThread(self.file, gettime(MONO) + most)
            self.writer.start()

    def end(self) -> None:
        if self.writer is not None:
            self.writer.going = False
            self.writer.join(PATIENCE_S)
            self.writer = None

    def report(self) -> "dict[str, object]":
        if self.writer is None:
            return {}
        self.writer.going = False
        self.writer.join(PATIENCE_S)
        found = self.writer.report()
        found["thawed"] = self.thawed
        return found

    def work(self, listener: "socket.socket") -> None:
        while gettime(MONO) - self.asked < STAY_NS:
            left = self.until - gettime(MONO) if self.until else STAY_NS
            if self.until and left <= 0:
                self.until, self.thawed = 0, self.thawed + self.mounts.thaw()
                self.sysrq.restore()
                continue
            ready = select.select([listener], [], [], min(left, 60 * S) / 1e9)[0]
            if ready and not self.serve(listener):
                return

    def serve(self, listener: "socket.socket") -> bool:
        """Take one request; whether to go on."""
        peer, asked = receive_request(listener, PATIENCE_S)
        if peer is None:
            return True
        self.asked = gettime(MONO)
        word, _, rest = asked.partition(b" ")
        answer, going = b"", True
        if word == b"cycle":
            self.begin(int(rest))
            answer = line_of("C", {"writes": self.file >= 0, "mounts": len(self.mounts.files)})
        elif word == b"arm":
            self.until = gettime(MONO) + int(rest)
            if self.writer is not None:
                self.writer.until = self.until + AFTER_NS
            self.sysrq.allow()
            answer = line_of("A", {})
        elif word == b"thaw":
            self.thawed += self.mounts.thaw()
            answer = line_of("T", {"thawed": self.thawed})
        elif word == b"writes":
            self.until = 0
            self.sysrq.restore()
            answer = line_of("W", self.report())
        elif word == b"stop":
            self.mounts.thaw()
            self.sysrq.restore()
            self.end()
            answer, going = line_of("X", {}), False
        send_answer(peer, answer)
        return going


def main() -> None:
    parent = enter_background()
    server = WriterServer()
    listener, path = listen()
    os.write(1, line_of("R", {"path": path}))
    leave_parent(parent)
    if path:
        server.work(listener)


if __name__ == "__main__":
    main()
