"""hls: ffmpeg makes a live stream in segments, nginx serves it, and the client plays it (RFC 8216).

A player holds some segments as its buffer (three target durations is what the RFC asks for, 6.3.3). It stands
still when the pause outlasts what it has. How much that is depends on when it joined and on when the last
segment came: from one segment less than its buffer to one more.
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
from lab.core.workload.shipped.option_values import whole_number
from lab.core.workload.spec import WorkloadExpect

PORT = 8080
PLAYLIST, SESSION = "/live.m3u8", "/session"
STALL, SKIPPED = "stall", "segment skipped"

PACKAGES = ("ffmpeg", "nginx-light")
"""Of all workloads with ffmpeg, so that they share an image."""

FOLDER = "/run/hls"
ENCODER = """\
[Unit]
Description=Live HLS stream
[Service]
ExecStartPre=/bin/mkdir -p {folder}
ExecStart=/usr/bin/ffmpeg -nostdin -loglevel warning -re -f lavfi -i testsrc2=size=160x90:rate=5 \\
    -threads 1 -c:v libx264 -preset ultrafast -tune zerolatency -g 5 \\
    -f hls -hls_time {segment} -hls_list_size {listed} -hls_flags delete_segments {folder}/live.m3u8
Restart=always
"""

WEB = """\
[Unit]
Description=nginx for the stream
[Service]
ExecStart=/usr/sbin/nginx -c /etc/nginx/hls.conf
Restart=always
"""

NGINX = f"""\
daemon off;
user root;
pid /run/nginx-hls.pid;
worker_processes 1;
error_log stderr;
events {{ worker_connections 64; }}
http {{
    access_log off;
    default_type application/octet-stream;
    server {{
        listen {PORT};
        root {FOLDER};
        add_header Cache-Control no-cache;
    }}
}}
"""


def _guests(options: Options) -> tuple[WorkloadGuest, ...]:
    buffer = whole_number(options, "buffer", 1, 20)
    listed = whole_number(options, "listed", 3, 50)
    if listed < buffer:
        raise ValueError(f"listed: {listed} is less than the player's buffer of {buffer} segments")
    encoder = ENCODER.format(folder=FOLDER, segment=whole_number(options, "segment_s", 1, 10), listed=listed)
    setup = SetupSpec(
        packages=PACKAGES,
        files=(
            SetupFile("/etc/nginx/hls.conf", content=NGINX),
            SetupFile("/etc/systemd/system/hls.service", content=encoder),
            SetupFile("/etc/systemd/system/hls-web.service", content=WEB),
        ),
        services=(SetupService("hls"), SetupService("hls-web", Ready(ReadyKind.PORT, str(PORT)))),
    )
    return (WorkloadGuest("media-0", setup),)


def _predict(config: Mapping[str, str], options: Options, regime: Regime) -> tuple[Threshold, ...]:
    found = re.search(r"-hls_time ([0-9.]+)", config.get("media-0", ""))
    if found is None:
        return ()
    segment = round(float(found[1]) * NS_PER_S)
    buffer = whole_number(options, "buffer", 1, 20)
    slack = 500 * NS_PER_MS
    at = Interval(max(0, (buffer - 1) * segment - slack), (buffer + 1) * segment + slack)
    because = f"-hls_time {found[1]}, the player holds {buffer} segments of {format_duration(segment)}"
    return (Threshold(STALL, at, because, "RFC 8216, 6.3.3"),)


HLS = ShippedWorkload(
    name="hls",
    about="A live HLS stream by ffmpeg and nginx, and a player with a buffer of three segments of 2 s",
    guests=_guests,
    client="hls",
    period_ns=200 * NS_PER_MS,
    expect=WorkloadExpect(never=(STALL,)),
    config="cat /etc/systemd/system/hls.service",
    predict=_predict,
    options=(("buffer", "3"), ("segment_s", "2"), ("listed", "6")),
    formed=f"test \"$(grep -c '^#EXTINF' {FOLDER}/live.m3u8)\" -ge 4",
    # A new viewer for each cycle: after a RESUMED pause the stream is late for ever, and the buffer of those
    # who watched it is smaller by the pause.
    before=f"date +%s%N >{FOLDER}/session",
)
