"""A live migration as values: its settings, and what was seen of it.

Pre-copy: the guest runs on while its RAM is copied, in passes, because it dirties pages meanwhile. QEMU stops
it when what is left can be sent within the allowed downtime. docs/measuring.md, "A live migration".
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.core.units import NS_PER_MS


@dataclass(frozen=True)
class MigrationSpec:
    """The settings of a live migration. Those that are not the lab's are QEMU's parameters and capabilities
    (QEMU, qapi/migration.json), with QEMU's defaults.

    max_downtime_ns: downtime-limit, for how long the guest may be stopped at the end. bandwidth:
    max-bandwidth in bytes per second. multifd: the number of channels that RAM is sent through; 0: one,
    without multifd. auto_converge: slow a guest down that dirties memory faster than it is sent.
    post_copy_ns: after this time of pre-copy the guest is moved and gets the rest of its memory on demand;
    None: never.
    """

    max_downtime_ns: int = 300 * NS_PER_MS
    bandwidth: int = 128 << 20
    multifd: int = 0
    auto_converge: bool = False
    post_copy_ns: int | None = None


QEMU_DEFAULTS = MigrationSpec()


@dataclass(frozen=True)
class MigrationSample:
    """One answer of the source to query-migrate. at_ns: time since the order.

    status: QEMU's, such as "active". passes: begun over the RAM so far. remaining: bytes left to send.
    transferred: bytes sent. dirty_bytes_s: how fast the guest dirtied memory in the last pass that QEMU has
    measured, in bytes per second; 0 before that. throttle: for which share of the time QEMU keeps the vCPUs
    from running, in percent.
    """

    at_ns: int
    status: str
    passes: int
    remaining: int
    transferred: int
    dirty_bytes_s: int
    throttle: int


@dataclass(frozen=True)
class MigrationReport:
    """One live migration. began_raw_ns: the order, host MONOTONIC_RAW. took_ns: from there to its end.

    status: QEMU's last one. downtime_ns, total_ns: what QEMU reports of a completed one, to the millisecond;
    None without that. transferred: bytes sent. passes: over the RAM. settings: those that it had. samples:
    while the source was asked, in order of time.
    """

    began_raw_ns: int
    took_ns: int
    status: str
    downtime_ns: int | None
    total_ns: int | None
    transferred: int
    passes: int
    settings: MigrationSpec
    samples: tuple[MigrationSample, ...] = ()
