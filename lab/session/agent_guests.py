"""Guests that are looked into by their agent alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from lab.core.units import NS_PER_S
from lab.errors import GuestError, HypervisorError
from lab.guest.agent_probe import AgentProbe
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.ports import Clock

_LOOK_NS = 2 * NS_PER_S


def agent_probe(hypervisor: LibvirtHypervisor, name: str, clock: Clock) -> AgentProbe:
    """A probe over the agent of a running guest. GuestError when it does not answer."""
    return AgentProbe(
        name,
        partial(hypervisor.own.agent_time, name, clock),
        partial(hypervisor.own.system, name),
        partial(hypervisor.look, name),
    ).open()


def booted_agent(
    hypervisor: LibvirtHypervisor, name: str, clock: Clock, within_s: float, look: Callable[[], None]
) -> AgentProbe:
    """The same of a booting guest. GuestError when its agent does not answer within `within_s` seconds. look:
    raises GuestGone when the guest is known not to answer."""
    deadline = clock.now().raw_ns + round(within_s * NS_PER_S)
    while True:
        look()
        now = clock.now().raw_ns
        try:
            hypervisor.agent_ready(name, min(now + _LOOK_NS, deadline))
        except HypervisorError as error:
            if now >= deadline:
                what = f"its agent does not answer within {within_s:.0f} s: {error.what}"
                raise GuestError(what, where=f"guest {name}") from error
        else:
            return agent_probe(hypervisor, name, clock)


def system_of(hypervisor: LibvirtHypervisor, name: str) -> dict[str, str]:
    """What the agent says of a guest, by the survey's names (guest/survey.py)."""
    told = hypervisor.own.system(name)
    found = {"agent": "yes", "system": told.get("pretty-name", ""), "kernel": told.get("kernel-release", "")}
    return {what: value for what, value in found.items() if value}
