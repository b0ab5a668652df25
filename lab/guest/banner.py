"""Waits for the banner of a guest's sshd: the first connection on which it comes."""

from __future__ import annotations

import ipaddress
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress

STAGGER_S = 0.4
IN_FLIGHT = 8
"""The most attempts that wait for an answer; sshd accepts ten (sshd_config(5), MaxStartups)."""

GROWTH = 1 / 8
"""The least time between two attempts, as a part of the time since the first. Each costs the guest the start
of a process. With three in flight, always 0.4 s apart, a guest on a busy host whose sshd took longer than
1.2 s was kept busy by attempts that had been given up: beside the lab's other tests a systemd Debian took
288 s until its probe answered, and 81 s since."""

LISTENS_S = 4.0
"""The longest time between two attempts, for a guest whose sshd is known to listen; the times double up to
it. Each attempt costs the guest the start of a process: eight guests on two CPUs took ten attempts each. But
the first one may get no answer: with 4 s until the second, a guest took 6 s until SSH answered."""

REFUSED_S = 8.0
"""How long a port on the loopback may refuse connections. QEMU forwards it from its start on, so a refusal
means that the guest is gone, or between two QEMU processes."""

_EAGER_S, _EAGER_FOR_S, _PATIENT_S = 0.02, 2.0, 0.1
"""Seconds between two refused attempts: the first value for the second value's time, then the third. A
refusal on the loopback takes 0.1 ms. The first value is also the time from a connection that was closed until
the next attempt; it doubles up to STAGGER_S."""


def _attempt(host: str, port: int) -> socket.socket:
    """Begin a non-blocking connection. OSError when it fails at once."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(BlockingIOError):
            sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def wait_for_banner(
    host: str, port: int, deadline_s: float, alive: Callable[[], None], longest_s: float = STAGGER_S
) -> socket.socket:
    """A TCP connection on which sshd has sent its banner, by CLOCK_MONOTONIC `deadline_s` (seconds).

    QEMU accepts a forwarded connection long before the guest can, and its retransmissions back off. So a few
    attempts run in parallel, and the first one with an answer is used: STAGGER_S apart, or twice as long each
    time up to `longest_s`, and farther apart the longer it takes (GROWTH). QEMU closes a connection that the
    guest refuses, and a guest whose sshd does not listen yet does that: then the next attempt comes soon.
    alive: called between attempts; raises when the guest cannot answer any more. TimeoutError at the
    deadline; ConnectionRefusedError when a port on the loopback only refuses for REFUSED_S.
    """
    selector = selectors.DefaultSelector()
    attempts: list[socket.socket] = []

    def drop(sock: socket.socket) -> None:
        attempts.remove(sock)
        with suppress(KeyError):
            selector.unregister(sock)
        sock.close()

    begun = next_try = time.monotonic()
    stagger_s, closed_s = STAGGER_S, _EAGER_S
    give_up = begun + REFUSED_S if ipaddress.ip_address(host).is_loopback else deadline_s
    try:
        while (now := time.monotonic()) < deadline_s:
            alive()
            refused = False
            if now >= next_try:
                if len(attempts) >= IN_FLIGHT:
                    drop(attempts[0])
                next_try = now + max(stagger_s, GROWTH * (now - begun))
                stagger_s = min(2 * stagger_s, longest_s)
                try:
                    made = _attempt(host, port)
                    attempts.append(made)
                    selector.register(made, selectors.EVENT_READ, made)
                except OSError:
                    refused = True
            # A failed attempt is readable too; reading raises its error.
            for key, _ in selector.select(max(0.0, min(0.1, next_try - now))):
                sock: socket.socket = key.data
                try:
                    first = sock.recv(4, socket.MSG_PEEK)
                    give_up = deadline_s  # a connection was accepted
                except OSError:
                    first, refused = b"", True
                if first == b"SSH-":
                    attempts.remove(sock)
                    return sock
                drop(sock)
                if not refused:
                    next_try, closed_s = min(next_try, now + closed_s), min(2 * closed_s, STAGGER_S)
            if refused:
                if now > give_up:
                    raise ConnectionRefusedError(f"{host}:{port}")
                next_try = now + (_EAGER_S if now < begun + _EAGER_FOR_S else _PATIENT_S)
        raise TimeoutError
    finally:
        for sock in tuple(attempts):
            drop(sock)
        selector.close()
