"""The client's side of iperf3's protocol (src/iperf_client_api.c, src/iperf_api.h of iperf3 3.12).

A control connection and a connection for data, both begun with the same cookie. On the control connection
the server sends a byte a state; parameters are JSON after their length, four bytes, big-endian.
"""

from __future__ import annotations

import json
import secrets
import socket
import struct

PARAM_EXCHANGE, CREATE_STREAMS, TEST_START, TEST_RUNNING = 9, 10, 1, 2
ACCESS_DENIED, SERVER_ERROR = 0xFF, 0xFE
COOKIE = 37
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


class Iperf3Refused(OSError):
    """The server does not begin the test; strerror says why."""

    def __init__(self, why: str) -> None:
        super().__init__(0, why)


def begin(
    address: tuple[str, int], *, down: bool, bits_per_s: int, block: int, timeout_s: float
) -> tuple[socket.socket, socket.socket]:
    """Begin a test without an end. Returns the control connection and the one for data, which flows from then
    on. OSError when that fails. down: the server sends. block: bytes that it sends at once."""
    cookie = "".join(secrets.choice(_ALPHABET) for _ in range(COOKIE - 1)).encode() + b"\0"
    control = socket.create_connection(address, timeout_s)
    data: socket.socket | None = None
    try:
        control.sendall(cookie)
        _expect(control, PARAM_EXCHANGE)
        wanted = {
            "tcp": True, "omit": 0, "time": 0, "num": 0, "blockcount": 0, "parallel": 1, "len": block,
            "bandwidth": bits_per_s, "pacing_timer": 1000, "client_version": "3.12",
        }  # fmt: skip
        text = json.dumps(wanted | ({"reverse": True} if down else {})).encode()
        control.sendall(struct.pack(">I", len(text)) + text)
        _expect(control, CREATE_STREAMS)
        data = socket.create_connection(address, timeout_s)
        data.sendall(cookie)
        _expect(control, TEST_START)
        _expect(control, TEST_RUNNING)
    except BaseException:
        for one in (control, data):
            if one is not None:
                one.close()
        raise
    return control, data


def _expect(control: socket.socket, state: int) -> None:
    got = control.recv(1)
    if not got:
        raise Iperf3Refused("iperf3 has closed the connection")
    if got[0] == ACCESS_DENIED:
        raise Iperf3Refused("iperf3 is busy with another test")
    if got[0] != state:
        raise Iperf3Refused(f"iperf3 is in state {got[0]} and not in {state}")
