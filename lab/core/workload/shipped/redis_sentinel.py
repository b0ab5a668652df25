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
#!/usr/bin/python3
# formed: the Sentinels know each other and the replica. lead: and {FIRST} is the primary, and all is quiet.
# One program that asks them all: a busy emulated guest starts no twenty of them in time.
import socket, sys

def value(file):
    line = file.readline()
    kind, text = line[:1], line[1:].strip().decode()
    if kind == b"$":
        return file.read(int(text) + 2)[:-2].decode() if int(text) >= 0 else None
    if kind == b"*":
        return [value(file) for _ in range(int(text))]
    return text

def ask(host, port, *words):
    with socket.create_connection((host, port), 5) as link:
        link.sendall((" ".join(words) + "\\r\\n").encode())
        return value(link.makefile("rb"))

def sentinel(host):
    words = ask(host, {SENTINEL_PORT}, "SENTINEL", "MASTER", "{MASTER}")
    if not isinstance(words, list):
        sys.exit("%s: %s" % (host, words))
    state = dict(zip(words[::2], words[1::2]))
    for name, wanted in (("flags", "master"), ("num-slaves", "1"), ("num-other-sentinels", "2")):
        if state.get(name) != wanted:
            sys.exit("%s: %s is %s, not %s" % (host, name, state.get(name), wanted))
    return state

if sys.argv[1] == "formed":
    sentinel("127.0.0.1")
elif socket.gethostname() == "{FIRST}":
    if ask("127.0.0.1", {PORT}, "ROLE")[0] != "master":
        sys.exit("not the primary: %s" % ask("{SECOND}", {SENTINEL_PORT}, "SENTINEL", "FAILOVER", "{MASTER}"))
    own = [one[4][0] for one in socket.getaddrinfo("{FIRST}", None, socket.AF_INET)]
    for each in {NAMES}:
        if sentinel(each)["ip"] not in own:
            sys.exit("%s: {FIRST} is not the primary" % each)
    if "state=online" not in ask("127.0.0.1", {PORT}, "INFO", "replication"):
        sys.exit("no replica is online")
    if "sentinel_tilt:0" not in ask("127.0.0.1", {SENTINEL_PORT}, "INFO", "sentinel"):
        sys.exit("its Sentinel is in TILT")
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
)
