"""Command-line values that are more than text, and options that several commands have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli import completion
from lab.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from lab.core.comparison import FigureKind
    from lab.core.plan import Plan
    from lab.hypervisor.accelerators import AcceleratorRequest

Connect = Annotated[
    str | None,
    typer.Option(
        "--connect", metavar="URI", envvar="FREEZELAB_CONNECT", help="A libvirt URI instead of no daemon."
    ),
]
Accelerator = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="auto, kvm or tcg.", autocompletion=completion.words("auto", "kvm", "tcg")
    ),
]
MOST_OF_A_TAG = 64
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Playbook = Annotated[
    str,
    typer.Argument(
        metavar="PLAYBOOK", help="A playbook's name or file.", autocompletion=completion.playbooks
    ),
]
Guest = Annotated[
    str, typer.Argument(metavar="GUEST", help="A kept guest.", autocompletion=completion.kept_guests)
]


def accelerator_request(text: str) -> AcceleratorRequest:
    """UsageError when it is none of auto, kvm, tcg."""
    from lab.hypervisor.accelerators import AcceleratorRequest

    try:
        return AcceleratorRequest(text)
    except ValueError:
        raise UsageError(f"unknown accelerator {text!r}", hint="known: auto, kvm, tcg") from None


def boot_seconds(text: str | None) -> int | None:
    """Seconds in a duration such as "2min", at least one. UsageError when it is none."""
    from lab.core.units import NS_PER_S, parse_duration

    if text is None:
        return None
    try:
        return max(1, parse_duration(text) // NS_PER_S)
    except ValueError as error:
        raise UsageError(str(error), where="--boot") from None


def tags(given: Sequence[str]) -> tuple[str, ...]:
    """Names for a run, each once. UsageError for one that is empty, too long, or has a space or a control
    character."""
    for name in given:
        if not name or len(name) > MOST_OF_A_TAG or not name.isprintable() or " " in name:
            raise UsageError(
                f"not a tag: {name[:MOST_OF_A_TAG]!r}",
                where="--tag",
                hint=f"a word of at most {MOST_OF_A_TAG} characters, such as release-7",
            )
    return tuple(dict.fromkeys(given))


def part(plan: Plan, shard: str | None, cells: Sequence[str]) -> tuple[Plan, Plan | None]:
    """The plan with the cells that --shard or --cell ask for, and the whole one; None without these options.
    UsageError when they ask for what is not there."""
    from lab.core.parallel_cells import part_of
    from lab.core.parallel_cells import shard as shard_of

    if shard is None and not cells:
        return plan, None
    option = "--cell" if shard is None else "--shard"
    if shard is not None and cells:
        raise UsageError("--shard and --cell are two ways to choose cells: give one of them")
    if not plan.cells:
        raise UsageError(f"{plan.name} is no matrix: it has no cells to choose from", where=option)
    if shard is None:
        known = [cell.id for cell in plan.cells]
        for name in cells:
            if name not in known:
                near = get_close_matches(name, known, 1) or known[:1]
                raise UsageError(f"{plan.name} has no cell {name!r}", where=option, hint=f"such as {near[0]}")
        return part_of(plan, cells), plan
    found = _SHARD.fullmatch(shard)
    number, of = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= of:
        hint = "such as 2/5: the second of five"
        raise UsageError(f"not a shard: {shard[:MOST_OF_A_TAG]!r}", where=option, hint=hint)
    try:
        return shard_of(plan, number, of), plan
    except ValueError as error:
        raise UsageError(str(error), where=option) from None


_SHARD = re.compile("([0-9]{1,6})/([0-9]{1,6})")
_DAYS = re.compile(r"([0-9]+(?:\.[0-9]+)?)(d|w)")


def age(text: str | None, option: str) -> int:
    """Nanoseconds of an age such as "30d", "2w", "12h"; 0 for None. UsageError when it is none."""
    from lab.core.units import NS_PER_S, parse_duration

    if text is None:
        return 0
    if days := _DAYS.fullmatch(text.strip()):
        return round(float(days[1]) * (7 if days[2] == "w" else 1) * 86400) * NS_PER_S
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(str(error), where=option, hint="such as 30d, 2w or 12h") from None


def moment(text: str | None, option: str) -> datetime | None:
    """The instant that an age is ago, or a date or time as ISO 8601 has it, in UTC unless it says otherwise.
    UsageError when it is none."""
    from datetime import UTC, datetime, timedelta

    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        try:
            return datetime.now(UTC) - timedelta(microseconds=age(text, option) // 1000)
        except OverflowError:
            raise UsageError(f"too long ago: {text!r}", where=option) from None
        except UsageError:
            raise UsageError(
                f"not a time: {text!r}", where=option, hint="such as 2d, 12h, 2026-11-29 or 2026-11-29T02:00"
            ) from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def run_states(given: Sequence[str]) -> frozenset[str]:
    """States of runs. UsageError for an unknown one."""
    for word in given:
        if word not in completion.RUN_STATES:
            raise UsageError(
                f"no run is {word!r}", where="--outcome", hint=f"known: {', '.join(completion.RUN_STATES)}"
            )
    return frozenset(given)


def figure_kind(name: str) -> FigureKind:
    """UsageError when there is no such figure."""
    from lab.core.comparison import FigureKind

    try:
        return FigureKind(name)
    except ValueError:
        raise UsageError(
            f"there is no figure {name!r}", where="--figure", hint=f"known: {', '.join(FigureKind)}"
        ) from None
