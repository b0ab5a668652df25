"""What all clients share: their arguments, an open-loop schedule, and their lines."""

from __future__ import annotations

import argparse
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lab.core.workload.sample import PROTOCOL, SampleClock


@dataclass(frozen=True)
class ClientArguments:
    """guests: address by name, in the order of the workload's guests."""

    period_ns: int
    guests: dict[str, str]
    options: dict[str, str]


LARGEST_DATAGRAM = 4096
_PRINTING = threading.Lock()


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("write NAME=VALUE")
    return name, value


def arguments(argv: Sequence[str] | None = None) -> ClientArguments:
    """Those of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--period-ns", type=int, required=True)
    parser.add_argument("--guest", type=_pair, action="append", default=[])
    parser.add_argument("--option", type=_pair, action="append", default=[])
    given = parser.parse_args(argv)
    return ClientArguments(given.period_ns, dict(given.guest), dict(given.option))


def raw_ns() -> int:
    """The host's MONOTONIC_RAW."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)


def print_sample(**members: Any) -> None:
    """Print a sample, from any thread. When nobody reads the lines any more, the program ends."""
    line = (json.dumps(members, separators=(",", ":")) + "\n").encode()
    try:
        with _PRINTING:
            while line:
                line = line[os.write(1, line) :]
    except BrokenPipeError:
        os._exit(0)


def hello(period_ns: int) -> None:
    """Print the first line."""
    print_sample(freezelab=PROTOCOL, clock=SampleClock.MONOTONIC_RAW, period_ns=period_ns)


def udp_socket(buffer_bytes: int = 1 << 21) -> socket.socket:
    """A socket that never blocks, with room for what comes while the client is busy."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    made.setblocking(False)
    return made


def datagrams(door: socket.socket) -> Iterator[bytes]:
    """What has arrived at such a socket, until there is no more now."""
    while True:
        try:
            yield door.recv(LARGEST_DATAGRAM)
        except BlockingIOError:
            return
        except OSError:
            continue  # what ICMP says of an earlier packet


def expired(waiting: dict[int, tuple[int, int]], before_ns: int) -> Iterator[tuple[int, int, int]]:
    """Take the requests that were sent until before_ns out of `waiting` (by number, when each was due and
    sent, in order of both): their number, due and sent."""
    while waiting:
        number, (due, sent) = next(iter(waiting.items()))
        if sent > before_ns:
            return
        del waiting[number]
        yield number, due, sent


def schedule(period_ns: int) -> Iterator[tuple[int, int]]:
    """Numbers and the times at which they are due (host MONOTONIC_RAW), each yielded when its time has come.
    The times do not depend on how long the caller takes (open loop)."""
    first, number = raw_ns() + period_ns, 0
    while True:
        due = first + number * period_ns
        while (left := due - raw_ns()) > 0:
            time.sleep(left / 1e9)
        yield number, due
        number += 1
