"""What a workload of the lab's own is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lab.core.method import Regime
from lab.core.setup import SetupSpec
from lab.core.watchdog import WatchdogAction
from lab.core.workload.prediction import CatchUp, Threshold
from lab.core.workload.spec import WorkloadExpect, WorkloadSpec

Options = Mapping[str, str]


@dataclass(frozen=True)
class WorkloadGuest:
    """A guest of a workload. setup: its programs, with their configuration. is_peer: it is not frozen, and
    not measured: it is there for those that are. image: the name of a shipped one. watchdog: what its
    hardware watchdog does; None: it has none."""

    name: str
    setup: SetupSpec
    memory_bytes: int = 512 << 20
    is_peer: bool = False
    image: str = "debian"
    watchdog: WatchdogAction | None = None


Guests = Callable[[Options], tuple[WorkloadGuest, ...]]
"""The guests, in order. ValueError, with the reason, when an option has a value that it cannot have."""

Predict = Callable[[Mapping[str, str], Options, Regime], tuple[Threshold | CatchUp, ...]]


@dataclass(frozen=True)
class ShippedWorkload:
    """A workload of the lab's own: real programs of the distribution in guests, and a client of them.

    about: what it is, in a sentence. guests: its guests, from its options. client: the module of
    lab.host.clients that is its client; it gets --period-ns, --guest NAME=ADDRESS for each guest, and
    --option NAME=VALUE for each option. options: their names and defaults. period_ns: between two requests.
    delivers: what it acknowledges is delivered, within grace_ns. expect: what it has to show, where a
    playbook does not say. config: a line for the shell that prints the configuration as it lies in a guest.
    predict: what the configuration lets one expect, by guest, in a regime. formed: a line for the shell of
    each guest that exits with 0 once the workload is complete, e.g. a cluster has formed. before: a line for
    the shell of each guest before each cycle, which is repeated until it exits with 0.
    """

    name: str
    about: str
    guests: Guests
    client: str
    period_ns: int
    expect: WorkloadExpect
    config: str
    predict: Predict
    options: tuple[tuple[str, str], ...] = ()
    delivers: bool = False
    grace_ns: int = WorkloadSpec.grace_ns
    formed: str = ""
    formed_within_ns: int = 120_000_000_000
    before: str = ""
    before_within_ns: int = 60_000_000_000
