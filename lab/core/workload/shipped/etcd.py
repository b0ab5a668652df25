"""etcd: three members, of which the frozen one leads.

Its peers elect another leader when they have not heard from it for an election timeout, which each of them
draws anew between one and two of those that are configured. The frozen member itself notices nothing, in
either regime: it counts ticks, and a pause is one tick.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lab.core.clock import Interval
from lab.core.method import Regime
from lab.core.setup import SetupFile, SetupService, SetupSpec
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.workload.prediction import Threshold
from lab.core.workload.shipped.base import Options, ShippedWorkload, WorkloadGuest
from lab.core.workload.spec import WorkloadExpect

PORT = 2379
MEMBERS = ("etcd-0", "etcd-1", "etcd-2")
LEADER, FOLLOWER, ANY = "leader", "follower", "any"
TUNING = "etcd.io/docs/v3.4/tuning, raft.go: resetRandomizedElectionTimeout"

_CONFIG = """\
ETCD_LISTEN_PEER_URLS=http://0.0.0.0:2380
ETCD_LISTEN_CLIENT_URLS=http://0.0.0.0:{port}
ETCD_INITIAL_ADVERTISE_PEER_URLS=http://{name}:2380
ETCD_ADVERTISE_CLIENT_URLS=http://{name}:{port}
ETCD_INITIAL_CLUSTER={cluster}
ETCD_INITIAL_CLUSTER_TOKEN=freezelab
ETCD_HEARTBEAT_INTERVAL={heartbeat}
ETCD_ELECTION_TIMEOUT={election}
"""

# Fields of a line of status: endpoint, id, version, size, is leader, is learner, term.
_PREPARE = """\
#!/bin/sh
# Whether all members are there, and the frozen one leads, or follows, as wanted. If not, it is told to.
[ "$(hostname)" = {frozen} ] || exit 0
export ETCDCTL_API=3
status=$(etcdctl --endpoints={endpoints} endpoint status) || exit 1
leader=$(echo "$status" | awk -F', ' '$5 == "true" {{ print $1 }}')
wanted={wanted}
case {role} in
{leader}) [ "$leader" != "$wanted" ] || exit 0 ;;
{follower}) [ "$leader" = http://{frozen}:{port} ] || [ -z "$leader" ] || exit 0 ;;
*) [ -z "$leader" ] || exit 0 ;;
esac
echo "who leads: ${{leader:-nobody}}" >&2
id=$(echo "$status" | awk -F', ' -v wanted="$wanted" '$1 == wanted {{ print $2 }}')
[ -z "$leader" ] || etcdctl --endpoints="$leader" move-leader "$id" >&2
exit 1
"""

_STEP_DOWN = """\
#!/bin/sh
# Hands the lead to another member, if this one has it. A handler of Scheduled Events may run it.
export ETCDCTL_API=3
mine=http://$(hostname):{port}
status=$(etcdctl --endpoints={endpoints} endpoint status)
leader=$(echo "$status" | awk -F', ' '$5 == "true" {{ print $1 }}')
[ "$leader" = "$mine" ] || exit 0
other=$(echo "$status" | awk -F', ' -v mine="$mine" '$1 != mine {{ print $2; exit }}')
exec etcdctl --endpoints="$mine" move-leader "$other"
"""


def _check(options: Options) -> None:
    """ValueError, with the reason, when an option cannot have its value."""
    if options["frozen"] not in (LEADER, FOLLOWER, ANY):
        raise ValueError(f"frozen is {LEADER}, {FOLLOWER} or {ANY}, not {options['frozen']}")
    for name in ("heartbeat", "election", "lease"):
        if not re.fullmatch(r"[1-9][0-9]{0,4}", options[name]):
            unit = "seconds" if name == "lease" else "milliseconds"
            raise ValueError(f"{name} is a whole number of {unit}")
    if int(options["election"]) < 5 * int(options["heartbeat"]):
        raise ValueError("etcd refuses an election of less than 5 heartbeats")


def _guests(options: Options) -> tuple[WorkloadGuest, ...]:
    _check(options)
    cluster = ",".join(f"{name}=http://{name}:2380" for name in MEMBERS)
    endpoints = ",".join(f"http://{name}:{PORT}" for name in MEMBERS)
    role = options["frozen"]
    prepare = _PREPARE.format(
        frozen=MEMBERS[0],
        endpoints=endpoints,
        wanted=f"http://{MEMBERS[0 if role == LEADER else 1]}:{PORT}",
        role=role,
        leader=LEADER,
        follower=FOLLOWER,
        port=PORT,
    )
    step_down = _STEP_DOWN.format(port=PORT, endpoints=endpoints)
    return tuple(
        WorkloadGuest(
            name,
            SetupSpec(
                packages=("etcd-server", "etcd-client"),
                files=(
                    SetupFile(
                        "/etc/default/etcd",
                        content=_CONFIG.format(
                            name=name,
                            port=PORT,
                            cluster=cluster,
                            heartbeat=options["heartbeat"],
                            election=options["election"],
                        ),
                    ),
                    SetupFile("/usr/local/sbin/prepare-etcd", content=prepare, mode="0755"),
                    SetupFile("/usr/local/sbin/step-down-etcd", content=step_down, mode="0755"),
                ),
                services=(SetupService("etcd"),),
            ),
            is_peer=name != MEMBERS[0],
        )
        for name in MEMBERS
    )


def _predict(config: Mapping[str, str], options: Options, regime: Regime) -> tuple[Threshold, ...]:
    kept = "what is acknowledged is with two of three members"
    found = [Threshold("lost", None, kept), Threshold("vanished", None, kept)]
    peers = [_timers(text) for name, text in config.items() if name != MEMBERS[0]]
    if options["frozen"] == FOLLOWER:
        why = "the frozen member follows, and counts a pause as one tick"
        return (*found, *(Threshold(what, None, why, TUNING) for what in ("leader", "term", "lease-lost")))
    if options["frozen"] != LEADER or not peers or None in peers:
        return tuple(found)
    timers = [timer for timer in peers if timer is not None]
    election_ns, heartbeat_ns = (min(one[place] for one in timers) * NS_PER_MS for place in (0, 1))
    # The last heartbeat is up to one heartbeat old when the pause begins, and is counted in whole ticks.
    low, high = election_ns - 2 * heartbeat_ns, 2 * election_ns + heartbeat_ns
    why = f"election timeout {election_ns // NS_PER_MS} ms, drawn up to twice as long, heartbeat "
    why += f"{heartbeat_ns // NS_PER_MS} ms"
    found += [Threshold(what, Interval(low, high), why, TUNING) for what in ("leader", "term")]
    # A new leader gives every lease its whole time anew. A leader that stays counts by its own clock.
    lease_ns = int(options["lease"]) * NS_PER_S
    left = lease_ns - lease_ns // 3
    if regime is not Regime.JUMPED or left > high:
        why = f"lease of {options['lease']} s, kept alive each third of it; a new leader grants it anew"
        found.append(Threshold("lease-lost", None, why, "etcd lease/lessor.go: Promote"))
    return tuple(found)


def _timers(config: str) -> tuple[int, int] | None:
    """Election timeout and heartbeat in ms; None where the configuration does not say."""
    values = dict(re.findall(r"^(ETCD_[A-Z_]+)=(\d+)$", config, re.MULTILINE))
    try:
        return int(values["ETCD_ELECTION_TIMEOUT"]), int(values["ETCD_HEARTBEAT_INTERVAL"])
    except KeyError:
        return None


ETCD = ShippedWorkload(
    name="etcd",
    about="A cluster of three; each 500 ms a write that has to be read back, and a lease kept alive",
    guests=_guests,
    client="etcd",
    period_ns=500 * NS_PER_MS,
    delivers=True,
    grace_ns=10 * NS_PER_S,
    options=(("frozen", LEADER), ("heartbeat", "500"), ("election", "5000"), ("lease", "10")),
    expect=WorkloadExpect(
        lost=0, unchanged=("leader", "term"), one_holder=("leading",), never=("lease-lost", "vanished")
    ),
    config="cat /etc/default/etcd",
    predict=_predict,
    formed=f"ETCDCTL_API=3 etcdctl --endpoints=http://127.0.0.1:{PORT} endpoint health",
    formed_within_ns=180 * NS_PER_S,
    before="/usr/local/sbin/prepare-etcd",
    before_within_ns=120 * NS_PER_S,
)
