"""Command-line values that are more than text, and options that several commands have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from lab.cli import completion
from lab.errors import UsageError

if TYPE_CHECKING:
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
