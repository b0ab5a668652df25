"""The `guests` section: what is started."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from lab.core.plan import Depth, Given, GuestSpec
from lab.core.units import format_size
from lab.playbook.fields import (
    MOST_FILL,
    MOST_GUESTS,
    CpuCount,
    Fill,
    Flag,
    GuestCount,
    ImageName,
    Memory,
    Name,
    ProbeDepth,
    Rtc,
    Watchdog,
    Words,
    default,
    needed,
    section,
)
from lab.playbook.hosts import Interface, address, bridge, emulator, unfit
from lab.playbook.instances import compute_name, instance
from lab.playbook.mistakes import Wrong, quoted
from lab.playbook.network_section import LinkSection
from lab.playbook.own_domains import DomainName, MigrateTo, OwnSsh
from lab.playbook.scalars import MOST_NAME, is_name
from lab.playbook.setup_section import SetupSection, beside

ComputeName = Annotated[str, compute_name()]
Instance = Annotated[Given, instance()]
Emulator = Annotated[str, emulator(same=False)]
Bridge = Annotated[str, bridge()]
Address = Annotated[Interface, address()]


class NetworkSection(BaseModel):
    """How a guest is attached to a bridge of the host."""

    model_config = section("{bridge: br0, address: 10.7.0.10/24}")

    bridge: Bridge = needed("An existing bridge of the host; the guest gets a tap device on it.", "br0")
    address: Address = needed(
        "The guest's address there, with prefix length. With count, the other guests "
        "get the following addresses.",
        "10.7.0.10/24",
    )


class GuestSection(BaseModel):
    """A guest to start, or several of a kind; or a domain of your own that runs already."""

    model_config = section("{name: web-0}", anyOf=[{"required": ["name"]}, {"required": ["domain"]}])

    name: Name = default(
        "",
        "Host name of the guest: an RFC 1123 label. Required, unless domain is one: then it is the default.",
        "",
    )
    domain: DomainName | None = default(
        None,
        "libvirt's name of a domain of your own, for `run --connect URI`. It has to run, and is never "
        "defined, changed or destroyed. Of the other keys only name, ssh, migrate_to, probe, compute_name "
        "and instance go with it.",
    )
    ssh: OwnSsh | None = default(
        None,
        "How the guest of domain is reached: a Host of your ssh_config, or a section. Without it, it is "
        "looked into by qemu-guest-agent alone.",
    )
    migrate_to: MigrateTo | None = default(
        None,
        "The URI of another libvirt daemon, to which live-migrate takes the domain; it is taken back at the "
        "end of the cycle. Or a section.",
    )
    count: GuestCount | None = default(None, "Number of guests, named NAME-0, NAME-1 and so on.")
    image: ImageName = default(
        GuestSpec.image,
        "Name of the guest's image, see `freezelab image list`; or the path of a folder with a recipe of "
        "your own, like ./my-image, relative to the playbook's folder.",
        GuestSpec.image,
    )
    emulator: Emulator = default(
        GuestSpec.emulator,
        "The QEMU that the guest is started with: a path, or the name of one that `freezelab emulator fetch` "
        "got. system: this machine's own.",
        GuestSpec.emulator,
    )
    vcpus: CpuCount = default(GuestSpec.vcpus, "Number of virtual CPUs.")
    memory: Memory = default(
        GuestSpec.memory_bytes,
        "Memory, in whole MiB, at least 128 MiB.",
        format_size(GuestSpec.memory_bytes),
    )
    fill: Fill = default(
        GuestSpec.fill,
        "Share of the memory to fill with incompressible pages before the first cycle, "
        f"at most {MOST_FILL}%.",
        "0%",
    )
    huge_pages: Flag = default(GuestSpec.huge_pages, "Keep the memory in huge pages of the host.")
    rtc: Rtc = default(
        GuestSpec.rtc,
        "Clock of the guest's RTC. wall: the host's, which runs on during a pause. "
        "guest: the guest's own, which stops with it.",
        GuestSpec.rtc,
    )
    kernel_options: Words | None = default(
        None, "Options added to the guest's kernel command line, such as [clocksource=tsc, tsc=reliable]."
    )
    watchdog: Watchdog | None = default(
        None,
        "A hardware watchdog, an i6300esb, that does this when the guest does not pet it. Default: none.",
    )
    network: NetworkSection | None = default(None, "A bridge of the host. Default: QEMU's user-mode network.")
    link: LinkSection | None = default(
        None, "The guest's own limits in network: lab, in place of those of the network."
    )
    compute_name: ComputeName | None = default(
        None,
        "Its name in events and in /metadata/instance (compute.name); with count "
        "NAME-0, NAME-1 and so on. Default: its host name.",
    )
    instance: Instance = default(
        (),
        "Values of /metadata/instance in place of the lab's, written as the service "
        "answers them: {compute: {zone: 1, tags: {role: web}}}.",
        "",
    )
    host: Name | None = default(
        None, "With hosts: the one that the guest is on. Default: the hosts in turn, as guests are written."
    )
    probe: ProbeDepth = default(
        GuestSpec.probe,
        "What looks into the guest of domain. python: a program, for which it needs python3. shell: a POSIX "
        "shell over SSH. agent: qemu-guest-agent alone, without ssh. auto: the first of these that there is. "
        "docs/measuring.md says what each can bound.",
        GuestSpec.probe,
    )
    peer: Flag = default(
        False, "It is there for the other guests, such as those of a cluster: it is not frozen or measured."
    )
    setup: SetupSection = default(
        SetupSection(), "Programs of the user's own, after those of the playbook's setup.", ""
    )

    @field_validator("image", mode="after")
    @classmethod
    def _beside(cls, image: str, info: ValidationInfo) -> str:
        return beside(info, image) if "/" in image else image

    @model_validator(mode="after")
    def _own_or_started(self) -> Self:
        if self.domain is None:
            if not self.name:
                raise Wrong("name is missing", "add name: web-0")
            for key in sorted(self.model_fields_set & {"ssh", "migrate_to", "probe"}):
                raise Wrong(f"{key} goes with domain", "delete it, or add domain: my-vm", within=(key,))
            return self
        if not self.name and not is_name(self.domain):
            what = f"{quoted(self.domain)} cannot be the name of the guest as well"
            raise Wrong(what, "add name: my-vm", within=("domain",))
        if self.ssh is None and self.probe not in (Depth.AUTO, Depth.AGENT):
            todo = "add ssh: and a Host of your ssh_config, or a section {host: 10.0.0.7}"
            raise Wrong(f"probe: {self.probe} needs ssh", todo, within=("probe",))
        if self.ssh is not None and self.probe is Depth.AGENT:
            raise Wrong("ssh does not go with probe: agent", "delete one of them", within=("ssh",))
        for key in sorted(self.model_fields_set - _OF_OWN):
            what = f"{key} does not go with domain, whose XML decides that"
            raise Wrong(what, "delete it", within=(key,))
        return self

    @model_validator(mode="after")
    def _fits(self) -> Self:
        longest = self.names()[-1]
        if len(longest) > MOST_NAME:
            todo = f"shorten name to {MOST_NAME - (len(longest) - len(self.label))} characters"
            raise Wrong(f"{longest} is longer than {MOST_NAME} characters", todo, within=("name",))
        if self.network is not None:
            first = self.network.address
            last = _counted_up(first, (self.count or 1) - 1)
            if last is None or last.ip not in first.network or unfit(last):
                what = f"{first.network} has no room for {self.count} guests from {first.ip} on"
                todo = "start at a lower address, or use a larger network"
                raise Wrong(what, todo, within=("network", "address"))
        return self

    @property
    def label(self) -> str:
        """The name of the entry."""
        return self.name or self.domain or ""

    def names(self) -> list[str]:
        """Names of the guests this entry stands for."""
        return [self.label] if self.count is None else [f"{self.label}-{n}" for n in range(self.count)]

    def compute_names(self) -> list[str]:
        """What events call them; "" for their own names."""
        if self.compute_name is None:
            return [""] * len(self.names())
        count = range(self.count or 1)
        return [self.compute_name] if self.count is None else [f"{self.compute_name}-{n}" for n in count]

    def addresses(self) -> list[Interface | None]:
        """The addresses of names(), [] without a network; None for one past the last that there is."""
        if self.network is None:
            return []
        return [_counted_up(self.network.address, n) for n in range(self.count or 1)]

    def to_plan(self) -> list[GuestSpec]:
        """The guests as the plan has them."""
        network, addresses, called = self.network, self.addresses(), self.compute_names()
        setup = self.setup.to_plan()
        return [
            GuestSpec(
                name=name,
                image=self.image,
                emulator=self.emulator,
                vcpus=self.vcpus,
                memory_bytes=self.memory,
                fill=self.fill,
                bridge=network.bridge if network else "",
                address=str(addresses[number]) if network else "",
                huge_pages=self.huge_pages,
                rtc=self.rtc,
                kernel_options=self.kernel_options or (),
                watchdog=self.watchdog,
                compute_name=called[number],
                instance=self.instance,
                setup=setup,
                is_peer=self.peer,
                domain=self.domain or "",
                ssh=self.ssh.to_plan() if self.ssh else None,
                migrate_to=self.migrate_to.to_plan() if self.migrate_to else None,
                probe=Depth.AGENT if self.domain and self.ssh is None else self.probe,
            )
            for number, name in enumerate(self.names())
        ]


def _counted_up(first: Interface, by: int) -> Interface | None:
    try:
        # The tuple is read several times faster than a text.
        return type(first)((int(first.ip) + by, first.network.prefixlen))
    except ValueError:
        return None


_OF_OWN = {"name", "domain", "ssh", "migrate_to", "probe", "compute_name", "instance"}
"""The keys that a domain of the user's own can have."""


def _not_too_many(guests: object) -> object:
    # Asked first: a list of ten thousand needs one answer, not ten thousand.
    if isinstance(guests, list):
        if not guests:
            raise Wrong("the list of guests is empty", "add one, or delete the key for one guest, web-0")
        if len(guests) > MOST_GUESTS:
            raise Wrong(f"{len(guests)} guests are too many", f"ask for at most {MOST_GUESTS}")
    return guests


def distinct(guests: list[GuestSection]) -> list[GuestSection]:
    """`guests` when no two have the same name, or the same address on one bridge."""
    first: dict[tuple[str, ...], int] = {}
    for index, guest in enumerate(guests):
        if guest.domain is not None:
            _once(first, ("domain", guest.domain), index, f"are {guest.domain}", "delete one", ("domain",))
        for one, called in zip(guest.names(), guest.compute_names(), strict=True):
            _once(first, (one,), index, f"are named {one}", "rename one of them", ("name",))
            problem, key = f"are named {called or one} in events", "compute_name" if called else "name"
            _once(first, ("events", called or one), index, problem, "rename one of them", (key,))
        if guest.network is not None:
            for taken in (one for one in guest.addresses() if one is not None):
                problem, within = f"have the address {taken.ip}", ("network", "address")
                _once(
                    first, (guest.network.bridge, str(taken.ip)), index, problem, "change one of them", within
                )
    return guests


def _once(
    first: dict[tuple[str, ...], int],
    what: tuple[str, ...],
    index: int,
    problem: str,
    todo: str,
    within: tuple[str, ...],
) -> None:
    if what in first:
        entries = f"entries {first[what] + 1} and {index + 1} of the list"
        raise Wrong(f"two guests {problem}, {entries}", todo, within=(index, *within))
    first[what] = index


ONE_GUEST = [GuestSection.model_construct(name="web-0")]
"""What is started when nothing is said of guests."""

GuestList = Annotated[
    list[GuestSection],
    BeforeValidator(_not_too_many),
    Field(json_schema_extra={"minItems": 1, "maxItems": MOST_GUESTS}),
]
