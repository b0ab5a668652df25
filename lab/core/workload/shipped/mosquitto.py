"""mosquitto: a broker that is frozen, with a publisher and a subscriber of QoS 1, and idle clients that only
keep their connections alive. All have wills.

A broker drops a client that it has heard nothing of for one and a half times the keep-alive (MQTT 3.1.1,
3.1.2.10), and publishes its will. A client gives up a broker that does not answer its ping for one
keep-alive, as paho does.
"""

from __future__ import annotations

from collections.abc import Mapping

from lab.core.clock import Interval
from lab.core.method import Regime
from lab.core.setup import Ready, ReadyKind, SetupFile, SetupService, SetupSpec
from lab.core.units import NS_PER_S
from lab.core.workload.prediction import EVER_NS, Threshold
from lab.core.workload.shipped.base import Options, ShippedWorkload, WorkloadGuest
from lab.core.workload.shipped.option_values import duration_ns
from lab.core.workload.spec import WorkloadExpect

PORT = 1883
IDLE = 4
"""Idle clients. They ping one after another, so that each has been silent for another share of its keep-alive
when the freeze begins."""

CONFIG = """\
listener 1883
allow_anonymous true
"""


def keepalive_ns(options: Options) -> int:
    """The clients' keep-alive: whole seconds, as MQTT has it. ValueError."""
    keepalive = duration_ns(options, "keepalive")
    if keepalive % NS_PER_S or not NS_PER_S <= keepalive <= 65535 * NS_PER_S:
        raise ValueError("keepalive: MQTT has whole seconds from 1 to 65535")
    return keepalive


def _guests(options: Options) -> tuple[WorkloadGuest, ...]:
    keepalive_ns(options)
    setup = SetupSpec(
        packages=("mosquitto",),
        files=(SetupFile("/etc/mosquitto/conf.d/lab.conf", content=CONFIG),),
        services=(SetupService("mosquitto", Ready(ReadyKind.PORT, str(PORT))),),
    )
    return (WorkloadGuest("mqtt-0", setup, 256 << 20),)


def _predict(config: Mapping[str, str], options: Options, regime: Regime) -> tuple[Threshold, ...]:
    keepalive = keepalive_ns(options)
    because = f"keep-alive {keepalive / NS_PER_S:g} s of its clients, and half as much again"
    source = "MQTT 3.1.1, 3.1.2.10"
    # Idle clients have been silent for up to a keep-alive. In a longer pause they give up before the broker
    # can drop them; their wills are published all the same.
    drops = Interval(keepalive // 2, EVER_NS) if regime is Regime.JUMPED else None
    if drops is None:
        because += ": the broker's clocks stop with it"
    waits = f"keep-alive {keepalive / NS_PER_S:g} s: a client waits for as long for the answer to a ping"
    # One of the idle clients has a ping on its way within a quarter of a keep-alive.
    gives_up = Interval(keepalive, keepalive + keepalive // 4 + NS_PER_S)
    wills = Interval(keepalive // 2 if drops else gives_up.low_ns, gives_up.high_ns)
    repeats = keepalive * 3 // 2 if regime is Regime.JUMPED else 2 * keepalive
    return (
        Threshold("dropped", drops, because, source),
        Threshold("gave up", gives_up, waits, "paho's loop_misc"),
        Threshold("will", wills, f"{because}; {waits}" if drops else waits, source),
        Threshold("twice", Interval(repeats, EVER_NS), "QoS 1: sent again on a new connection", "4.4.0-1"),
        Threshold(
            "lost", None, "QoS 1: what is acknowledged is delivered at least once", "MQTT 3.1.1, 4.3.2"
        ),
    )


MOSQUITTO = ShippedWorkload(
    name="mosquitto",
    about="MQTT messages of QoS 1, and clients with a keep-alive and a will",
    guests=_guests,
    client="mosquitto",
    period_ns=50_000_000,
    delivers=True,
    expect=WorkloadExpect(beyond_pause_ns=2 * NS_PER_S, lost=0, never=("dropped", "gave up", "will")),
    config="cat /etc/mosquitto/mosquitto.conf /etc/mosquitto/conf.d/*; mosquitto -h | head -n1",
    predict=_predict,
    options=(("keepalive", "60s"),),
)
