"""udp-stream: numbered packets at a fixed rate, to the guest or from it: loss, reordering, throughput.

A request is a slice of a tenth of a second; it succeeds when packets arrived in it, or receipts.

Upwards the guest sends receipts, each for some packets. Downwards it sends on its own clock: that stands
still in a RESUMED pause, so the stream is behind by the pause for ever; after a JUMPED one it sends what it
has missed at once, as iperf3 -u and ffmpeg -re do.
"""

from __future__ import annotations

from collections.abc import Mapping

from lab.core.method import Regime
from lab.core.setup import Ready, ReadyKind, SetupFile, SetupService, SetupSpec
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.workload.prediction import Threshold
from lab.core.workload.shipped.base import Options, ShippedWorkload, WorkloadGuest
from lab.core.workload.shipped.option_values import bit_rate, one_of, whole_number
from lab.core.workload.spec import WorkloadExpect

PORT = 7008
DIRECTIONS = ("down", "up")
LOST, LATE, REORDERED, TWICE = "packet lost", "packet late", "packet reordered", "packet twice"
"""Events, each of a packet. Lost: it has not come within a second. Late: then it came."""


PROGRAM = f"""\
import select, socket, time
door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
door.bind(("", {PORT}))
door.setblocking(False)
who = stream = None
receipts, oldest, first, period, number, filler = [], 0, 0, 0, 0, b""

def now():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)

def send(data):
    try:
        door.sendto(data, who)
    except OSError:
        pass

def receipt():
    if receipts:
        send(b"R %d " % time.time_ns() + b" ".join(receipts))
        receipts.clear()

while True:
    wait = None
    if period:
        wait = max(0, first + number * period - now()) / 1e9
    elif receipts:
        wait = max(0, oldest + 20_000_000 - now()) / 1e9
    if select.select([door], [], [], wait)[0]:
        for _ in range(64):
            try:
                data, who = door.recvfrom(2048)
            except BlockingIOError:
                break
            if data[:1] == b"S":   # S STREAM PERIOD SIZE: send
                _, name, every, size = data.split()
                if name != stream:
                    stream, period, number, first = name, int(every), 0, now()
                    filler = b" ".ljust(int(size) - 32, b"-")
            else:
                period, oldest = 0, oldest if receipts else now()
                receipts.append(data.split(b" ", 1)[0])
    if len(receipts) >= 64 or now() >= oldest + 20_000_000:
        receipt()
    while period and first + number * period <= now():
        send(b"%d %d" % (number, time.time_ns()) + filler)
        number += 1
"""

UNIT = """\
[Unit]
Description=UDP packets at a fixed rate
[Service]
ExecStart=/usr/bin/python3 -u /usr/local/lib/udp-stream.py
Restart=always
"""


def _guests(options: Options) -> tuple[WorkloadGuest, ...]:
    one_of(options, "direction", DIRECTIONS)
    whole_number(options, "size", *SIZES)
    bit_rate(options, "rate", *RATES)
    setup = SetupSpec(
        files=(
            SetupFile("/usr/local/lib/udp-stream.py", content=PROGRAM),
            SetupFile("/etc/systemd/system/udp-stream.service", content=UNIT),
        ),
        services=(
            SetupService("udp-stream", Ready(ReadyKind.COMMAND, f"grep -q :{PORT:04X} /proc/net/udp")),
        ),
    )
    return (WorkloadGuest("stream-0", setup),)


SIZES = (64, 1400)
"""Bytes of a packet, from and to: it fits into an Ethernet frame."""

RATES = (10_000, 100_000_000)
"""From and to, in bit/s."""


def _predict(config: Mapping[str, str], options: Options, regime: Regime) -> tuple[Threshold, ...]:
    return (Threshold("outage", None, "it has no timer; it is out for as long as the pause"),)


UDP_STREAM = ShippedWorkload(
    name="udp-stream",
    about="Numbered UDP packets at a fixed rate from the guest (direction: down) or to it (up)",
    guests=_guests,
    client="udp_stream",
    period_ns=100 * NS_PER_MS,
    expect=WorkloadExpect(beyond_pause_ns=NS_PER_S),
    config="cat /usr/local/lib/udp-stream.py",
    predict=_predict,
    options=(("direction", "down"), ("rate", "2Mbit"), ("size", "1200")),
)
