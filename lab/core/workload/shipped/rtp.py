"""rtp: ffmpeg sends a tone in real time by RTP, as a telephone does: G.711, a packet each 20 ms (RFC 3551).

The client has a jitter buffer: a packet that comes later than this after its time cannot be played any more.
After a RESUMED pause the sender is behind by the pause and stays so; the client notices within a second and
begins anew. After a JUMPED one ffmpeg sends what it has missed in a burst.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lab.core.clock import Interval
from lab.core.method import Regime
from lab.core.setup import Ready, ReadyKind, SetupFile, SetupService, SetupSpec
from lab.core.units import NS_PER_MS, NS_PER_S, format_duration
from lab.core.workload.prediction import Threshold
from lab.core.workload.shipped.base import Options, ShippedWorkload, WorkloadGuest
from lab.core.workload.shipped.hls import PACKAGES
from lab.core.workload.shipped.option_values import duration_ns
from lab.core.workload.spec import WorkloadExpect

PORT = 5004
RATE_HZ = 8000
PACKET_NS = 20 * NS_PER_MS
JITTER = (NS_PER_MS, 10 * NS_PER_S)
"""From and to, in ns."""

LATE, BEHIND = "packet late", "source behind"
REORDERED, RESTARTED = "packet reordered", "restarted"
HOST = "10.77.0.1"

# 12 bytes of header and 160 of sound: 20 ms.
UNIT = f"""\
[Unit]
Description=A tone by RTP
[Service]
ExecStart=/usr/bin/ffmpeg -nostdin -loglevel warning -re \\
    -f lavfi -i sine=frequency=440:sample_rate={RATE_HZ}:samples_per_frame=160 \\
    -c:a pcm_mulaw -f rtp rtp://{HOST}:{PORT}?pkt_size=172
Restart=always
RestartSec=1
"""


def _guests(options: Options) -> tuple[WorkloadGuest, ...]:
    duration_ns(options, "jitter", *JITTER)
    setup = SetupSpec(
        packages=PACKAGES,
        files=(SetupFile("/etc/systemd/system/rtp.service", content=UNIT),),
        services=(SetupService("rtp", Ready(ReadyKind.COMMAND, "pgrep -x ffmpeg")),),
    )
    return (WorkloadGuest("media-0", setup),)


def _predict(config: Mapping[str, str], options: Options, regime: Regime) -> tuple[Threshold, ...]:
    if not re.search(r"^ExecStart=.*ffmpeg", config.get("media-0", ""), re.MULTILINE):
        return ()
    jitter = duration_ns(options, "jitter", *JITTER)
    because = f"the client's jitter buffer of {format_duration(jitter)}"
    return (Threshold(LATE, Interval(max(0, jitter - PACKET_NS), jitter + 3 * PACKET_NS), because),)


RTP = ShippedWorkload(
    name="rtp",
    about="Sound by RTP from ffmpeg, a packet each 20 ms, to a client with a jitter buffer of 200 ms",
    guests=_guests,
    client="rtp",
    period_ns=PACKET_NS,
    expect=WorkloadExpect(failed=50),  # a second of sound
    config="cat /etc/systemd/system/rtp.service",
    predict=_predict,
    options=(("jitter", "200ms"),),
)
