"""When the kernel saw a request come and its answer leave: a part of the probe.

sshd, the pipe and Python take some milliseconds under TCG to hand a request on, and to send the answer. The
kernel stamps each packet (packet(7), SO_TIMESTAMPNS) before sshd sees it and after sshd has sent it: in an
interval [left - t4, arrived - t1] all of that is left out.

Which packets. The connection is known by its two ports: those of the socket that sshd holds. Then it is
TCP's numbers (RFC 9293, 3.4) that tell:

    departure   the first packet after the answer was written that carries new bytes of the stream, following
                without a hole on all that was seen before. What was written cannot have left in an earlier
                one, and the host that has the answer has this one: streams come in order.
    arrival     the packet that first carried the last byte which the departure acknowledges. TCP had the
                request then, so that byte is the request's last one or a later one.

So a packet that the kernel did not show (it counts them), a retransmission, or other traffic of the stream
leads to no stamp, or to one that leaves more room; never to a wrong one. Nothing rests on the path between:
QEMU's user-mode network, or a relay, makes another TCP connection out of the host's, with the same bytes.

Which time. The stamps are CLOCK_REALTIME, which may be stepped or slewed; a reading wants MONOTONIC_RAW. The
difference of the two is looked at each time before packets are fetched. A packet came after the last fetch
that did not bring it, so the difference at its stamp lies between those before and after, unless REALTIME was
moved there and back between two looks.
"""

import array
import os
import socket
import struct

from lab.guest.inside.clocks import RAW, REAL, gettime

SO_ATTACH_FILTER = 26
SO_TIMESTAMPNS = 35  # with the time as two longs: the kernel's own size of them
ETH_P_ALL = 3
SOL_PACKET, PACKET_STATISTICS = 263, 6
SNAP = 80  # the longest IP header, and of TCP's what is used

MASK = 0xFFFFFFFF


def ahead(one: int, other: int) -> int:
    """How far number `one` of a stream is after `other`; numbers wrap around."""
    return ((one - other + 0x80000000) & MASK) - 0x80000000


def server(pid: int) -> int:
    """The process id of the SSH server that has started process `pid`, which may be sudo's."""
    for _ in range(3):
        try:
            with open("/proc/%d/comm" % pid) as file:
                if not file.read().startswith(("sudo", "sh", "bash", "dash")):
                    break
            with open("/proc/%d/stat" % pid) as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            break
    return pid


def connection(pid: int) -> "tuple[int, int] | None":
    """Local and remote port of the one IPv4 TCP connection that process `pid` holds, an SSH server."""
    sockets = set()
    try:
        with open("/proc/%d/comm" % pid) as file:
            if not file.read().startswith(("sshd", "dropbear")):
                return None
        for number in os.listdir("/proc/%d/fd" % pid):
            sockets.add(os.readlink("/proc/%d/fd/%s" % (pid, number)))
    except OSError:
        return None
    found = []
    for table in "tcp", "tcp6":
        try:
            with open("/proc/%d/net/%s" % (pid, table)) as file:
                rows = [line.split() for line in file][1:]
        except OSError:
            continue
        for row in rows:
            local, remote, state, inode = row[1], row[2], row[3], row[9]
            if state != "01" or "socket:[%s]" % inode not in sockets:
                continue
            # ::ffff:a.b.c.d, in words of the machine's own order
            if table == "tcp6" and not local.startswith("0000000000000000FFFF0000"):
                return None
            found.append((int(local.split(":")[1], 16), int(remote.split(":")[1], 16)))
    return found[0] if len(found) == 1 and len(set(found[0])) == 2 else None


def program(local: int, remote: int) -> bytes:
    """Classic BPF (bpf(4) of the BSDs; linux/filter.h): the first SNAP bytes of IPv4 TCP packets between the
    two ports, with data in them, whole ones only."""
    steps = [
        (0x28, 0, 0, 0xFFFFF000),  # ldh  the packet's protocol
        (0x15, 0, 16, 0x0800),  # jeq  IPv4
        (0x30, 0, 0, 9),  # ldb  its protocol
        (0x15, 0, 14, 6),  # jeq  TCP
        (0x28, 0, 0, 6),  # ldh  fragment
        (0x45, 12, 0, 0x3FFF),  # jset a part only
        (0xB1, 0, 0, 0),  # ldx  length of the IP header
        (0x40, 0, 0, 0),  # ld   both ports
        (0x15, 1, 0, remote << 16 | local),
        (0x15, 0, 8, local << 16 | remote),
        (0x50, 0, 0, 12),  # ldb  TCP's data offset, in words, in the upper half
        (0x74, 0, 0, 4),
        (0x64, 0, 0, 2),
        (0x0C, 0, 0, 0),  # add  both headers
        (0x07, 0, 0, 0),  # tax
        (0x28, 0, 0, 2),  # ldh  total length
        (0x2D, 0, 1, 0),  # jgt
        (0x06, 0, 0, SNAP),
        (0x06, 0, 0, 0),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def apart() -> "tuple[int, int]":
    """REALTIME minus MONOTONIC_RAW now: at least, and at most."""
    before = gettime(RAW)
    real = gettime(REAL)
    return real - gettime(RAW), real - before


class Packets:
    """The kernel's stamps of one connection's packets. No stamps, and no error, where the kernel gives none:
    to another user than root, of a connection over IPv6, or without packet sockets.

    wanted: the number of the reading whose answer was written, until its packet was seen or given up.
    """

    def __init__(self) -> None:
        self.socket = None  # type: socket.socket | None
        self.number = -1
        self.follows = b""  # what an answer says of a line that comes after it
        self.wanted = None  # type: bytes | None

    def watch(self, pid: int) -> None:
        """Watch the connection that process `pid` holds, from now on."""
        self.close()
        ports = connection(server(pid))
        if ports is None:
            return
        try:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        except (AttributeError, OSError):
            return
        self.start(apart())
        try:
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            text = array.array("B", program(*ports))
            fprog = struct.pack("HP", len(text) // 8, text.buffer_info()[0])
            made.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)
        except OSError:
            made.close()
            return
        try:
            while True:  # what came before there was a filter
                made.recv(SNAP)
        except OSError:
            pass
        self.socket, self.number, self.follows, self.local = made, made.fileno(), b" +", ports[0]

    def start(self, now: "tuple[int, int]") -> None:
        """Know of no packet yet."""
        self.now = now
        self.out_end = self.in_end = None  # type: int | None
        self.arrived = self.arrived_apart = 0
        self.departed = None  # type: tuple[int, int, int] | None

    def close(self) -> None:
        self.wanted = None
        if self.socket is not None:
            self.socket.close()
            self.socket, self.number, self.follows = None, -1, b""

    def fetch(self) -> None:
        """Take what has come and left since the last time."""
        if self.socket is None:
            return
        least, most = apart()
        self.least, self.most = min(self.now[0], least), max(self.now[1], most)
        self.now = least, most
        while True:
            latest = gettime(REAL)
            try:
                data, extra, _, _ = self.socket.recvmsg(SNAP, 64)
            except OSError:
                return
            for level, kind, value in extra:
                if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                    seconds, rest = struct.unpack("@ll", value)
                    # A packet without a stamp is given one when it is fetched (net/socket.c,
                    # __sock_recv_timestamp): the first ones are, as stamping starts a moment late.
                    stamp = seconds * 1000000000 + rest
                    self.note_packet(data, stamp if stamp <= latest else None)

    def note_packet(self, data: bytes, stamp: "int | None") -> None:
        """One packet, as the filter lets them through."""
        header = (data[0] & 15) * 4
        source, _, begin, acknowledged, offset = struct.unpack_from("!HHIIB", data, header)
        end = begin + struct.unpack_from("!H", data, 2)[0] - header - (offset >> 4) * 4 & MASK
        if source != self.local:
            if self.in_end is None or ahead(end, self.in_end) > 0:
                self.in_end, self.arrived, self.arrived_apart = end, stamp or 0, self.least
            return
        if self.out_end is not None and ahead(end, self.out_end) <= 0:
            return  # once more
        if self.wanted is not None and self.departed is None:
            whole = begin == self.out_end and stamp is not None
            self.departed = (stamp or 0 if whole else 0, acknowledged, self.most)
        self.out_end = end

    def dropped(self) -> bool:
        """Whether there was no room for some packet since this was asked last; packet(7)."""
        if self.socket is None:
            return True
        return bool(struct.unpack("II", self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1])

    def ask(self, number: bytes) -> None:
        """To be called before the answer to reading `number` is written."""
        if self.socket is not None:
            self.fetch()
            self.wanted, self.departed = number, None
            self.since = gettime(RAW)

    def stamps_line(self, patience: int) -> bytes:
        """The line about the reading that is wanted, "" until it is known; one without numbers when
        the packet was not seen for `patience` ns."""
        self.fetch()
        if self.departed is None:
            if gettime(RAW) - self.since < patience:
                return b""
            line = b"K %s \n" % self.wanted
        else:
            left, acknowledged, left_apart = self.departed
            arrived = self.arrived if self.in_end == acknowledged else 0
            least, most = apart()
            numbers = (arrived, min(self.arrived_apart, least), left, max(left_apart, most))
            if self.dropped():
                numbers = (0, 0, 0, 0)
            line = b"K %s %d %d %d %d\n" % ((self.wanted, *numbers))
        self.wanted = None
        return line
