"""The workloads of the lab's own, one module each. Adding one: docs/adding.md.

base            what each is made of
option_values   their options, read
state_server    a program for guests that tells what only they know
journal_server  another one, which tells lists of times
"""

from __future__ import annotations

from collections.abc import Mapping

from lab.core.workload.shipped import (
    corosync,
    echo,
    etcd,
    haproxy,
    hardware_watchdog,
    hls,
    keepalived,
    mosquitto,
    nats,
    redis_sentinel,
    rtp,
    systemd_watchdog,
    tcp_stream,
    timestamps,
    tls,
    transcoding,
    udp_stream,
)
from lab.core.workload.shipped.base import ShippedWorkload as ShippedWorkload

SHIPPED: Mapping[str, ShippedWorkload] = {
    one.name: one
    for one in (
        echo.ECHO,
        etcd.ETCD,
        keepalived.KEEPALIVED,
        corosync.COROSYNC,
        nats.NATS,
        redis_sentinel.REDIS_SENTINEL,
        mosquitto.MOSQUITTO,
        systemd_watchdog.SYSTEMD_WATCHDOG,
        hardware_watchdog.HARDWARE_WATCHDOG,
        tcp_stream.TCP_STREAM,
        udp_stream.UDP_STREAM,
        tls.TLS,
        timestamps.TIMESTAMPS,
        haproxy.HAPROXY,
        hls.HLS,
        rtp.RTP,
        transcoding.TRANSCODING,
    )
}
"""By name, as a playbook has it."""
