"""tcp-stream: iperf3 in the guest, and a client that speaks its protocol and reads its own socket's TCP_INFO.

A request is a slice of a tenth of a second; it succeeds when bytes arrived in it (or, upwards, when the guest
acknowledged some). So the outage is the time in which the connection stood still: the pause, and what TCP
needs after it. Upwards the host retransmits during the pause, and its timer doubles each time (RFC 6298); the
next attempt may then be as far away as the pause was long. But the network keeps a number of frames for a
frozen guest, retransmissions among them, and the guest answers those as soon as it runs. Downwards it is the
guest whose timers count, and they stood still (RESUMED) or are all due at once (JUMPED).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lab.core.clock import Interval
from lab.core.method import Regime
from lab.core.network import HOST
from lab.core.setup import Ready, ReadyKind, SetupFile, SetupService, SetupSpec
from lab.core.units import NS_PER_MS, NS_PER_S, format_duration
from lab.core.workload.prediction import EVER_NS, Threshold
from lab.core.workload.shipped.base import Options, ShippedWorkload, WorkloadGuest
from lab.core.workload.shipped.option_values import bit_rate, one_of
from lab.core.workload.spec import WorkloadExpect

PORT = 5201
LOST = "connection lost"
DIRECTIONS = ("down", "up")
RATES = (100_000, 1_000_000_000)
"""From and to, in bit/s."""

UNIT = f"""\
[Unit]
Description=iperf3 server
[Service]
ExecStart=/usr/bin/iperf3 -s -p {PORT} --rcv-timeout 120000 --forceflush
Restart=always
RestartSec=1
"""
_OWN_TIMERS = "the guest's retransmission timer stands still with it, or is due when it wakes"
CONFIG = (
    "cat /etc/systemd/system/iperf3-lab.service; sysctl net.ipv4.tcp_retries2 net.ipv4.tcp_congestion_control"
)


def _guests(options: Options) -> tuple[WorkloadGuest, ...]:
    one_of(options, "direction", DIRECTIONS)
    bit_rate(options, "rate", *RATES)
    setup = SetupSpec(
        packages=("iperf3",),
        files=(SetupFile("/etc/systemd/system/iperf3-lab.service", content=UNIT),),
        services=(
            # A connection would count as a test: its port is looked at instead.
            SetupService("iperf3-lab", Ready(ReadyKind.COMMAND, f"grep -q :{PORT:04X} /proc/net/tcp*")),
        ),
    )
    return (WorkloadGuest("stream-0", setup),)


def _predict(config: Mapping[str, str], options: Options, regime: Regime) -> tuple[Threshold, ...]:
    text = config.get("stream-0", "")
    up = options.get("direction") == "up"
    found = [_outage(config.get(HOST, ""))] if up else [Threshold("outage", None, _OWN_TIMERS)]
    timeout = re.search(r"--rcv-timeout (\d+)", text)
    if up and regime is Regime.JUMPED and timeout:
        limit = int(timeout[1]) * NS_PER_MS
        because = f"iperf3 --rcv-timeout {timeout[1]} ({format_duration(limit)})"
        found.append(Threshold(LOST, Interval(limit, 2 * limit), because, "iperf3(1)"))
        return tuple(found)
    # 15 doublings from 0.2 s, at most 120 s each, and its end is at most one more of them away.
    retries = re.search(r"tcp_retries2 = (\d+)", text)
    if retries and not (regime is Regime.RESUMED and not up):
        low = _retries_ns(int(retries[1]))
        because = f"net.ipv4.tcp_retries2 {retries[1]}: at least {format_duration(low)}"
        found.append(Threshold(LOST, Interval(low, 2 * low), because, "ip-sysctl (Linux)"))
    else:
        found.append(Threshold(LOST, None, "the guest's timers stand still with it"))
    return tuple(found)


def _outage(network: str) -> Threshold:
    """network: what it does with frames for the frozen guest (LabNetwork.keeping)."""
    if not re.search(r"^stream-0: (queue 0|port of a bridge)$", network, re.MULTILINE):
        return Threshold("outage", None, "frames that the network keeps for the guest are answered at once")
    # Attempts 0.2, 0.6, 1.4 and 3 s after the last answer: from there on they are more than 1 s apart.
    lost = "a bridge keeps none for another QEMU" if "bridge" in network else "the network keeps no frames"
    because = f"{lost}, and retransmissions are ever farther apart"
    return Threshold("outage", Interval(1400 * NS_PER_MS, EVER_NS), because, "RFC 6298, 5.5")


def _retries_ns(retries: int) -> int:
    """How long TCP retransmits at least, as net/ipv4/tcp_timer.c computes it for an RTO of 0.2 s: doubled up
    to 120 s."""
    return sum(min(200 * NS_PER_MS << number, 120 * NS_PER_S) for number in range(retries + 1))


TCP_STREAM = ShippedWorkload(
    name="tcp-stream",
    about="iperf3 in the guest sends to the client (direction: down), or the client to it (up), over one TCP "
    "connection; in slices of 100 ms",
    guests=_guests,
    client="tcp_stream",
    period_ns=100 * NS_PER_MS,
    expect=WorkloadExpect(beyond_pause_ns=NS_PER_S, never=(LOST,)),
    config=CONFIG,
    predict=_predict,
    options=(("direction", "down"), ("rate", "8Mbit")),
)
