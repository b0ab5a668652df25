"""The `rollout` section: in which order the fleet's domains are taken down, and what has to hold between."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from lab.core import plan as core
from lab.core.plan import DomainKind, GateKind
from lab.playbook.fields import MOST_GUESTS, Duration, DurationOrZero, Name, default, section, time
from lab.playbook.fleet import FleetSection, Named, known
from lab.playbook.mistakes import Wrong
from lab.playbook.scalars import ScalarReader, found, one_of, shell_line, url, whole
from lab.playbook.tree import Items

MOST_GATES = 20
MOST_SEED = (1 << 31) - 1


class Order(StrEnum):
    """How domains follow each other."""

    IN_ORDER = "in-order"
    SHUFFLED = "shuffled"


class Sets(StrEnum):
    """How availability sets are gone through."""

    TOGETHER = "together"
    ONE_AFTER_ANOTHER = "one-after-another"


class ClockState(StrEnum):
    """What a gate can ask of clocks."""

    IN_TIME = "in-time"


class MemberState(StrEnum):
    """What a gate can ask of the set's other members."""

    HEALTHY = "healthy"


def seed() -> ScalarReader:
    """What an order is drawn from."""
    number = whole(0, MOST_SEED, "seeds")

    def read(node: object) -> object:
        try:
            return number.read(node)
        except Wrong:
            what = f"a seed is a whole number, not {found(node)}"
            raise Wrong(what, f"write one from 0 to {MOST_SEED}") from None

    return ScalarReader(read, number.json)


def _not_empty(node: object) -> object:
    if isinstance(node, Items) and not node:
        raise Wrong("an empty list", "delete it, for all of them")
    return node


By = Annotated[DomainKind, one_of(*DomainKind, hint="a unit of a rollout")]
OrderOf = Annotated[Order, one_of(*Order, hint="an order")]
SetsOf = Annotated[Sets, one_of(*Sets, hint="an order of sets")]
Seed = Annotated[int, seed()]
Clock = Annotated[ClockState, one_of(*ClockState, hint="a condition of a clock")]
Members = Annotated[MemberState, one_of(*MemberState, hint="a condition of members")]
Command = Annotated[str, shell_line()]
Url = Annotated[str, url()]
Guests = Annotated[
    list[Name],
    BeforeValidator(_not_empty),
    Field(json_schema_extra={"minItems": 1, "maxItems": MOST_GUESTS}),
]

_KINDS = {kind.value: kind for kind in GateKind}


class GateSection(BaseModel):
    """What has to hold before the next domain is taken down: exactly one of clock, command, http and
    members."""

    model_config = section("{clock: in-time}", oneOf=[{"required": [kind]} for kind in _KINDS])

    clock: Clock | None = default(
        None, "in-time: the offset of every guest of the domain is within expect.in_time's tolerance."
    )
    command: Command | None = default(
        None, "A line for the guest's shell, run in every guest of the domain: it has to exit with 0."
    )
    http: Url | None = default(
        None, "A URL, requested inside every guest of the domain: it has to answer 2xx."
    )
    members: Members | None = default(
        None, "healthy: all other guests of the set answer, and pass the gates before this one."
    )
    on: Guests | None = default(
        None,
        "Only these guests are checked: names of entries or of single guests. Default: "
        "all guests of the domain.",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if not kinds:
            raise Wrong("the gate has no condition", "write {clock: in-time}, or a command")
        if len(kinds) > 1:
            what = f"a gate has one condition, and {kinds[0]} and {kinds[1]} are two"
            raise Wrong(what, "write a gate for each", within=(kinds[1],))
        return self

    def to_plan(self, named: Named) -> core.Gate:
        """The gate as the plan has it."""
        kind = next(kind for key, kind in _KINDS.items() if getattr(self, key) is not None)
        on = dict.fromkeys(guest for asked in self.on or () for guest in named[asked])
        return core.Gate(kind, self.command or self.http or "", tuple(on))


def _not_too_many(node: object) -> object:
    if isinstance(node, Items) and len(node) > MOST_GATES:
        raise Wrong(f"{len(node)} gates are too many", f"write at most {MOST_GATES}")
    return node


class RolloutSection(BaseModel):
    """The fleet's hosts, one domain of each availability set after another."""

    model_config = section("{by: update-domain}")

    by: By = default(
        DomainKind.UPDATE,
        "The unit that is frozen together: an update domain or a fault domain.",
        "update-domain",
    )
    order: OrderOf = default(
        Order.IN_ORDER, "in-order: by number. shuffled: in an order drawn from the seed.", "in-order"
    )
    seed: Seed | None = default(None, "Determines a shuffled order. Default: chosen and recorded by the run.")
    between: DurationOrZero = time(
        core.Rollout.between_ns, "From the end of one domain to the announcement of the next."
    )
    gates: Annotated[list[GateSection], BeforeValidator(_not_too_many)] = Field(
        default=[],
        description="Conditions after each domain, checked in order. Default: none.",
        json_schema_extra={"maxItems": MOST_GATES},
    )
    gate_within: Duration = time(
        core.Rollout.gate_within_ns, "How long gates are repeated until they hold; then the rollout stops."
    )
    sets: SetsOf = default(
        Sets.TOGETHER,
        "together: one domain of each set at the same time. one-after-another: a set "
        "begins when the set before it is complete.",
        "together",
    )

    @model_validator(mode="after")
    def _in_itself(self) -> Self:
        if self.seed is not None and self.order is not Order.SHUFFLED:
            raise Wrong(
                "a seed has no meaning without a shuffled order", "set order to shuffled", within=("seed",)
            )
        return self

    def fits(self, fleet: FleetSection) -> None:
        """Wrong when the fleet cannot be gone through like that."""
        if not fleet.availability_sets and not fleet.scale_sets:
            raise Wrong("the fleet has no availability sets", "add fleet.availability_sets, or scale_sets")
        named = fleet.named()
        for number, gate in enumerate(self.gates):
            for index, asked in enumerate(gate.on or ()):
                known(named, asked, ("gates", number, "on", index))

    def fits_hosts(self) -> None:
        """Wrong when the guests cannot be gone through on several hosts."""
        if self.order is Order.SHUFFLED and self.seed is None:
            what = "all hosts need the same order, and a run draws one"
            raise Wrong(what, "add seed: 1", within=("rollout", "order"))
        for number, gate in enumerate(self.gates):
            if gate.members is not None:
                what = "a host does not ask the members on other hosts"
                raise Wrong(what, "delete the gate, or hosts", within=("rollout", "gates", number, "members"))

    def to_plan(self, named: Named) -> core.Rollout:
        """The rollout as the plan has it."""
        return core.Rollout(
            by=self.by,
            shuffled=self.order is Order.SHUFFLED,
            seed=self.seed,
            between_ns=self.between,
            gates=tuple(gate.to_plan(named) for gate in self.gates),
            gate_within_ns=self.gate_within,
            together=self.sets is Sets.TOGETHER,
        )
