"""TCP_INFO of a socket (struct tcp_info of Linux, include/uapi/linux/tcp.h; later kernels only append)."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

_WORDS, _ACKED = 8, 120
"""Offsets: of the 32-bit words from tcpi_rto on, and of tcpi_bytes_acked."""

_OUT_OF_ORDER = 224
"""tcpi_rcv_ooopack's offset; Linux 5.4."""


@dataclass(frozen=True)
class TcpInfo:
    """rto_ns: the retransmission timer as it is now, with its back-off. retransmits: segments sent again, in
    all. unacked: segments under way. acked: bytes that the other side has acknowledged. out_of_order: packets
    received so; None: the kernel does not say."""

    rto_ns: int
    rtt_ns: int
    retransmits: int
    unacked: int
    acked: int
    out_of_order: int | None


def tcp_info(of: socket.socket) -> TcpInfo:
    """TCP_INFO of a connection. OSError when it is closed."""
    data = of.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    words = struct.unpack_from("=24I", data, _WORDS)
    (acked,) = struct.unpack_from("=Q", data, _ACKED)
    more = struct.unpack_from("=I", data, _OUT_OF_ORDER)[0] if len(data) >= _OUT_OF_ORDER + 4 else None
    return TcpInfo(words[0] * 1000, words[15] * 1000, words[23], words[4], acked, more)
