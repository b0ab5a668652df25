"""The lab's own network: the `network` section, and a guest's `link`."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from ipaddress import ip_interface
from typing import Annotated, Self

from pydantic import BaseModel, model_validator

from lab.core.network import HOST, HOST_ADDRESS, NetworkLimits, NetworkPlace, NetworkSpec, guest_address
from lab.core.plan import GuestSpec
from lab.core.units import NS_PER_S, parse_bandwidth
from lab.playbook.fields import Flag, default, needed, section, section_of
from lab.playbook.mistakes import Clash, Wrong, quoted
from lab.playbook.scalars import ScalarReader, duration, expect_scalar, one_of, percent, whole

MOST_DELAY = 60 * NS_PER_S
MOST_LOSS = 90
MOST_QUEUE = 100_000
LEAST_RATE, MOST_RATE = 1000, 10**11


def bandwidth() -> ScalarReader:
    """Bits per second, in decimal units as tc(8) has them."""
    advice = "write it like 100Mbit or 500kbit"

    def read(node: object) -> int:
        text = expect_scalar(node, "a bandwidth", advice).text
        try:
            value = parse_bandwidth(text)
        except ValueError:
            raise Wrong(f"not a bandwidth: {quoted(text)}", advice) from None
        if not LEAST_RATE <= value <= MOST_RATE:
            raise Wrong(f"{quoted(text)} is not from 1kbit to 100Gbit", advice)
        return value

    return ScalarReader(read, {"type": "string", "pattern": r"^\s*\+?[0-9]+(\.[0-9]+)?\s*[kMG]?bit(/s)?\s*$"})


class NetworkKind(StrEnum):
    """The kinds of networks that all guests of a playbook are in."""

    LAB = "lab"


Kind = Annotated[NetworkKind, one_of(*NetworkKind, hint="a network of all guests")]
Delay = Annotated[int, duration(zero=True, most=MOST_DELAY)]
Loss = Annotated[float, percent(MOST_LOSS)]
Bandwidth = Annotated[int, bandwidth()]
Queue = Annotated[int, whole(0, MOST_QUEUE, "frames")]
Seed = Annotated[int, whole(0, (1 << 32) - 1, "as a seed")]


class LinkSection(BaseModel):
    """A guest's own limits in the lab's network."""

    model_config = section("{delay: 20ms}")

    delay: Delay | None = default(None, "Time that each frame takes, in each direction.")
    loss: Loss | None = default(None, f"Share of the frames that are lost, at most {MOST_LOSS}%.")
    rate: Bandwidth | None = default(None, "Bandwidth, each way, like 100Mbit.")
    queue: Queue | None = default(
        None,
        "How many frames wait for the guest while it is frozen, and for the bandwidth; others are dropped.",
    )

    def limits(self, outer: NetworkLimits) -> NetworkLimits:
        """These limits; where none is given, those of `outer`."""
        return NetworkLimits(
            delay_ns=outer.delay_ns if self.delay is None else self.delay,
            loss=outer.loss if self.loss is None else self.loss,
            bits_per_s=outer.bits_per_s if self.rate is None else self.rate,
            queue=outer.queue if self.queue is None else self.queue,
        )


class LabNetworkSection(LinkSection):
    """A network that all guests are in, and clients on the host. Its limits are those of every guest and of
    the host; between two of them the stricter ones apply, once."""

    model_config = section("{kind: lab, delay: 1ms, loss: 1%}")

    kind: Kind = needed(
        "lab: guests see each other on a network of the lab's own, in addition to their other card. It needs "
        "neither root nor a bridge of the host.",
        "lab",
    )
    seed: Seed | None = default(None, "Of the losses. Default: the run chooses one and records it.")
    bridge: Flag = default(
        False,
        "A Linux bridge of the lab's own forwards the frames, in place of its switch, and each QEMU process "
        "has a port of its own there. It has no limits.",
    )

    @model_validator(mode="after")
    def _a_bridge_has_no_limits(self) -> Self:
        given = [key for key in self.model_fields_set if key not in ("kind", "bridge")]
        if self.bridge and given:
            what = f"a bridge has no {', no '.join(sorted(given))}"
            raise Wrong(what, "delete it, or bridge", within=(min(given),))
        return self

    def to_plan(self) -> NetworkSpec:
        """The network as the plan has it."""
        return NetworkSpec(self.limits(NetworkLimits()), self.seed, self.bridge)


AllNetwork = Annotated[LabNetworkSection, section_of("kind")]


def placed(
    specs: list[GuestSpec], network: LabNetworkSection | None, links: dict[str, LinkSection]
) -> list[GuestSpec]:
    """The guests with their places in the network: addresses in the order of the playbook. links: guests' own
    limits, by name. Clash when a guest cannot be there."""
    if network is None:
        if links:
            what = f"guest {next(iter(links))} has a link, but there is no network: lab"
            raise Clash(what, "add network: lab at the top of the playbook, or delete link", "network")
        return specs
    if network.bridge and links:
        what = f"guest {next(iter(links))} has a link, but a bridge has no limits"
        raise Clash(what, "delete link, or bridge in network", "network")
    limits, found = network.to_plan().limits, []
    for number, spec in enumerate(specs):
        if spec.is_own:
            what = f"network: lab: {spec.name} is a domain of your own, which gets no other network card"
            raise Clash(what, "delete network: lab, or let the lab start all guests", "network")
        if spec.name == HOST:
            what = f"network: lab: the name {HOST} is that of clients on the host"
            raise Clash(what, f"rename guest {HOST}", "network")
        if spec.bridge and ip_interface(spec.address).network.overlaps(ip_interface(HOST_ADDRESS).network):
            what = f"network: lab has the addresses of {spec.name}'s bridge, {spec.address}"
            raise Clash(what, "give the bridge other ones", "network")
        own = links[spec.name].limits(limits) if spec.name in links else limits
        found.append(replace(spec, lab=NetworkPlace(guest_address(number), own)))
    return found
