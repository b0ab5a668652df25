"""The document: which keys a playbook has, what they mean and which rules join them.

Values arrive as nodes of lab.playbook.tree; docstrings and descriptions here and in the sections'
modules are also the JSON schema's, and defaults are those of lab.core.plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator

from lab.core.own_domain import refusal, resync_refusal
from lab.core.plan import (
    Announcement,
    CycleSpec,
    GuestSpec,
    HoldPatch,
    ResyncMechanism,
    WorkloadSpec,
)
from lab.core.plan import Rollout as PlanRollout
from lab.core.units import format_duration
from lab.core.workload.spec import WorkloadExpect
from lab.playbook.announce_section import Announce
from lab.playbook.cycles import CycleSection
from lab.playbook.expect_section import Expect
from lab.playbook.fields import (
    MOST_GUESTS,
    Controls,
    Mechanism,
    Name,
    Repeats,
    default,
    needed,
    section,
)
from lab.playbook.fleet import Boot, BootWay, FleetSection
from lab.playbook.guests import ONE_GUEST, GuestList, GuestSection, distinct
from lab.playbook.matrix import HOMES, Matrix
from lab.playbook.mistakes import Clash, Wrong, quoted
from lab.playbook.network_section import AllNetwork, LabNetworkSection, NetworkKind, placed
from lab.playbook.placement import HostNames, check_placement, with_hosts
from lab.playbook.rollouts import RolloutSection
from lab.playbook.scalars import text
from lab.playbook.setup_section import At, SetupSection
from lab.playbook.time_server_section import TimeServer
from lab.playbook.workload_section import ToleranceSection, Workloads, WorkloadSection, with_workloads

Text = Annotated[str, text()]


def _in_matrix(axis: str) -> dict[str, Any]:
    return {"required": ["matrix"], "properties": {"matrix": {"required": [axis]}}}


def _in_section(home: tuple[str, ...]) -> dict[str, Any]:
    if len(home) == 1:
        return {"required": [home[0]]}
    given: dict[str, Any] = {"required": [home[1]]}
    if home[0] == "guests":
        given = {"contains": given}
    return {"required": [home[0]], "properties": {home[0]: given}}


def _once_each() -> list[dict[str, Any]]:
    """Resync and patch are given once, in their section or in the matrix; other values at most once."""
    rules: list[dict[str, Any]] = [
        {"oneOf": [_in_section(HOMES["resync"]), _in_matrix("resync")]},
        {
            "if": {"required": ["tolerance"]},
            "else": {"oneOf": [_in_section(HOMES["patch"]), _in_matrix("patch"), _in_matrix("hold")]},
        },
    ]
    return rules + [
        {"not": {"allOf": [_in_section(home), _in_matrix(axis)]}}
        for axis, home in HOMES.items()
        if axis not in ("resync", "patch", "hold")
    ]


def _fleets() -> list[dict[str, Any]]:
    """Guests are given once, and a rollout wants sets, and no matrix."""
    either = [{"required": ["availability_sets"]}, {"required": ["scale_sets"]}]
    sets = {"required": ["fleet"], "properties": {"fleet": {"anyOf": either}}}
    return [
        {"not": {"required": ["guests", "fleet"]}},
        {"if": {"required": ["rollout"]}, "then": {"allOf": [sets, {"not": {"required": ["matrix"]}}]}},
    ]


class Document(BaseModel):
    """A freezelab playbook: which guests are frozen, how, and what the run has to show."""

    model_config = section(
        "name, resync, cycle and so on", required=["name"], allOf=[*_once_each(), *_fleets()]
    )

    name: Name = needed("Name of the playbook: an RFC 1123 label.", "first-freeze")
    about: Text = default("", "Its purpose, in a sentence or two.")
    guests: GuestList | None = Field(
        default=None,
        description=f"The guests, at most {MOST_GUESTS} a host. Default: one, web-0.",
        json_schema_extra={"default": [{"name": "web-0"}]},
    )
    hosts: HostNames | None = default(
        None,
        "Hosts of the file of `run --hosts FILE` that the guests are on, and are frozen at one instant. "
        "Default: this machine.",
    )
    fleet: FleetSection | None = default(
        None, "Guests with availability sets, and how they boot; in place of guests."
    )
    network: AllNetwork | None = default(
        None,
        "lab: a network that all guests are in, with names in /etc/hosts, and in which programs of the host "
        "can be clients. A section gives it limits.",
    )
    start: BootWay = default(
        Boot.GOLDEN,
        "golden: guests start from the saved state of a guest of the same kind, which the first run boots, "
        "where that changes nothing that is measured. cold: every guest boots.",
    )
    setup: SetupSection = default(
        SetupSection(), "Programs of the user's own in all guests, before their own setup.", ""
    )
    workload: Workloads | None = default(
        None, "What runs in the guests and is watched by a client that is not frozen: one, or a list."
    )
    tolerance: ToleranceSection | None = default(
        None, "Search the shortest pause that the workload fails at, in place of repeat."
    )
    resync: Mechanism = needed(
        "The mechanism that corrects the guests' clocks after the resume. "
        + ". ".join(f"{mechanism}: {mechanism.about}" for mechanism in ResyncMechanism)
        + ".",
        "agent",
    )
    time_server: TimeServer = default(TimeServer(), "The NTP server on the host.", "")
    cycle: CycleSection = needed("How guests are frozen.")
    announce: Announce | None = default(
        None,
        "The Scheduled Event before the freeze. Default: none, and there is no metadata service.",
    )
    rollout: RolloutSection | None = default(
        None,
        "Freeze one domain of each availability set after another. Default: every cycle freezes all guests.",
    )
    matrix: Matrix | None = default(None, "Run everything once for each combination of these values.")
    expect: Expect = default(Expect(), "What the run has to show to pass.", "")
    repeat: Repeats = default(1, "Number of cycles with a freeze.")
    control: Controls = default(
        0, "Number of cycles without a freeze, before the others: they show the noise of the measurement."
    )

    @field_validator("time_server", mode="after")
    @classmethod
    def _asked(cls, server: TimeServer, info: ValidationInfo) -> TimeServer:
        resync: ResyncMechanism | None = info.data.get("resync")
        if server.fault and resync and not resync.uses_ntp:
            what = f"resync {resync} does not use the time server"
            raise Wrong(what, "delete it, or set resync to chrony", within=("fault",))
        return server

    @field_validator("guests", mode="after")
    @classmethod
    def _distinct(cls, guests: list[GuestSection] | None) -> list[GuestSection] | None:
        return guests and distinct(guests)

    @field_validator("fleet", mode="after")
    @classmethod
    def _instead(cls, fleet: FleetSection | None, info: ValidationInfo) -> FleetSection | None:
        if fleet is not None and info.data.get("guests"):
            raise Wrong("guests and fleet cannot both be given", "move guests into fleet")
        return fleet

    @field_validator("start", mode="after")
    @classmethod
    def _once(cls, start: Boot, info: ValidationInfo) -> Boot:
        fleet: FleetSection | None = info.data.get("fleet")
        if fleet is not None and "boot" in fleet.model_fields_set and fleet.boot is not start:
            raise Wrong(f"fleet says boot: {fleet.boot}", "delete one of the two")
        return start

    @field_validator("announce", mode="after")
    @classmethod
    def _sensible(cls, announce: Announce | None, info: ValidationInfo) -> Announce | None:
        cycle: CycleSection | None = info.data.get("cycle")
        if announce and cycle:
            announce.fits(cycle)
        return announce

    @field_validator("rollout", mode="after")
    @classmethod
    def _of_sets(cls, rollout: RolloutSection | None, info: ValidationInfo) -> RolloutSection | None:
        if rollout and "fleet" in info.data:
            fleet: FleetSection | None = info.data["fleet"]
            if fleet is None:
                raise Wrong("there are no availability sets", "add fleet, with availability_sets")
            rollout.fits(fleet)
        return rollout

    @field_validator("matrix", mode="after")
    @classmethod
    def _one_or_other(cls, matrix: Matrix | None, info: ValidationInfo) -> Matrix | None:
        if matrix and info.data.get("rollout"):
            raise Wrong("a rollout cannot have a matrix", "delete matrix or rollout")
        return matrix

    @field_validator("expect", mode="after")
    @classmethod
    def _possible(cls, expect: Expect, info: ValidationInfo) -> Expect:
        cycle: CycleSection | None = info.data.get("cycle")
        if cycle:
            expect.fits(cycle)
            if "announce" in info.data:
                expect.fits_announced(info.data["announce"], cycle)
        if "rollout" in info.data:
            expect.fits_rollout(info.data["rollout"])
        return expect

    @field_validator("workload", mode="after")
    @classmethod
    def _named_once(cls, workloads: list[WorkloadSection] | None) -> list[WorkloadSection] | None:
        names = [one.name for one in workloads or ()]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise Wrong(f"two workloads are named {name}", "rename one of them", within=(number, "name"))
        return workloads

    @model_validator(mode="after")
    def _outlasts_its_search(self) -> Self:
        if self.tolerance is None or "budget" in self.cycle.model_fields_set:
            return self
        budget = self.tolerance.longest + CycleSpec.budget_ns
        return self.model_copy(update={"cycle": self.cycle.model_copy(update={"budget": budget})})

    @model_validator(mode="after")
    def _workloads_fit(self) -> Self:
        names = [spec.name for spec in self.specs()]
        peers = [spec.name for spec in self.specs() if spec.is_peer]
        for number, one in enumerate(self.workload or ()):
            if one.on is not None and one.on not in peers:
                what = f"{one.on} is no guest that stays unfrozen"
                raise Wrong(what, "add it to guests with peer: true", within=("workload", number, "on"))
            if missing := one.unknown(names):
                what = f"no guest is named {missing}"
                raise Wrong(what, f"known: {', '.join(names)}", within=("workload", number, "command"))
        if self.tolerance is not None:
            self._searchable()
        if all(spec.is_peer for spec in self.specs()):
            raise Wrong("every guest is a peer, so none is frozen", "delete peer of one", within=("guests",))
        return self

    def _searchable(self) -> None:
        if not self.workload:
            raise Clash("tolerance needs one workload", "add workload", "tolerance")
        if len(self.workload) > 1:
            what, todo = (
                f"tolerance needs one workload, not {len(self.workload)}",
                "move them to matrix.workload",
            )
            raise Wrong(what, todo, within=("workload",))
        if any(one.to_plan().expect == WorkloadExpect() for one in self.workload or ()):
            what = "the workload has nothing to show, so no pause fails"
            raise Wrong(what, "add expect, such as {outage: 6s}", within=("workload", 0))
        if not isinstance(self.cycle.patch.to_plan(), HoldPatch):
            what = "tolerance changes the hold, and this patch is none"
            raise Wrong(what, "delete patch; the search chooses the hold", within=("cycle", "patch"))
        if not self.cycle.way.freezes:
            what = f"tolerance needs a pause, and method {self.cycle.way} has none"
            raise Clash(what, "set cycle.method to one that freezes, such as suspend", "cycle")
        longest = self.tolerance.longest if self.tolerance else 0
        if self.cycle.budget <= longest:
            what = f"cycle.budget ({format_duration(self.cycle.budget)}) ends pauses before tolerance.longest"
            raise Wrong(what, "raise it beyond longest", within=("cycle", "budget"))
        for key in ("rollout", "repeat"):
            if key in self.model_fields_set:
                raise Wrong(f"{key} does not go with tolerance", "delete one of them", within=(key,))

    @model_validator(mode="after")
    def _own_domains_stay(self) -> Self:
        cycle = self.cycle
        for own in (spec for spec in self.specs() if spec.is_own):
            if why := refusal(cycle.way, cycle.patch.to_plan(), own.migrate_to, cycle.migration()):
                what = f"domain {own.domain} is your own, and is not frozen by {cycle.way}: {why}"
                raise Clash(what, "set cycle.method to suspend, sigstop or save-restore, with hold", "cycle")
        return self

    @model_validator(mode="after")
    def _all_in_the_network(self) -> Self:
        check_placement(self.hosts, self.entries(), self.model_fields_set, self.fleet, self.rollout)
        self.specs()  # which says who cannot be there
        return self

    @model_validator(mode="after")
    def _windows_has_it(self) -> Self:
        for spec in self.specs():
            if why := resync_refusal(self.resync, spec.probe, is_own=spec.is_own):
                todo = "let every guest be a domain of your own, without ssh"
                raise Clash(f"guest {spec.name}: {why}", todo, "resync")
        return self

    @model_validator(mode="after")
    def _somebody_is_set_up(self) -> Self:
        if "setup" in self.model_fields_set and all(spec.is_own for spec in self.specs()):
            what = "setup is for guests that the lab starts, and all of these are domains of your own"
            raise Clash(what, "delete it, and set them up yourself", "setup")
        return self

    @model_validator(mode="after")
    def _server_in_reach(self) -> Self:
        bridged = next((spec for spec in self.specs() if spec.bridge), None)
        if bridged is not None and self.resync.uses_ntp:
            what = (
                f"resync {self.resync} uses the host's NTP server, which {bridged.name} cannot "
                f"reach from bridge {bridged.bridge}"
            )
            raise Clash(what, "delete its network, or set resync to push or agent", "resync")
        return self

    @model_validator(mode="after")
    def _all_in_sets(self) -> Self:
        if self.fleet and self.rollout:
            for number, guest in self.fleet.outside():
                what = (
                    f"fleet.guests[{number}]: {guest} is in no availability set, so in no domain of "
                    "the rollout"
                )
                todo = "add it to the guests of one in fleet.availability_sets"
                raise Wrong(f"{what} has it", todo, within=("fleet", "guests", number))
        return self

    @model_validator(mode="after")
    def _known_secrets(self) -> Self:
        parts: list[tuple[At, SetupSection, SetupSection | None]] = [(("setup",), self.setup, None)]
        for at, entries in self.entries():
            parts += [((*at, n, "setup"), entry.setup, self.setup) for n, entry in enumerate(entries)]
        for at, setup, outer in parts:
            for within, name in setup.unknown(outer):
                raise Wrong(
                    f"no secret is named {quoted(name)}", "add it to setup.secrets", within=(*at, *within)
                )
        return self

    def entries(self) -> list[tuple[At, Sequence[GuestSection]]]:
        """The lists of guests, and where they are."""
        if self.fleet is None:
            return [(("guests",), self.guests or ONE_GUEST)]
        return [(("fleet", "guests"), self.fleet.own()), (("fleet", "scale_sets"), self.fleet.scale_sets)]

    def specs(self) -> tuple[GuestSpec, ...]:
        """The guests as the plan has them."""
        brought = [spec for one in self.workload or () for spec in one.guests()]
        if self.fleet is not None:
            specs = with_hosts(self.fleet.to_plan(), self.hosts, self.entries(), self.fleet.by_host())
        else:
            alone = () if brought else ONE_GUEST
            specs = [spec for guest in self.guests or alone for spec in guest.to_plan()]
        specs = with_workloads(specs, brought)
        links = {
            name: entry.link
            for _, entries in self.entries()
            for entry in entries
            for name in entry.names()
            if entry.link is not None
        }
        setup, specs = self.setup.to_plan(), placed(specs, self.lab_network, links)
        return tuple(spec if spec.is_own else replace(spec, setup=setup.then(spec.setup)) for spec in specs)

    @property
    def lab_network(self) -> LabNetworkSection | None:
        """The lab's own network; workloads of the lab's own need it."""
        if self.network is None and any(one.shipped for one in self.workload or ()):
            return LabNetworkSection.model_construct(kind=NetworkKind.LAB)
        return self.network

    def workloads(self) -> tuple[WorkloadSpec, ...]:
        """The workloads as the plan has them."""
        return tuple(one.to_plan() for one in self.workload or ())

    @property
    def golden(self) -> bool:
        """Guests are started from one that was booted before."""
        if self.fleet is not None and "boot" in self.fleet.model_fields_set:
            return self.fleet.boot is Boot.GOLDEN
        return self.start is Boot.GOLDEN

    def announcement(self) -> Announcement | None:
        """The announcement as the plan has it."""
        return self.announce.to_plan() if self.announce else None

    def rolled(self) -> PlanRollout | None:
        """The rollout as the plan has it."""
        if self.rollout is None or self.fleet is None:
            return None
        return self.rollout.to_plan(self.fleet.named())
