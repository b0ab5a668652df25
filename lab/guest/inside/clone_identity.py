"""Makes another guest of this one: runs in a golden guest when its state is taken, and in all that begin
with it.

It goes into the background, holds the virtio-serial channel, and waits there for the host. Lines from the
host, and what is answered:

    settle          settled         nobody is logged in, the network card is given up: the state may be taken
    time N          time M          CLOCK_REALTIME is set to N, in nanoseconds, and reads M before the answer
    be {json}       is {json}       this guest is another one from now on
    done            done            and this program leaves it

What makes a guest itself, and what is done about it. The PCI driver lets go of the network card before the
state is taken and finds it anew in each guest: it resets the device, whose MAC address is then the one that
QEMU was given, and no address, route or neighbour is left of before. Files (names, keys, machine-id) are
replaced. sshd begins anew on SIGHUP, with its new key and random state of its own; so does the journal, whose
old entries go. The kernel's random generator is fed and reseeded, at once (RNDRESEEDCRNG, Linux 4.14), before
any of that. What the kernel made of chance or of the firmware's tables at its boot cannot be changed, but is
covered by a file of our own: the boot id, and the machine's UUID. Equal in all of them stay the layout of
kernel and processes in memory and the secrets of the kernel's hash tables.
"""

import binascii
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable

from lab.guest.inside.background import enter_background, leave_parent
from lab.guest.inside.clocks import REAL, gettime
from lab.guest.inside.files import text_of
from lab.guest.inside.serial_channel import device

SETTLE_S = 20
LISTEN_S = 10
PAUSE_S = 0.005
STEP = 0.01
CARD = "eth0"
DRIVER = "/sys/bus/pci/drivers/virtio-pci/"
OURS = "/run/freezelab"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
UUID = "/sys/class/dmi/id/product_uuid"
TABLES = "/sys/firmware/dmi/tables/DMI"
JOURNAL = "/run/log/journal"
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207  # linux/random.h
RTC_RD_TIME, RTC_SET_TIME = 0x80247009, 0x4024700A  # linux/rtc.h
MS_BIND = 4096
LIBC = ctypes.CDLL(None, use_errno=True)


def write(path: str, content: bytes, mode: int) -> None:
    """Whole or not at all."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        os.makedirs(folder, 0o755)
    draft = path + ".new"
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
    os.rename(draft, path)


def cover(path: str, name: str, content: bytes, mode: int) -> None:
    """Have `path` show `content`, where the kernel lets nobody write."""
    if not os.path.exists(path):
        return
    ours = os.path.join(OURS, name)
    write(ours, content, mode)
    if LIBC.mount(ours.encode(), os.path.realpath(path).encode(), None, MS_BIND, None):
        raise OSError(ctypes.get_errno(), "cannot be covered: " + path)


def processes(names: "tuple[str, ...]") -> "list[tuple[int, int]]":
    """(pid, parent) of those that are called so."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            before, _, after = text_of("/proc/%s/stat" % entry).rpartition(")")
            if before.partition("(")[2] in names and after:
                found.append((int(entry), int(after.split()[1])))
    return found


def wait(condition: "Callable[[], object]", seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(PAUSE_S)
    return True


def run(words: "list[str]", given: bytes) -> None:
    """Run a program with `given` on its standard input. OSError when it fails."""
    theirs, ours = os.pipe()
    os.write(ours, given)
    os.close(ours)
    pid = os.fork()
    if not pid:
        try:
            os.dup2(theirs, 0)
            os.execvp(words[0], words)  # noqa: S606 - no shell is wanted
        finally:
            os._exit(127)
    os.close(theirs)
    status = os.waitpid(pid, 0)[1]
    if status:
        raise OSError(0, "%s ended with status %d" % (words[0], status))


class GuestCopy:
    def __init__(self) -> None:
        self.card = self.was = ""

    def settle(self) -> None:
        """Ready to be copied."""
        listener = text_of("/run/sshd.pid")
        if not wait(lambda: not [1 for _, of in processes(("sshd",)) if str(of) == listener], SETTLE_S):
            raise OSError(0, "somebody is still logged in")
        self.card = os.path.basename(os.path.realpath("/sys/class/net/%s/device/.." % CARD))
        with open(DRIVER + "unbind", "w") as file:
            file.write(self.card)
        os.sync()

    def set_time(self, now: int) -> int:
        if hasattr(time, "clock_settime_ns"):
            time.clock_settime_ns(REAL, now)  # novm
        else:
            time.clock_settime(REAL, now / 1e9)
        return gettime(REAL)

    def be(
        self,
        name: str,
        uuid: str,
        boot_id: str,
        random: str,
        network: "dict[str, str]",
        files: "dict[str, tuple[int, str]]",
    ) -> "dict[str, str]":
        """The members of the host's order (guest/identity.py)."""
        self.reseed(binascii.a2b_hex(random))
        self.was = text_of("/etc/machine-id")
        for path, (mode, content) in sorted(files.items()):
            write(path, binascii.a2b_base64(content), mode)
        socket.sethostname(name)
        before = self.listening()
        sshd = int(text_of("/run/sshd.pid") or 0)
        if sshd:
            os.kill(sshd, signal.SIGHUP)
        self.cover_ids(boot_id, uuid)
        self.bind(network)
        self.set_rtc()
        if sshd and not wait(lambda: self.listening() - before, LISTEN_S):
            raise OSError(0, "sshd does not listen again")
        return {"mac": text_of("/sys/class/net/%s/address" % CARD)}

    def reseed(self, seed: bytes) -> None:
        with open("/dev/urandom", "wb", 0) as file:
            fcntl.ioctl(file, RNDADDENTROPY, struct.pack("ii", 8 * len(seed), len(seed)) + seed)
            fcntl.ioctl(file, RNDRESEEDCRNG)

    def cover_ids(self, boot_id: str, uuid: str) -> None:
        cover(BOOT_ID, "boot_id", boot_id.encode() + b"\n", 0o444)
        was = text_of(UUID)
        cover(UUID, "product_uuid", uuid.encode() + b"\n", 0o400)
        if was and os.path.exists(TABLES):
            with open(TABLES, "rb") as file:
                tables = file.read()
            cover(TABLES, "DMI", tables.replace(mixed(was), mixed(uuid)), 0o400)

    def bind(self, network: "dict[str, str]") -> None:
        with open(DRIVER + "bind", "w") as file:
            file.write(self.card)
        lines = ["link set %s up" % CARD]
        if network["address"]:
            lines = ["address add %s dev %s" % (network["address"], CARD)] + lines
        if network["gateway"]:
            lines.append("route add default via %s" % network["gateway"])
        run(["ip", "-batch", "-"], "\n".join(lines).encode() + b"\n")

    def set_rtc(self) -> None:
        """To the time, if it stood still in between: one that follows the host's clock is right."""
        try:
            with open("/dev/rtc0", "rb", 0) as file:
                now = time.gmtime()
                shown = struct.unpack("9i", fcntl.ioctl(file, RTC_RD_TIME, bytes(36)))
                there = shown[5::-1]  # from the year down to the second
                is_now = (
                    now.tm_year - 1900,
                    now.tm_mon - 1,
                    now.tm_mday,
                    now.tm_hour,
                    now.tm_min,
                    now.tm_sec,
                )
                if abs(seconds(there) - seconds(is_now)) > 2:
                    fcntl.ioctl(file, RTC_SET_TIME, struct.pack("9i", *(is_now[::-1] + (0, 0, 0))))
        except OSError:
            pass

    def listening(self) -> "set[str]":
        """Inodes of the sockets that listen on port 22 (proc(5), net/tcp)."""
        found = set()
        for path in "/proc/net/tcp", "/proc/net/tcp6":
            for line in text_of(path).split("\n")[1:]:
                words = line.split()
                if words[1].endswith(":0016") and words[3] == "0A":
                    found.add(words[9])
        return found

    def begin_journal(self) -> None:
        """Have the journal be this guest's. Its messages wait meanwhile, and its streams live on."""
        there = processes(("systemd-journal",))
        for pid, _ in there:
            os.kill(pid, signal.SIGTERM)
        wait(lambda: not set(there) & set(processes(("systemd-journal",))), LISTEN_S)
        folder = os.path.join(JOURNAL, self.was)
        if self.was and self.was != text_of("/etc/machine-id") and os.path.isdir(folder):
            for name in os.listdir(folder):
                os.unlink(os.path.join(folder, name))
            os.rmdir(folder)


def mixed(uuid: str) -> bytes:
    """As SMBIOS has it from 2.6 on: the first three fields little-endian."""
    raw = binascii.a2b_hex(uuid.replace("-", ""))
    return raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]


def seconds(moment: "tuple[int, ...]") -> float:
    year, month, day, hour, minute, second = moment
    return time.mktime((year + 1900, month + 1, day, hour, minute, second, 0, 0, 0))


class Port:
    """The channel. It tells only by POLLHUP whether the host is there, and is never waited for then."""

    def __init__(self) -> None:
        self.file = os.open(device(), os.O_RDWR | os.O_NONBLOCK)
        self.poll = select.poll()
        self.poll.register(self.file, select.POLLIN)
        self.waiting = b""

    def line(self) -> bytes:
        """The next one. What an earlier host did not finish is forgotten."""
        while b"\n" not in self.waiting:
            events = [event for _, event in self.poll.poll(1000)]
            if events and events[0] & (select.POLLHUP | select.POLLERR):
                self.waiting = b""
                time.sleep(STEP)
            elif events:
                try:
                    self.waiting += os.read(self.file, 1 << 16)
                except BlockingIOError:
                    pass
        line, self.waiting = self.waiting.split(b"\n", 1)
        return line

    def answer(self, line: bytes) -> None:
        os.write(self.file, line + b"\n")


def serve(port: Port, guest: GuestCopy) -> None:
    while True:
        word, _, rest = port.line().partition(b" ")
        try:
            if word == b"settle":
                guest.settle()
                port.answer(b"settled")
            elif word == b"time":
                port.answer(b"time %d" % guest.set_time(int(rest)))
            elif word == b"be":
                port.answer(b"is " + json.dumps(guest.be(**json.loads(rest.decode()))).encode())
            elif word == b"done":
                port.answer(b"done")
                os.close(port.file)
                guest.begin_journal()
                return
        except (OSError, ValueError, KeyError, TypeError) as error:
            port.answer(b"error " + str(error).encode().replace(b"\n", b" "))


def main() -> None:
    port, guest = Port(), GuestCopy()
    parent = enter_background()
    os.write(1, b"waiting\n")
    leave_parent(parent)
    serve(port, guest)


if __name__ == "__main__":
    main()
