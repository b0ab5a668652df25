"""corosync and pacemaker: two or three nodes, of which the frozen one runs a resource.

Corosync misses the token after its timeout, and forms a membership without the frozen node when nobody has
answered for the consensus timeout as well. A node that is back before that stays a member, if its peers' knet
takes its link for up again in time. Pacemaker then starts the resource elsewhere: fencing is not configured,
and so the resource runs twice when the frozen node goes on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lab.core.clock import Interval
from lab.core.method import Regime
from lab.core.setup import Ready, ReadyKind, SetupCommand, SetupFile, SetupService, SetupSpec
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.workload.prediction import Threshold
from lab.core.workload.shipped.base import Options, ShippedWorkload, WorkloadGuest
from lab.core.workload.shipped.state_server import state_files, state_service
from lab.core.workload.spec import WorkloadExpect

NODES = ("corosync-0", "corosync-1", "corosync-2")
FROZEN = NODES[0]
REACTION_NS = 20 * NS_PER_S
"""What pacemaker may take to start a resource elsewhere on an emulated guest. It has no timer for that."""

_PONGS = 2  # corosync.conf(5): knet_pong_count
_HELD = "/run/lab-service"
_TOTEM = """\
totem {{
    version: 2
    cluster_name: freezelab
    token: {token}
}}
quorum {{
    provider: corosync_votequorum
{two_node}}}
logging {{
    to_syslog: yes
}}
nodelist {{
{nodes}}}
"""
_NODE = """\
    node {{
        name: {name}
        nodeid: {number}
        ring0_addr: {name}
    }}
"""
_CIB = f"""\
<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" admin_epoch="1" epoch="1" num_updates="0">
  <configuration>
    <crm_config>
      <cluster_property_set id="options">
        <nvpair id="no-fencing" name="stonith-enabled" value="false"/>
      </cluster_property_set>
    </crm_config>
    <nodes/>
    <resources>
      <primitive id="service" class="ocf" provider="pacemaker" type="Dummy">
        <instance_attributes id="service-attributes">
          <nvpair id="service-state" name="state" value="{_HELD}"/>
        </instance_attributes>
        <operations>
          <op id="service-start" name="start" interval="0" timeout="60s"/>
          <op id="service-stop" name="stop" interval="0" timeout="60s"/>
        </operations>
      </primitive>
    </resources>
    <constraints>
      <rsc_location id="home" rsc="service" node="{FROZEN}" score="100"/>
    </constraints>
  </configuration>
  <status/>
</cib>
"""

# A guest knows its own name by another address, too, and corosync takes the first.
_ADDRESSES = """\
for name in {names}; do
    address=$(awk -v name=$name '$2 == name && $1 ~ /^10[.]77[.]/ {{ print $1; exit }}' /etc/hosts)
    [ -n "$address" ] || {{ echo "no address of $name in /etc/hosts"; exit 1; }}
    sed -i "s/ring0_addr: $name\\$/ring0_addr: $address/" /etc/corosync/corosync.conf
done
"""

# The members and the quorum as libquorum tells them, whenever they change (quorum_initialize(3)). Without
# fencing pacemaker calls no node unclean. What it would do with fencing crm_simulate(8) computes.
_STATE = f"""\
import ctypes, os, re, subprocess, threading, time
quorum = ctypes.CDLL("libquorum.so.5")
known = {{"members": None, "quorate": None, "ring": None}}
fences = 0
CHANGED = ctypes.CFUNCTYPE(
    None, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32)
)
def output(*command, input=None):
    return subprocess.run(command, input=input, stdout=subprocess.PIPE, text=True, timeout=30).stdout
def simulate(ring):
    global fences
    while known["ring"] == ring:
        time.sleep(1)
        try:
            cib = output("cibadmin", "--query")
            asked = cib.replace('name="stonith-enabled" value="false"', 'name="stonith-enabled" value="true"')
            if ": UNCLEAN" in output("crm_simulate", "--xml-pipe", "--run", input=asked):
                fences += 1
                return
        except (OSError, subprocess.TimeoutExpired):
            pass
def changed(handle, quorate, ring, count, nodes):
    names = " ".join(sorted("corosync-%d" % (nodes[i] - 1) for i in range(count)))
    lost = known["members"] is not None and len(names) < len(known["members"])
    known.update(members=names, quorate="yes" if quorate else "no", ring=ring)
    if lost and quorate:
        threading.Thread(target=simulate, args=(ring,), daemon=True).start()
class Callbacks(ctypes.Structure):
    _fields_ = [("notify", CHANGED)]
callbacks = Callbacks(CHANGED(changed))
def listen():
    while True:
        handle, kind = ctypes.c_uint64(), ctypes.c_uint32()
        if quorum.quorum_initialize(ctypes.byref(handle), ctypes.byref(callbacks), ctypes.byref(kind)) == 1:
            if quorum.quorum_trackstart(handle, ctypes.c_uint(5)) == 1:  # what is, and each change
                quorum.quorum_dispatch(handle, ctypes.c_int(3))  # until corosync ends
            quorum.quorum_finalize(handle)
        known.update(members=None, quorate=None, ring=None)
        time.sleep(0.5)
threading.Thread(target=listen, daemon=True).start()
def state():
    return {{**known, "running": os.path.exists("{_HELD}"), "events": {{"would-fence": fences}}}}
"""

_COMPLETE = f"""\
#!/bin/sh
# Whether all nodes are there and the frozen one runs the resource.
[ "$(hostname)" = {FROZEN} ] || exit 0
seen=$(crm_mon --one-shot 2>&1)
case $seen in *"Online: [ {{names}} ]"*"Started {FROZEN}"*) exit 0 ;; esac
echo "$seen" | tr '\\n' ' ' >&2
exit 1
"""


def _names(options: Options) -> tuple[str, ...]:
    return NODES[: int(options["nodes"])]


def _check(options: Options) -> None:
    """ValueError, with the reason, when an option cannot have its value."""
    if options["nodes"] not in ("2", "3"):
        raise ValueError(f"nodes is 2 or 3, not {options['nodes']}")
    if not re.fullmatch(r"[1-9][0-9]{2,5}", options["token"]):
        raise ValueError("token is a whole number of milliseconds, 100 to 999999")


def _guests(options: Options) -> tuple[WorkloadGuest, ...]:
    _check(options)
    names = _names(options)
    totem = _TOTEM.format(
        token=options["token"],
        two_node="    two_node: 1\n" if len(names) == 2 else "",
        nodes="".join(_NODE.format(name=name, number=number) for number, name in enumerate(names, 1)),
    )
    setup = SetupSpec(
        packages=("corosync", "pacemaker", "pacemaker-cli-utils", "resource-agents"),
        files=(
            SetupFile("/etc/corosync/corosync.conf", content=totem),
            SetupFile(
                "/var/lib/pacemaker/cib/cib.xml", content=_CIB, mode="0600", owner="hacluster:haclient"
            ),
            SetupFile(
                "/usr/local/sbin/cluster-complete",
                content=_COMPLETE.format(names=" ".join(names)),
                mode="0755",
            ),
            *state_files(_STATE),
        ),
        run=(SetupCommand(_ADDRESSES.format(names=" ".join(names))),),
        services=(
            SetupService("corosync", Ready(ReadyKind.COMMAND, "corosync-cfgtool -s >/dev/null")),
            SetupService("pacemaker"),
            state_service(),
        ),
    )
    return tuple(WorkloadGuest(name, setup, is_peer=name != FROZEN) for name in names)


def _predict(config: Mapping[str, str], options: Options, regime: Regime) -> tuple[Threshold, ...]:
    timers = [_timers(text) for name, text in config.items() if name != FROZEN]
    if not timers or None in timers:
        return ()
    token, consensus, hold, ping = max(timer for timer in timers if timer is not None)
    # The last token may be as old as the time for which it is held when nothing is sent. A link without an
    # answer goes down, and is up again after knet_pong_count answers, one each knet_ping_interval: until
    # then nothing is sent to the node that is back.
    low = (token + consensus - hold - (_PONGS + 1) * ping) * NS_PER_MS
    high = (token + consensus) * NS_PER_MS
    why = (
        f"token {token} ms + consensus {consensus} ms, less up to {hold} ms (hold) and {_PONGS + 1} pings of "
    )
    why += f"{ping} ms"
    source = "corosync.conf(5): token, consensus, knet_pong_count, knet_ping_interval"
    later = Interval(low, high + REACTION_NS)
    return (
        Threshold("members", Interval(low, high), why, source),
        Threshold("two running", later, f"{why}, and pacemaker's reaction", source),
        Threshold("would-fence", later, f"{why}, and pacemaker's reaction", source),
    )


_TIMER = re.compile(
    r"^runtime\.config\.totem\.(token|consensus|hold|interface\.0\.knet_ping_interval) \(u32\) = (\d+)$",
    re.MULTILINE,
)


def _timers(config: str) -> tuple[int, int, int, int] | None:
    """Token, consensus, hold and knet's ping interval in ms, as corosync has computed them; None when it
    does not say."""
    values = {name.rpartition(".")[2]: int(value) for name, value in _TIMER.findall(config)}
    try:
        return values["token"], values["consensus"], values["hold"], values["knet_ping_interval"]
    except KeyError:
        return None


COROSYNC = ShippedWorkload(
    name="corosync",
    about="A cluster of corosync and pacemaker, of two nodes or three; one of them runs a resource",
    guests=_guests,
    client="corosync",
    period_ns=100 * NS_PER_MS,
    options=(("nodes", "2"), ("token", "3000")),
    expect=WorkloadExpect(unchanged=("members",), one_holder=("running",), never=("would-fence",)),
    config="corosync-cmapctl | grep -E '^(totem|runtime[.]config|nodelist|quorum)[.]'",
    predict=_predict,
    formed="/usr/local/sbin/cluster-complete",
    formed_within_ns=200 * NS_PER_S,
    before="/usr/local/sbin/cluster-complete",
    before_within_ns=180 * NS_PER_S,
)
