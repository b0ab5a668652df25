"""Tap devices: the host's ends of guests' network cards, attached to an existing bridge.

A tap is persistent, so that a guest's connections outlive its QEMU process. The lab's taps are marked by
their alias (`freezelab:DIGEST-OF-HOME:WHAT`), never by their name alone. By the alias, the taps of a killed
run are found and removed, and no others.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shlex
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import MachineError
from lab.process.runner import Finished, find, run

DEVICE = Path("/dev/net/tun")
PREFIX = "fl"
NAME_MAX = 15
"""IFNAMSIZ - 1 (netdevice(7))."""

_IP_S = 10.0


@dataclass(frozen=True)
class Tap:
    """One tap. name: the interface's name. what: its owner, as given to `make`."""

    name: str
    what: str

    @staticmethod
    @contextmanager
    def make(bridge: str, what: str, home: Path, *, owner: int | None = None) -> Iterator[Tap]:
        """A context with a tap on `bridge` that is up. QEMU opens it by its name.

        what: the run, the guest, and which of its taps. home: the lab's state folder. owner: the id of a user
        who may open it besides root.
        MachineError when this process may not create taps, or without such a bridge, ip(8) or /dev/net/tun.
        """
        tap = Tap(tap_name(home, what), what)
        check(bridge)
        user = [] if owner is None else ["user", str(owner)]
        made = _ip("tuntap", "add", "dev", tap.name, "mode", "tap", *user)
        if not made.ok:
            raise _refused(made, f"the tap for {what} cannot be created")
        try:
            # The alias is set first, so that `remove_all` finds the tap. A bridge port has no address.
            _do("link", "set", "dev", tap.name, "alias", f"{_mark(home)}{what}")
            _do("link", "set", "dev", tap.name, "addrgenmode", "none")
            _do("link", "set", "dev", tap.name, "master", bridge)
            _do("link", "set", "dev", tap.name, "up")
            yield tap
        finally:
            _remove(tap)


def tap_name(home: Path, what: str) -> str:
    """The interface's name: at most 15 characters, different for each home and each `what`."""
    digest = hashlib.sha256(f"{home.absolute()}\n{what}".encode()).hexdigest()
    return PREFIX + digest[: NAME_MAX - len(PREFIX)]


def leftovers(home: Path) -> list[Tap]:
    """The existing taps of this home. [] without ip(8)."""
    try:
        links = _links()
    except MachineError:
        return []
    mark = _mark(home)
    found = [Tap(link["ifname"], link["ifalias"][len(mark) :]) for link in links if _is_ours(link, mark)]
    return sorted(found, key=lambda tap: tap.what)


def remove_all(home: Path, but: Collection[str] = ()) -> list[Tap]:
    """Remove the taps of this home, except those of the runs in `but`. Returns the removed taps. MachineError
    when one cannot be removed."""
    gone = [tap for tap in leftovers(home) if tap.what.partition(" ")[0] not in but]
    for tap in gone:
        _remove(tap)
    return gone


def _mark(home: Path) -> str:
    return f"freezelab:{hashlib.sha256(str(home.absolute()).encode()).hexdigest()[:16]}:"


def _is_ours(link: dict[str, Any], mark: str) -> bool:
    kind = link.get("linkinfo", {})
    is_tap: bool = kind.get("info_kind") == "tun" and kind.get("info_data", {}).get("type") == "tap"
    return is_tap and str(link["ifname"]).startswith(PREFIX) and str(link.get("ifalias", "")).startswith(mark)


def _links(*which: str) -> list[dict[str, Any]]:
    finished = _ip("-details", "-json", "link", "show", *which)
    if not finished.ok:
        raise MachineError(finished.last_line or finished.why, where=shlex.join(finished.argv))
    # ip prints an empty object for each link that it filters out.
    links: list[dict[str, Any]] = [link for link in json.loads(finished.stdout or "[]") if link]
    return links


def check(bridge: str) -> None:
    """MachineError when this process cannot create taps, or there is no such bridge."""
    try:
        find("ip")
    except MachineError as error:
        raise MachineError(error.what, where="ip", hint="install iproute2") from error
    try:
        os.close(os.open(DEVICE, os.O_RDWR))
    except OSError as error:
        hint = "modprobe tun" if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO) else _ROOT
        raise MachineError(
            f"no tap can be created: {error.strerror}", where=str(DEVICE), hint=hint
        ) from error
    try:
        links = _links("dev", bridge)
    except MachineError as error:
        hint = f"ip link add {shlex.quote(bridge)} type bridge && ip link set {shlex.quote(bridge)} up"
        raise MachineError(f"there is no bridge {bridge!r}", where=error.where, hint=hint) from error
    if not links or links[0].get("linkinfo", {}).get("info_kind") != "bridge":
        raise MachineError(f"{bridge!r} is not a bridge", hint="ip link show type bridge")


_ROOT = "taps need root (CAP_NET_ADMIN); user-mode networking does not"


def _refused(finished: Finished, what: str) -> MachineError:
    message = finished.last_line or finished.why
    if "not permitted" in message:
        return MachineError(what, where=shlex.join(finished.argv), hint=_ROOT)
    hint = "freezelab recover removes what a killed run left behind" if "busy" in message else ""
    return MachineError(f"{what}: {message}", where=shlex.join(finished.argv), hint=hint)


def _remove(tap: Tap) -> None:
    finished = _ip("link", "delete", "dev", tap.name)
    if not finished.ok and "Cannot find device" not in finished.stderr:
        raise _refused(finished, f"the tap for {tap.what} cannot be removed")


def _do(*words: str) -> None:
    finished = _ip(*words)
    if not finished.ok:
        raise _refused(finished, "the tap cannot be set up")


def _ip(*words: str) -> Finished:
    return run(["ip", *words], _IP_S, check=False)
