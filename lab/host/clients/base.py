"""What all clients share: their arguments, an open-loop schedule, and their lines."""

from __future__ import annotations

import argparse
import json
import os
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
