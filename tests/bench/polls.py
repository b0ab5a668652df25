"""How many polls a second the metadata service answers on one core, while events come and go.

    .venv/bin/python -m tests.bench.polls [--seconds 10] [--rate POLLS/S] [--door unix|tcp] …

A command, no test: what it tells is about this machine at this moment. The service has one core to itself,
the guests have another. Every guest polls over connections that are kept, as fast as they are answered, or at
a rate. Meanwhile an event of every set is announced, approved by a guest, and finished, over and over. Exits
with 1 when a poll was not answered, or not with 200 and a document.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from lab.core.plan import Announcement, CycleSpec, FreezeMethod, HoldPatch
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.model import Kind, Rules
from lab.events.service import MetadataService
from lab.process.clock import HostClock

PATH = "/metadata/scheduledevents?api-version=2020-07-01"
HEAD = "Host: 169.254.169.254\r\nUser-Agent: bench\r\nAccept: */*\r\nMetadata: true\r\n"
POLL = f"GET {PATH} HTTP/1.1\r\n{HEAD}\r\n".encode()
S = 1_000_000_000
EVERY_NS = S // 5
CYCLE = CycleSpec(FreezeMethod.SUSPEND, HoldPatch(S))


def serve(pipe: Connection, core: int, guests: int, folder: Path, tcp: bool) -> None:
    """The service's process: a door for each guest, and an event of each set every fifth of a second."""
    os.sched_setaffinity(0, {core})
    instances = []
    for number in range(guests):
        guest, member_of = f"guest-{number}", f"set-{number // 4}"
        instances.append(InstanceInfo(guest, guest, "", "", availability_set=member_of))
    clock = HostClock()
    with MetadataService(instances, Rules(), clock, folder) as service:
        if tcp:
            pipe.send([service.listen("127.0.0.1", 0, about.guest) for about in instances])
        else:
            pipe.send([str(service.path(about.guest)) for about in instances])
        pipe.recv()
        cpu_ns, began_ns = time.process_time_ns(), time.monotonic_ns()
        shown: tuple[str, ...] = ()
        while not pipe.poll():
            service.announcer.all_clear(shown)
            shown = service.announcer.announce([one.guest for one in instances], Announcement(), CYCLE)
            clock.sleep_until(clock.now().raw_ns + EVERY_NS)
        used = (time.process_time_ns() - cpu_ns) / (time.monotonic_ns() - began_ns)
        kinds = [one.kind for one in service.announcer.happened()]
        counts = {
            kind.value: kinds.count(kind) for kind in (Kind.PUBLISHED, Kind.APPROVED, Kind.STARTED, Kind.GONE)
        }
        pipe.send((used, counts, service.trouble))


class Load:
    """The guests, all of them. took_ns: of each poll."""

    def __init__(self, ends_s: float, apart_s: float) -> None:
        self.ends_s, self.apart_s = ends_s, apart_s
        self.took_ns: list[int] = []
        self.errors: list[str] = []

    async def guest(self, door: str | tuple[str, int], number: int) -> None:
        opened = (
            asyncio.open_unix_connection(door) if isinstance(door, str) else asyncio.open_connection(*door)
        )
        reader, writer = await opened
        last, next_s = 0, time.monotonic() + self.apart_s * number / 32
        while time.monotonic() < self.ends_s:
            if self.apart_s:
                await asyncio.sleep(max(0.0, next_s - time.monotonic()))
                next_s += self.apart_s
            began = time.monotonic_ns()
            status, body = await self._exchange(reader, writer, POLL)
            self.took_ns.append(time.monotonic_ns() - began)
            document = json.loads(body) if status == 200 else {}
            if status != 200 or document["DocumentIncarnation"] < last:
                self.errors.append(f"{status} {body[:80]!r}")
                continue
            last = document["DocumentIncarnation"]
            waiting = [one["EventId"] for one in document["Events"] if one["EventStatus"] == "Scheduled"]
            if waiting and number % 4 == 0:
                text = json.dumps({"StartRequests": [{"EventId": one} for one in waiting]})
                raw = f"POST {PATH} HTTP/1.1\r\n{HEAD}Content-Length: {len(text)}\r\n\r\n{text}".encode()
                status, body = await self._exchange(reader, writer, raw)
                if status != 200 and b"error" not in body:  # 400: another one was faster, and it is over
                    self.errors.append(f"{status} {body[:80]!r}")
        writer.close()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, raw: bytes
    ) -> tuple[int, bytes]:
        writer.write(raw)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head.split(b" ", 2)[1]), await reader.readexactly(length) if length else b""


async def ask(load: Load, doors: list[str | tuple[str, int]], clients: int) -> None:
    work = [load.guest(door, number) for number in range(clients) for door in doors]
    for failure in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(failure, BaseException):
            load.errors.append(repr(failure))


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    options.add_argument("--seconds", type=float, default=10)
    options.add_argument("--guests", type=int, default=8)
    options.add_argument("--clients", type=int, default=4, help="connections of each guest")
    options.add_argument("--rate", type=float, default=0, help="polls a second in all; 0: as many as can be")
    options.add_argument("--door", choices=["unix", "tcp"], default="unix")
    asked = options.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    here, there = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory(prefix="fl-") as folder:
        process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(there, cores[0], asked.guests, Path(folder) / "doors", asked.door == "tcp")
        )
        process.start()
        doors = here.recv()
        os.sched_setaffinity(0, {cores[-1]})
        before = os.getloadavg()[0]
        here.send(True)
        began_s = time.monotonic()
        apart_s = asked.guests * asked.clients / asked.rate if asked.rate else 0.0
        load = Load(began_s + asked.seconds, apart_s)
        asyncio.run(ask(load, doors, asked.clients))
        took_s = time.monotonic() - began_s
        here.send(True)
        used, counts, trouble = here.recv()
        process.join()
    load.took_ns.sort()
    load.errors += [trouble] if trouble else []
    polls, ms = len(load.took_ns), [load.took_ns[int(len(load.took_ns) * part)] / 1e6 for part in (0.5, 0.99)]
    sys.stdout.write(
        f"{polls / took_s:,.0f} polls/s, {len(load.errors)} errors in {polls:,}\n"
        f"the service used {used:.0%} of its core, {used * took_s / polls * 1e6:.0f} µs for each poll\n"
        f"latency p50 {ms[0]:.2f} ms, p99 {ms[1]:.2f} ms, longest {load.took_ns[-1] / 1e6:.2f} ms\n"
        f"{asked.guests} guests × {asked.clients} connections over {asked.door}, {took_s:.1f} s; "
        f"events: {', '.join(f'{count} {kind}' for kind, count in counts.items())}\n"
        f"load {before:.1f} before, {os.getloadavg()[0]:.1f} after, {os.cpu_count()} CPUs, "
        f"Python {platform.python_version()}\n"
    )
    for error in load.errors[:5]:
        sys.stdout.write(f"error: {error}\n")
    return 1 if load.errors else 0


if __name__ == "__main__":
    sys.exit(main())
