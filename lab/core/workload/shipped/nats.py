"""nats: events through NATS JetStream: a publisher with acknowledgements, and a durable consumer that
acknowledges each message after its work.

One server that is frozen, or three of which the frozen one leads the stream and its consumer (raft).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from lab.core.clock import Interval
from lab.core.method import Regime
from lab.core.setup import Ready, ReadyKind, SetupCommand, SetupFile, SetupService, SetupSpec
from lab.core.units import NS_PER_S
from lab.core.workload.prediction import EVER_NS, Threshold
from lab.core.workload.shipped.base import Options, ShippedWorkload, WorkloadGuest
from lab.core.workload.shipped.option_values import duration_ns, one_of
from lab.core.workload.spec import WorkloadExpect

PORT, MONITOR_PORT, ROUTE_PORT = 4222, 8222, 6222
STREAM, CONSUMER, SUBJECT, INBOX = "EVENTS", "reader", "events", "reader.inbox"

HEARTBEAT_NS = NS_PER_S
ELECTION_NS = (4 * NS_PER_S, 9 * NS_PER_S)
"""raft in nats-server 2.9: hbInterval, minElectionTimeout and maxElectionTimeout are constants of raft.go."""

MOVED_NS = 5 * NS_PER_S
"""What an election, the consumer's election and the first message after them take at most, as was seen."""

CONFIG = """\
server_name: {name}
listen: 0.0.0.0:4222
http: 0.0.0.0:8222
jetstream {{ store_dir: /var/lib/nats, max_memory_store: 64M, max_file_store: 512M }}
"""

CLUSTER = """\
cluster {{ name: lab, listen: 0.0.0.0:6222, routes: [{routes}] }}
"""

ADMIN = '''\
"""Makes the stream and its consumer (form), and has this guest lead them (lead)."""
import json, socket, sys, time
with open("/etc/nats-lab.json") as file:
    wanted = json.load(file)
STREAM, CONSUMER, SUBJECT, INBOX = "EVENTS", "reader", "events", "reader.inbox"

class Server:
    def __init__(self):
        self.file = socket.create_connection(("127.0.0.1", 4222), 5).makefile("rwb")
        self.name = json.loads(self.file.readline().split(b" ", 1)[1])["server_name"]
        self.write(b'CONNECT {"verbose":false}\\r\\nSUB admin.> 1\\r\\n')
        self.number = 0

    def write(self, data):
        self.file.write(data)
        self.file.flush()

    def ask(self, what, question=None):
        body = json.dumps(question).encode() if question is not None else b""
        self.number += 1
        reply = "admin.%d" % self.number
        self.write(b"PUB $JS.API.%s %s %d\\r\\n%s\\r\\n" % (what.encode(), reply.encode(), len(body), body))
        while True:
            line = self.file.readline()
            if not line:
                sys.exit("the server has closed the connection")
            if line.startswith(b"PING"):
                self.write(b"PONG\\r\\n")
            if line.startswith(b"MSG "):
                data = self.file.read(int(line.split()[-1]) + 2)
                if line.split()[1].decode() == reply:
                    return json.loads(data)

def leads(info, name):
    """Whether this guest leads, and whether somebody leads whom the others follow. That all are current at
    one moment is rare while events come in."""
    cluster = info.get("cluster") or {"leader": name}
    others = cluster.get("replicas") or []
    following = all(not one.get("offline") and one.get("lag", 0) <= 50 for one in others)
    return cluster.get("leader") == name, bool(cluster.get("leader")) and following

def acknowledged():
    """Whether all that was delivered until now is acknowledged within 15 s: what was acknowledged while
    nobody led is delivered once more."""
    delivered = server.ask(of_consumer % "INFO")["delivered"]["stream_seq"]
    for _ in range(30):
        if server.ask(of_consumer % "INFO")["ack_floor"]["stream_seq"] >= delivered:
            return True
        time.sleep(0.5)
    return False

server = Server()
of_stream, of_consumer = "STREAM.%s." + STREAM, "CONSUMER.%s." + STREAM + "." + CONSUMER
if sys.argv[1] == "form":
    stream = {"name": STREAM, "subjects": [SUBJECT], "num_replicas": wanted["servers"], "storage": "file"}
    consumer = {"durable_name": CONSUMER, "deliver_subject": INBOX, "ack_policy": "explicit",
                "deliver_policy": "all", "ack_wait": wanted["ack_wait"]}
    info = server.ask(of_stream % "INFO")
    if "error" in info:
        info = server.ask(of_stream % "CREATE", stream)
    if "error" not in info:
        info = server.ask(of_consumer % "INFO")
    if "error" in info:
        info = server.ask("CONSUMER.DURABLE.CREATE.%s.%s" % (STREAM, CONSUMER),
                          {"stream_name": STREAM, "config": consumer})
    if "error" in info:
        sys.exit(str(info["error"]))
    if not all(leads(server.ask(kind % "INFO"), server.name)[1] for kind in (of_stream, of_consumer)):
        sys.exit("not all replicas are current")
else:
    for kind in (of_stream, of_consumer):
        mine, complete = leads(server.ask(kind % "INFO"), server.name)
        if complete and not mine:
            server.ask(kind % "LEADER.STEPDOWN")
        if not (complete and mine):
            sys.exit("it does not lead yet")
    if not acknowledged():
        sys.exit("some events are not acknowledged")
'''


def _servers(options: Options) -> int:
    return int(one_of(options, "servers", ("1", "3")))


def _guests(options: Options) -> tuple[WorkloadGuest, ...]:
    names = [f"nats-{number}" for number in range(_servers(options))]
    wanted = {"servers": len(names), "ack_wait": duration_ns(options, "ack-wait")}
    duration_ns(options, "work")
    return tuple(WorkloadGuest(name, _setup(name, names, wanted), is_peer=name != names[0]) for name in names)


def _setup(name: str, names: list[str], wanted: Mapping[str, int]) -> SetupSpec:
    config = CONFIG.format(name=name)
    if len(names) > 1:
        config += CLUSTER.format(routes=", ".join(f"nats://{one}:{ROUTE_PORT}" for one in names))
    return SetupSpec(
        packages=("nats-server",),
        files=(
            SetupFile("/etc/nats-server.conf", content=config),
            SetupFile("/etc/nats-lab.json", content=json.dumps(wanted)),
            SetupFile("/usr/local/lib/nats-admin.py", content=ADMIN),
        ),
        run=(SetupCommand("install -d -o nats -g nats /var/lib/nats"),),
        services=(SetupService("nats-server", Ready(ReadyKind.PORT, str(PORT))),),
    )


def ack_wait_ns(config: Mapping[str, str]) -> int | None:
    """The consumer's ack_wait in /jsz as a server answered it; None: none of them did."""
    for text in config.values():
        found = re.search(r'"ack_wait":\s*([0-9]+)', text)
        if found is not None:
            return int(found[1])
    return None


def _predict(config: Mapping[str, str], options: Options, regime: Regime) -> tuple[Threshold, ...]:
    wait = ack_wait_ns(config)
    work = duration_ns(options, "work")
    found: list[Threshold] = [
        Threshold("disconnected", None, "ping_interval 2 min, counted in ticks: a pause is one", "client.go"),
    ]
    low, high = ELECTION_NS
    if _servers(options) == 3:
        timers = "election timeout 4 to 9 s, heartbeat 1 s"
        moves = Interval(low - HEARTBEAT_NS, high + MOVED_NS)
        found += [
            Threshold("leader", moves, timers, "nats-server's raft.go"),
            Threshold(
                "twice", Interval(low - HEARTBEAT_NS, EVER_NS), f"{timers}: acknowledgements to no leader"
            ),
            Threshold(
                "lost",
                Interval(low - HEARTBEAT_NS, EVER_NS),
                f"{timers}: a leader that wakes may keep a copy of its own",
                "findings/nats-woken-leader.sh",
            ),
        ]
        return tuple(found)
    found.append(Threshold("lost", None, "what is acknowledged is stored", "docs.nats.io, JetStream"))
    if wait is None:
        return tuple(found)
    because = f"ack_wait {wait / NS_PER_S:g} s, work {work / NS_PER_S:g} s"
    jumped = regime is Regime.JUMPED
    # At 60 s none came twice in two tries: the server had read the acknowledgement that waited for it first.
    pause = Interval(max(0, wait - work), EVER_NS) if jumped else None
    if not jumped:
        because += ": the server's clocks stop with it"
    found.append(Threshold("twice", pause, because, "docs.nats.io, consumers"))
    return tuple(found)


_ON_FIRST = '[ "$(hostname)" != nats-0 ] || timeout 25 python3 /usr/local/lib/nats-admin.py {}'

NATS = ShippedWorkload(
    name="nats",
    about="Events through NATS JetStream, published and consumed with acknowledgements",
    guests=_guests,
    client="nats",
    period_ns=50_000_000,
    delivers=True,
    expect=WorkloadExpect(beyond_pause_ns=2 * NS_PER_S, lost=0, twice=0, one_holder=("leads",)),
    config=(
        "cat /etc/nats-server.conf; nats-server --version; "
        f"curl -s 'http://127.0.0.1:{MONITOR_PORT}/jsz?streams=1&consumers=1&config=1'"
    ),
    predict=_predict,
    options=(("servers", "1"), ("ack-wait", "30s"), ("work", "500ms")),
    formed=_ON_FIRST.format("form"),
    before=_ON_FIRST.format("lead"),
    before_within_ns=180 * NS_PER_S,
)
