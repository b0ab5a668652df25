"""The probe's requests and answers (inside/clock_probe.py), independent of the channel."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from lab.core.clock import GuestClock, Stamp
from lab.core.depth import Depth, ProbeLimits
from lab.core.timeline import ClockStep, CrossTimestamp, Hole, PacketStamps, Reading, SamplerReport
from lab.errors import GuestError

_RECEIPT = (GuestClock.RAW, GuestClock.REAL, GuestClock.MONO, GuestClock.BOOT)
_ANSWER = _RECEIPT[::-1]

Exchange = Callable[[bytes, bytes, bytes], tuple[Stamp, Stamp, bytes]]
"""Sends a line. Arguments: the line, and the letter and echo with which the answer starts. Returns stamps
before the sending and after the answer's arrival, and the rest of the answer."""

BRIEF = 60
"""The most characters of an answer that an error quotes."""


@contextmanager
def parsing(answer: bytes) -> Iterator[None]:
    """A context that takes an answer apart. GuestError when it is not what the program writes."""
    try:
        yield
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        text = answer[:BRIEF].decode(errors="replace")
        raise GuestError(f"the probe's answer is not valid: {text!r}") from error


@dataclass(frozen=True)
class ProbeHello:
    """What a program says first of all. path: of its socket in the guest; "" without one."""

    depth: Depth
    limits: ProbeLimits
    path: str


def hello(answer: bytes) -> ProbeHello:
    with parsing(answer):
        data = json.loads(answer)
        depth, steady = Depth(data.get("depth", Depth.PYTHON)), data.get("steady", GuestClock.RAW)
        limits = ProbeLimits(data["resolution_ns"], steady)
        if depth is Depth.SHELL:
            limits = replace(limits, period_ns=data["period_ns"])
        return ProbeHello(depth, limits, data["path"])


def reading(
    exchange: Exchange, number: bytes, resolution_ns: int, channel: str, seen: Callable[[], bytes]
) -> Reading:
    """One reading. seen: waits for the guest kernel's packet stamps of it; returns b"" without any.
    GuestError for an answer that is not valid."""
    t1, t4, answer = exchange(b"r %s\n" % number, b"R", b" %s " % number)
    words = answer.split()
    packet_stamps, cross, rest = None, None, words[8:]
    with parsing(answer):
        t2, t3 = _clocks(_RECEIPT, words[:4]), _clocks(_ANSWER, words[4:8])
        if rest[:1] == [b"x"]:
            cross, rest = CrossTimestamp(*map(int, rest[1:4])), rest[4:]
    if rest == [b"+"] and (stamps := seen()):
        with parsing(stamps):
            arrived, least, left, most = (int(n) for n in stamps.split())
        packet_stamps = PacketStamps(arrived or None, least, left or None, most)
    return Reading(t1, t2, t3, t4, resolution_ns, packet_stamps, channel, cross)


def _clocks(names: tuple[GuestClock, ...], words: list[bytes]) -> dict[GuestClock, int]:
    """The clocks that were read: "-" stands for one that was not."""
    return {name: int(word) for name, word in zip(names, words, strict=True) if word != b"-"}


def new_cycle(exchange: Exchange) -> None:
    exchange(b"c\n", b"C", b"")


def rest(exchange: Exchange) -> None:
    exchange(b"p\n", b"P", b"")


def samples(exchange: Exchange) -> SamplerReport:
    answer = exchange(b"s\n", b"S", b"")[2]
    with parsing(answer):
        data = json.loads(answer)
        data["holes"] = tuple(Hole(*pair) for pair in data["holes"])
        data["steps"] = tuple(ClockStep(*pair) for pair in data["steps"])
        return SamplerReport(**data)


def facts(exchange: Exchange) -> dict[str, Any]:
    """The fields of core.timeline.ProbeFacts that the guest knows."""
    answer = exchange(b"f\n", b"F", b"")[2]
    with parsing(answer):
        data = json.loads(answer)
        lines = data["kernel_lines"]
        members = {name: data[name] for name in ("boot_id", "clocksource", "kernel", "python")}
        members["rtc_minus_real_ns"] = data["rtc_minus_real_ns"]
        members |= {name: data[name] for name in ("depth", "steady", "steal_ns") if name in data}
        return {**members, "kernel_lines": None if lines is None else tuple(lines)}
