"""keepalived: two guests, of which one holds an address; the frozen one is its master.

The other one takes the address when it has not heard of the master for three advertisements and its skew. The
woken master has not noticed anything, and holds the address as well until it hears of the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction

from lab.core.clock import Interval
from lab.core.method import Regime
from lab.core.setup import SetupCommand, SetupFile, SetupService, SetupSpec
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.core.workload.prediction import Threshold
from lab.core.workload.shipped.base import Options, ShippedWorkload, WorkloadGuest
from lab.core.workload.shipped.state_server import state_files, state_service
from lab.core.workload.spec import WorkloadExpect

MASTER, BACKUP = "vip-0", "vip-1"
NETWORK = "10.77.0.0/24"
ADDRESS = "10.77.0.240"
HEARD_NS = 500 * NS_PER_MS
"""From the end of the backup's timer until a client has been answered by it, on an emulated guest."""

_FIFO = "/run/lab-vrrp"
_CONFIG = """\
global_defs {{
    router_id {name}
    notify_fifo {fifo}
}}
vrrp_instance lab {{
    state {state}
    interface CARD
    virtual_router_id 77
    priority {priority}
    advert_int {advert}
    virtual_ipaddress {{
        {address}/24 dev CARD
    }}
}}
"""
_CARD = f"""\
card=$(ip -4 -o address show to {NETWORK} | awk '{{ print $2; exit }}')
[ -n "$card" ] || {{ echo 'no card in {NETWORK}'; exit 1; }}
sed -i "s/CARD/$card/" /etc/keepalived/keepalived.conf
"""

_STATE = f"""\
import os, socket, threading
role, lower = "", 0
def listen():
    global role, lower
    if not os.path.exists("{_FIFO}"):
        os.mkfifo("{_FIFO}", 0o600)
    with open(os.open("{_FIFO}", os.O_RDWR)) as fifo:
        for line in fifo:  # INSTANCE "lab" MASTER 150
            words = line.split()
            if words[:1] == ["INSTANCE"] and words[2] == "MASTER_RX_LOWER_PRI":
                lower += 1  # it is the master, and has heard of another one
            elif words[:1] == ["INSTANCE"]:
                role = words[2]
def holds():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.bind(("{ADDRESS}", 0))
        except OSError:
            return False
    return True
def state():
    return {{"master": role == "MASTER", "address": holds(), "events": {{"other-master-heard": lower}}}}
threading.Thread(target=listen, daemon=True).start()
"""

_HELD = f"""\
held=$(ip -4 -o address show to {ADDRESS})
case $(hostname) in {MASTER}) [ -n "$held" ] ;; *) [ -z "$held" ] ;; esac"""


def _check(options: Options) -> None:
    """ValueError, with the reason, when an option cannot have its value."""
    fits = re.fullmatch(r"[1-9][0-9]?|0\.[1-9]", options["advert"])
    if not fits:
        raise ValueError("advert is 1 to 99, or 0.1 to 0.9, in seconds")


def _guests(options: Options) -> tuple[WorkloadGuest, ...]:
    _check(options)

    def setup(name: str, state: str, priority: int) -> SetupSpec:
        config = _CONFIG.format(
            name=name, fifo=_FIFO, state=state, priority=priority, advert=options["advert"], address=ADDRESS
        )
        return SetupSpec(
            packages=("keepalived",),
            files=(
                SetupFile("/etc/keepalived/keepalived.conf", content=config),
                SetupFile("/etc/default/keepalived", content="DAEMON_ARGS=--vrrp\n"),
                *state_files(_STATE),
            ),
            run=(SetupCommand(_CARD),),
            services=(state_service(), SetupService("keepalived")),
        )

    return (
        WorkloadGuest(MASTER, setup(MASTER, "MASTER", 150)),
        WorkloadGuest(BACKUP, setup(BACKUP, "BACKUP", 100), is_peer=True),
    )


def _predict(config: Mapping[str, str], options: Options, regime: Regime) -> tuple[Threshold, ...]:
    text = config.get(BACKUP, "")
    advert, priority = _setting(text, "advert_int"), _setting(text, "priority")
    if advert is None or priority is None:
        return ()
    advert_ns = advert * NS_PER_S
    skew_ns = (256 - priority) * advert_ns / 256
    down_ns = 3 * advert_ns + skew_ns
    # The last advertisement is up to one interval old when the pause begins.
    at = Interval(int(down_ns - advert_ns), int(down_ns) + HEARD_NS)
    why = (
        f"3 x advert_int {float(advert):g} s + skew {float(skew_ns / NS_PER_S):.3f} s of priority {priority}"
    )
    return tuple(
        Threshold(what, at, why, "RFC 3768, 6.1, Master_Down_Interval")
        for what in ("holder", "two master", "two address")
    )


def _setting(config: str, name: str) -> Fraction | None:
    found = re.search(rf"^\s*{name}\s+([0-9.]+)\s*$", config, re.MULTILINE)
    return Fraction(found[1]) if found else None


KEEPALIVED = ShippedWorkload(
    name="keepalived",
    about="Two guests and an address that one of them holds (VRRP); each 50 ms a packet to that address",
    guests=_guests,
    client="keepalived",
    period_ns=50 * NS_PER_MS,
    options=(("advert", "1"),),
    expect=WorkloadExpect(unchanged=("holder",), one_holder=("master", "address")),
    config="cat /etc/keepalived/keepalived.conf",
    predict=_predict,
    formed=_HELD,
    before=_HELD,
)
