"""Makes another guest of this one: a part of the program that waits in a golden guest (golden_probe.py), and
so in all that begin with it.

Orders of the host, and what is answered:

    settle          settled         nobody is logged in, network cards are given up: the state may be taken
    time N          time M          CLOCK_REALTIME is set to N, in nanoseconds, and reads M before the answer
    be {json}       is {json}       this guest is another one from now on

What makes a guest itself, and what is done about it. The PCI driver lets go of the network cards before the
state is taken and finds them anew in each guest: it resets the devices, whose MAC addresses are then those
that QEMU was given, and no address, route or neighbour is left of before. Files (names, keys, machine-id) are
replaced. sshd begins anew on SIGHUP, with its new key; so does the journal, whose old entries go. The
kernel's random generator is fed and reseeded, at once (RNDRESEEDCRNG, Linux 4.14), before any of that; sshd's
processes take their random state from it. What the kernel made of chance or of the firmware's tables at its
boot cannot be changed, but is covered by a file of our own: the boot id, and the machine's UUID. Equal in all
of them stay the layout of kernel and processes in memory and the secrets of the kernel's hash tables.

A start costs tenths of a second under emulation, so what can be done before the state is taken is done then.
sshd has begun anew by then, and waits for its host key: its file is a pipe until the guest has its own. No
program is started for the network. The journal's start comes last, when the host has logged in.
"""

import binascii
import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import stat
import struct
import time
from collections.abc import Callable

from lab.guest.inside.clock_setting import RTC_RD_TIME
from lab.guest.inside.clocks import REAL, gettime
from lab.guest.inside.files import text_of

SETTLE_S = 20
LISTEN_S = 10
KEY_S = 30
PAUSE_S = 0.005
CARD = "eth0"
CARDS = CARD, "eth1"
DRIVER = "/sys/bus/pci/drivers/virtio-pci/"
OURS = "/run/freezelab"
SSHD = ("sshd", "sshd-session", "sshd-auth")
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
UUID = "/sys/class/dmi/id/product_uuid"
TABLES = "/sys/firmware/dmi/tables/DMI"
JOURNAL = "/run/log/journal"
RNDADDENTROPY, RNDRESEEDCRNG = 0x40085203, 0x5207  # linux/random.h
RTC_SET_TIME = 0x4024700A  # linux/rtc.h
MS_BIND = 4096
SIOCADDRT, SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x890B, 0x8913, 0x8914, 0x8916, 0x891C
IFF_UP = 1
RTF_UP, RTF_GATEWAY = 1, 2  # linux/route.h
LIBC = ctypes.CDLL(None, use_errno=True)


def write(path: str, content: bytes, mode: int) -> None:
    """In place, where it differs: a file that replaces another is written to the disk at once by ext4
    (auto_da_alloc), which costs ten times as much."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        os.makedirs(folder, 0o755)
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):  # a link, a pipe
        os.unlink(path)
    with open(os.open(path, os.O_RDWR | os.O_CREAT, mode), "r+b", 0) as file:
        if file.read() != content:
            file.seek(0)
            file.write(content)
            file.truncate()
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) != mode:
            os.fchmod(file.fileno(), mode)


def cover(path: str, content: bytes, mode: int) -> None:
    """Have `path` show another file, where the kernel lets nobody write; covered() is that file."""
    ours = covered(path)
    write(ours, content, mode)
    if LIBC.mount(ours.encode(), os.path.realpath(path).encode(), None, MS_BIND, None):
        raise OSError(ctypes.get_errno(), "cannot be covered: " + path)


def covered(path: str) -> str:
    return os.path.join(OURS, os.path.basename(path))


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


def inet(address: str) -> bytes:
    """struct sockaddr_in."""
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))


def set_up(card: str, address: str, gateway: str) -> None:
    """Set a network card up (netdevice(7)). address: with its prefix length, or "" for none."""
    name = card.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        if address:
            host, _, length = address.partition("/")
            mask = socket.inet_ntoa(struct.pack("!I", (0xFFFFFFFF << (32 - int(length))) & 0xFFFFFFFF))
            fcntl.ioctl(any_socket, SIOCSIFADDR, struct.pack("16s16s8x", name, inet(host)))
            fcntl.ioctl(any_socket, SIOCSIFNETMASK, struct.pack("16s16s8x", name, inet(mask)))
        answer = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sH22x", name, 0))
        flags = struct.unpack_from("16xH", answer)[0] | IFF_UP
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", name, flags))
        if gateway:
            anywhere = inet("0.0.0.0")  # noqa: S104 - a route, no listener
            addresses = anywhere + inet(gateway) + anywhere
            route = struct.pack("L48sHhLPhPLLH", 0, addresses, RTF_UP | RTF_GATEWAY, 0, 0, 0, 0, 0, 0, 0, 0)
            fcntl.ioctl(any_socket, SIOCADDRT, route)


class GuestCopy:
    """key: the pipe from which sshd reads its host key; -1 when sshd reads the key from elsewhere. tables: of
    the firmware, with the uuid `uuid`. journal: the process ids of systemd-journald."""

    def __init__(self) -> None:
        self.was = self.uuid = ""
        self.cards = []  # type: list[str]
        self.tables = b""
        self.sshd = 0
        self.journal = []  # type: list[int]
        self.key = -1

    def settle(self) -> None:
        """Ready to be copied."""
        listener = text_of("/run/sshd.pid")
        if not wait(lambda: not [1 for _, of in processes(SSHD) if str(of) == listener], SETTLE_S):
            raise OSError(0, "somebody is still logged in")
        self.sshd = int(listener or 0)
        self.hold_sshd()
        self.cover_ids()
        self.journal = [pid for pid, _ in processes(("systemd-journal",))]
        for card in CARDS:
            device = os.path.basename(os.path.realpath("/sys/class/net/%s/device/.." % card))
            if os.path.exists(DRIVER + device):
                self.cards.append(device)
                self.drive("unbind", device)
        os.sync()

    def hold_sshd(self) -> None:
        """Have sshd begin anew, and wait for its host key."""
        if not self.sshd or not os.path.exists(HOST_KEY):
            return
        with open(HOST_KEY, "rb") as file:
            key = file.read()
        os.mkfifo(HOST_KEY + ".new", 0o600)
        os.rename(HOST_KEY + ".new", HOST_KEY)
        os.kill(self.sshd, signal.SIGHUP)
        if not wait(self.sshd_waits, KEY_S):  # it reads its key from another file
            write(HOST_KEY, key, 0o600)

    def sshd_waits(self) -> bool:
        try:
            self.key = os.open(HOST_KEY, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
        return self.key >= 0

    def release_sshd(self) -> None:
        """Have sshd go on with the guest's own host key, or begin anew with it."""
        with open(HOST_KEY + ".own", "rb") as file:
            content = file.read()
        if self.key >= 0:
            os.write(self.key, content)
            os.rename(HOST_KEY + ".own", HOST_KEY)  # before the end of the pipe: sshd may open it again
            os.close(self.key)
            return
        os.rename(HOST_KEY + ".own", HOST_KEY)
        before = self.listening()
        if self.sshd:
            os.kill(self.sshd, signal.SIGHUP)
            if not wait(lambda: self.listening() - before, LISTEN_S):
                raise OSError(0, "sshd does not listen again")

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
            write(path + ".own" if path == HOST_KEY else path, binascii.a2b_base64(content), mode)
        socket.sethostname(name)
        self.change_ids(boot_id, uuid)
        self.bind(network)
        self.set_rtc()
        self.release_sshd()
        return {"mac": text_of("/sys/class/net/%s/address" % CARD)}

    def reseed(self, seed: bytes) -> None:
        with open("/dev/urandom", "wb", 0) as file:
            fcntl.ioctl(file, RNDADDENTROPY, struct.pack("ii", 8 * len(seed), len(seed)) + seed)
            fcntl.ioctl(file, RNDRESEEDCRNG)

    def cover_ids(self) -> None:
        """Show the kernel's ids from files of our own, which each guest changes: a mount costs more."""
        self.uuid = text_of(UUID)
        if self.uuid and os.path.exists(TABLES):
            with open(TABLES, "rb") as file:
                self.tables = file.read()
            cover(TABLES, self.tables, 0o400)
        for path, mode in ((BOOT_ID, 0o444), (UUID, 0o400)):
            if os.path.exists(path):
                cover(path, text_of(path).encode() + b"\n", mode)

    def change_ids(self, boot_id: str, uuid: str) -> None:
        if os.path.exists(BOOT_ID):
            write(covered(BOOT_ID), boot_id.encode() + b"\n", 0o444)
        if self.uuid:
            write(covered(UUID), uuid.encode() + b"\n", 0o400)
        if self.tables:
            write(covered(TABLES), self.tables.replace(mixed(self.uuid), mixed(uuid)), 0o400)

    def bind(self, network: "dict[str, str]") -> None:
        for device in self.cards:
            self.drive("bind", device)
        set_up(CARD, network["address"], network["gateway"])

    def drive(self, order: str, device: str) -> None:
        with open(DRIVER + order, "w") as file:
            file.write(device)

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

    def obey(self, order: bytes) -> bytes:
        """The answer to one order."""
        word, _, rest = order.partition(b" ")
        if word == b"settle":
            self.settle()
            return b"settled"
        if word == b"time":
            return b"time %d" % self.set_time(int(rest))
        return b"is " + json.dumps(self.be(**json.loads(rest.decode()))).encode()

    def begin_journal(self) -> None:
        """Have the journal be this guest's. Its messages wait meanwhile, and its streams live on."""
        for pid in self.journal:
            os.kill(pid, signal.SIGTERM)
        wait(lambda: not [1 for pid in self.journal if os.path.exists("/proc/%d" % pid)], LISTEN_S)
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
