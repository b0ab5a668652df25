"""redis-sentinel: a primary, a replica and three Sentinels on three guests; the primary's guest is frozen.

Redis acknowledges a write before the replica has it, and an old primary takes writes until a Sentinel demotes
it: what it has acknowledged is lost then. Writes count as delivered once both servers have them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lab.core.clock import Interval
from lab.core.method import Regime
from lab.core.setup import Ready, ReadyKind, SetupCommand, SetupFile, SetupService, SetupSpec
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.workload.prediction import EVER_NS, Threshold
from lab.core.workload.shipped.base import Options, ShippedWorkload, WorkloadGuest
from lab.core.workload.shipped.option_values import duration_ns, one_of
from lab.core.workload.spec import WorkloadExpect

PORT, SENTINEL_PORT, MASTER = 6379, 26379, "mymaster"
FIRST, SECOND, THIRD = NAMES = ("redis-0", "redis-1", "redis-2")
STAYS, FOLLOWS = "stays", "follows"

PING_NS = NS_PER_S
FAILOVER_NS = 6 * NS_PER_S
TILT_NS, TICK_NS = 2000 * NS_PER_MS, 200 * NS_PER_MS
"""sentinel.c of Redis 7.0: SENTINEL_PING_PERIOD; asking the others (SENTINEL_ASK_PERIOD), the random delay
(SENTINEL_MAX_DESYNC) and the election, each some 1 s; SENTINEL_TILT_TRIGGER; ten ticks a second."""

LOCAL = f"redis-cli -p {SENTINEL_PORT}"

SCRIPT = f"""\
#!/bin/sh
# formed: the Sentinels know each other and the replica. lead: and {FIRST} is the primary, and all is quiet.
fail() {{ echo "$*" >&2; exit 1; }}
address() {{ getent ahostsv4 "$1" | grep -v '^127' | head -n1 | cut -d' ' -f1; }}
value() {{ redis-cli -h "$1" -p {SENTINEL_PORT} sentinel master {MASTER} | grep -A1 -x "$2" | tail -n1; }}
complete() {{
    [ "$(value "$1" flags)" = master ] || fail "$1: the primary is $(value "$1" flags)"
    [ "$(value "$1" num-slaves)" = 1 ] || fail "$1 knows no replica"
    [ "$(value "$1" num-other-sentinels)" = 2 ] || fail "$1 does not know all Sentinels"
}}
case $1 in
formed) complete 127.0.0.1 ;;
lead)
    [ "$(hostname)" = {FIRST} ] || exit 0
    if [ "$(redis-cli role | head -n1)" != master ]; then
        redis-cli -h {SECOND} -p {SENTINEL_PORT} sentinel failover {MASTER} >&2
        exit 1
    fi
    for one in {" ".join(NAMES)}; do
        complete $one
        [ "$(value $one ip)" = "$(address {FIRST})" ] || fail "$one: {FIRST} is not the primary"
    done
    redis-cli info replication | grep -q '^slave0:.*state=online' || fail "no replica is online"
    {LOCAL} info sentinel | grep -q '^sentinel_tilt:0' || fail "the Sentinel is in TILT"
    ;;
esac
"""

SERVER = (
    "sed -i -e 's/^bind .*/bind 0.0.0.0/' -e 's/^protected-mode .*/protected-mode no/' /etc/redis/redis.conf"
)
REPLICA = f"echo 'replicaof {FIRST} {PORT}' >> /etc/redis/redis.conf"
SENTINEL = """\
address=$(getent ahostsv4 {first} | grep -v '^127' | head -n1 | cut -d' ' -f1)
sed -i -e "s/^sentinel monitor .*/sentinel monitor {master} $address {port} 2/" \\
    -e "s/^sentinel down-after-milliseconds .*/sentinel down-after-milliseconds {master} {down}/" \\
    /etc/redis/sentinel.conf
"""


def _guests(options: Options) -> tuple[WorkloadGuest, ...]:
    one_of(options, "client", (STAYS, FOLLOWS))
    down = duration_ns(options, "down-after") // NS_PER_MS
    return tuple(WorkloadGuest(name, _setup(name, down), 256 << 20, name != FIRST) for name in NAMES)


def _setup(name: str, down_ms: int) -> SetupSpec:
    sentinel = SENTINEL.format(master=MASTER, first=FIRST, port=PORT, down=down_ms)
    commands, services = [SetupCommand(sentinel)], []
    if name != THIRD:
        commands.append(SetupCommand(SERVER + (f"\n{REPLICA}" if name == SECOND else "")))
        services.append(SetupService("redis-server", Ready(ReadyKind.PORT, str(PORT))))
    services.append(SetupService("redis-sentinel", Ready(ReadyKind.PORT, str(SENTINEL_PORT))))
    return SetupSpec(
        packages=("redis-server", "redis-sentinel"),
        files=(SetupFile("/usr/local/bin/redis-lab", content=SCRIPT, mode="0755"),),
        run=tuple(commands),
        services=tuple(services),
    )


def down_after_ns(config: Mapping[str, str]) -> int | None:
    """What the Sentinels wait before they hold the primary for down, as the first of them that says so has
    it in `SENTINEL MASTER`; None: none says so."""
    for text in config.values():
        found = re.search(r"^down-after-milliseconds\n([0-9]+)$", text, re.MULTILINE)
        if found is not None:
            return int(found[1]) * NS_PER_MS
    return None


def _predict(config: Mapping[str, str], options: Options, regime: Regime) -> tuple[Threshold, ...]:
    tilts = Interval(TILT_NS - TICK_NS, TILT_NS + TICK_NS if regime is Regime.JUMPED else EVER_NS)
    why = "TILT above 2000 ms between two ticks"
    if regime is Regime.RESUMED:
        why += ": only when its clock is stepped afterwards"
    found = [Threshold("+tilt", tilts, why, "sentinel.c, SENTINEL_TILT_TRIGGER")]
    down = down_after_ns(config)
    if down is None:
        return tuple(found)
    because = f"down-after-milliseconds {down // NS_PER_MS}"
    moves = Interval(max(0, down - PING_NS), down + FAILOVER_NS)
    source = "redis.io, High availability with Redis Sentinel"
    old = f"{because}: the old primary takes writes until a Sentinel demotes it"
    found += [Threshold("master", moves, because, source), Threshold("two primary", moves, old, source)]
    stays = options["client"] == STAYS
    lost = moves if stays else Interval(moves.low_ns, EVER_NS)
    found.append(Threshold("lost", lost, f"{old}; the client {options['client']}", source))
    return tuple(found)


REDIS_SENTINEL = ShippedWorkload(
    name="redis-sentinel",
    about="Writes to Redis, with a primary, a replica and three Sentinels",
    guests=_guests,
    client="redis_sentinel",
    period_ns=50_000_000,
    delivers=True,
    expect=WorkloadExpect(beyond_pause_ns=2 * NS_PER_S, lost=0, one_holder=("primary",)),
    config=f"{LOCAL} sentinel master {MASTER}; {LOCAL} info server; cat /etc/redis/sentinel.conf",
    predict=_predict,
    options=(("down-after", "30s"), ("client", STAYS)),
    formed="redis-lab formed",
    before="redis-lab lead",
    before_within_ns=120 * NS_PER_S,
    timers="down-after-milliseconds 30000; TILT 2000 ms between ticks, for 30 s (sentinel.c)",
)
