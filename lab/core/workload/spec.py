"""A workload in the plan."""

from __future__ import annotations

from dataclasses import dataclass

from lab.core.units import NS_PER_S


@dataclass(frozen=True)
class WorkloadExpect:
    """What a workload has to show in a cycle to pass; None: not checked.

    outage_ns: the longest time without a success. beyond_pause_ns: the same, minus the pause. failed:
    requests that failed. lost: acknowledged requests that were not delivered. twice: deliveries of what was
    delivered before. wrong_stamps: answers, and other kinds each, whose stamp is off by more than the run's
    tolerance. refused: stamps that somebody at the host's time would refuse: not yet valid, or expired.
    unchanged: names of the state whose value has to stay. one_holder: names of the state that at most one
    guest may claim at a time. never: events that must not happen. as_predicted: what happens agrees with the
    prediction from the workload's own configuration.
    """

    outage_ns: int | None = None
    beyond_pause_ns: int | None = None
    failed: int | None = None
    lost: int | None = None
    twice: int | None = None
    wrong_stamps: int | None = None
    refused: int | None = None
    unchanged: tuple[str, ...] = ()
    one_holder: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    as_predicted: bool = False


@dataclass(frozen=True)
class WorkloadSpec:
    """A workload of a cell.

    name: in reports; unique in the plan. shipped: the name of one of the lab's own; "": the user's program.
    command: that program and its arguments; {NAME} stands for the address of the guest NAME. on: the guest
    that it runs in; "": the host. period_ns: between two requests, for shipped ones; None: the workload's
    own. delivers: what it acknowledges is delivered, so that losses can be counted. options: of a shipped
    one, name and value. settle_ns: from its start until it counts. grace_ns: how long a delivery may take:
    what was acknowledged later than this before the end, and not delivered, is undecided, not lost. roles:
    names of the state that one guest at a time is meant to claim, whether that is asked of it or not.
    """

    name: str
    shipped: str = ""
    command: tuple[str, ...] = ()
    on: str = ""
    period_ns: int | None = None
    delivers: bool = False
    options: tuple[tuple[str, str], ...] = ()
    settle_ns: int = 0
    roles: tuple[str, ...] = ()
    expect: WorkloadExpect = WorkloadExpect()
    grace_ns: int = 2 * NS_PER_S
