"""A person's ways into a kept guest: a login, copies of files, and its console's log."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lab.core.units import NS_PER_MS
from lab.errors import GuestGone, MachineError, UsageError
from lab.hypervisor.domain_status import ENDED, SHUT_OFF
from lab.ports import Clock
from lab.session.kept_guests import KeptGuest, find, state

_POLL_NS = 500 * NS_PER_MS
_PLACE = re.compile(r"([^/:]+):(.*)", re.DOTALL)
"""GUEST:PATH, as scp tells a host from a file: no slash before the colon."""

SAFE = (
    "-F",
    "none",
    "-o",
    "IdentitiesOnly=yes",
    "-o",
    "StrictHostKeyChecking=yes",
    "-o",
    "ConnectTimeout=30",
)
"""No ssh_config of the user's, whose Host * may have a jump host; only the guest's key; only its host key.
QEMU accepts connections for a guest that does not answer: without a time limit ssh would wait for ever."""


def login(guest: KeptGuest, arguments: Sequence[str]) -> list[str]:
    """The ssh command line. arguments: a command for the guest, or options of ssh before it."""
    options = [*SAFE, *guest.ssh_options, "-p", str(guest.port)]
    return ["ssh", *options, f"{guest.user}@{guest.host}", *arguments]


def copy(home: Path, source: str, target: str) -> tuple[KeptGuest, list[str]]:
    """The guest and the scp command line for a copy, of which one side is GUEST:PATH. Folders are copied with
    all that is in them. UsageError when none or both of them are in a guest, or there is no such guest."""
    found = [_PLACE.fullmatch(place) for place in (source, target)]
    named = [match for match in found if match is not None]
    if len(named) != 1:
        many = "both" if named else "neither"
        hint = "freezelab cp web-0:/etc/hostname . (write ./a:b for a file of this name)"
        raise UsageError(f"one of FROM and TO is GUEST:PATH, here {many}", hint=hint)
    guest = find(home, named[0][1])
    places = [
        place if match is None else f"{guest.user}@{guest.host}:{match[2]}"
        for place, match in zip((source, target), found, strict=True)
    ]
    return guest, ["scp", *SAFE, *guest.ssh_options, "-P", str(guest.port), "-r", "--", *places]


def check_running(home: Path, guest: KeptGuest) -> str:
    """A note when the guest does not answer at present, else "". GuestGone when it has ended."""
    now = state(home, guest)
    if now in ENDED:
        what = "it has shut down" if now == SHUT_OFF else "it has ended"
        raise GuestGone(what, where=f"guest {guest.name}", hint=f"freezelab down {guest.name}", ended=True)
    return "" if now == "running" else f"guest {guest.name} is {now}: it answers when it runs again"


def console_lines(home: Path, guest: KeptGuest, clock: Clock, *, follow: bool) -> Iterator[str]:
    """The lines of the guest's console since its start and, with `follow`, those that come until it has
    ended. MachineError when the log cannot be read."""
    decoder, rest = codecs.getincrementaldecoder("utf-8")("replace"), ""
    try:
        with Path(guest.console).open("rb") as file:
            while True:
                follow = follow and state(home, guest) not in ENDED  # first: what it wrote at its end is read
                while data := file.read(1 << 16):
                    *lines, rest = (rest + decoder.decode(data)).split("\n")
                    yield from lines
                if not follow:
                    break
                clock.sleep_until(clock.now().raw_ns + _POLL_NS)
    except OSError as error:
        raise MachineError(
            f"the console cannot be read: {error.strerror}", where=f"guest {guest.name}"
        ) from error
    if rest:
        yield rest
