"""A guest's device state taken into bytes, and guests that begin with it.

RAM stays out of the state, as in in-place: x-ignore-shared leaves it out at the one end, where it is a shared
mapping of a file. The other end takes what comes and asks for no more, so there the file may as well be
mapped privately: many guests can begin with it, and none can change it (QEMU, migration/ram.c, ram_load).

The user-mode network keeps its own state in the stream, connections and all, which a guest on a bridge could
not take and no guest should have. So it is taken away from the card before; the card's link is put up again,
or it would be down in every copy.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lab.core.units import NS_PER_S
from lab.errors import HypervisorError
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.domain import DomainSpec, render
from lab.hypervisor.freeze.cold import Keeper
from lab.hypervisor.migration import is_over, send_state, set_capabilities
from lab.ports import Clock

OUT_S = 30.0
IN_S = 30.0
"""Tenths of seconds; more on a very busy host."""

_PLACE = Path("/golden")
_NOBODY = "00000000-0000-4000-8000-000000000000"


class StateRefused(HypervisorError):
    """QEMU does not take a state: it would not on another day either."""


def shape(spec: DomainSpec) -> str:
    """All that a device state has to find again in a domain, as text: its XML, less what is a guest's own.
    The same for a guest whose RAM is shared and for one whose RAM is not, on whatever network."""
    return render(
        replace(
            spec,
            guest="golden",
            run="golden",
            home=_PLACE,
            disk=replace(spec.disk, path=_PLACE) if spec.disk is not None else None,
            console_log=_PLACE,
            fw_cfg=tuple(replace(entry, file=_PLACE) for entry in spec.fw_cfg),
            agent_socket=_PLACE if spec.agent_socket is not None else None,
            probe_socket=_PLACE if spec.probe_socket is not None else None,
            monitor_socket=None,
            memory_file=_PLACE,
            memory_base=None,
            ssh_port=1,
            tap="",
            other_tap="",
            mac="52:54:00:00:00:00",
            kept_guest=False,
            generation=0,
            incoming=False,
            uuid=_NOBODY,
            machine_uuid=_NOBODY,
        )
    )


def take(hypervisor: LibvirtHypervisor, guest: str, folder: Path, clock: Clock) -> bytes:
    """Stop a guest and take its device state; its RAM is what its file holds from then on. It never runs
    again. folder: for a socket, with a short path. HypervisorError when the state cannot be had."""
    hypervisor.qmp(guest, "stop")
    hypervisor.qmp(guest, "netdev_del", id="lab0")
    hypervisor.qmp(guest, "set_link", name="labnet0", up=True)
    _ignore_shared(hypervisor, guest, True)
    path = folder / f"{secrets.token_hex(4)}.state"
    keeper = Keeper(path)
    try:
        hypervisor.qmp(guest, "migrate", uri=f"unix:{path}")
        deadline = clock.now().raw_ns + round(OUT_S * NS_PER_S)
        while not is_over(str((known := hypervisor.qmp(guest, "query-migrate")).get("status", "none"))):
            if clock.now().raw_ns > deadline:
                raise HypervisorError("QEMU did not send its state in time", where=guest)
            clock.sleep_until(clock.now().raw_ns + NS_PER_S // 100)
        if known.get("status") != "completed":
            why = known.get("error-desc") or known.get("status")
            raise HypervisorError(f"its state cannot be saved: {why}", where=guest)
        return keeper.take(OUT_S)
    finally:
        keeper.close()
        path.unlink(missing_ok=True)


def start(hypervisor: LibvirtHypervisor, spec: DomainSpec, state: bytes, folder: Path) -> None:
    """Start a guest with the device state of another one of its shape; spec.incoming. It runs when this
    returns. HypervisorError when libvirt or QEMU refuses; the domain may be there then."""
    guest = spec.guest
    hypervisor.define_and_start(spec)
    path = folder / f"{secrets.token_hex(4)}.state"
    try:
        _ignore_shared(hypervisor, guest, True)
        hypervisor.qmp(guest, "migrate-set-parameters", **{"announce-rounds": 0})
        hypervisor.qmp(guest, "migrate-incoming", uri=f"unix:{path}")
        try:
            send_state(path, state, IN_S)
        except OSError as error:
            words = _words(hypervisor, spec)
            raise StateRefused(
                f"QEMU does not accept the state: {error.strerror or error}{words}", where=guest
            ) from error
        _await_state(hypervisor, spec)
        # libvirt's own save would write a stream that libvirt's own restore does not understand.
        _ignore_shared(hypervisor, guest, False)
        hypervisor.qmp(guest, "cont")  # libvirt's has been forgotten: the state is one of a guest that stood
        # QEMU answers `cont` with success also where it only remembers the wish.
        if (status := _status(hypervisor, guest)) != "running":
            raise HypervisorError(
                f"QEMU has loaded the state, but is {status} instead of running", where=guest
            )
    finally:
        path.unlink(missing_ok=True)


def _await_state(hypervisor: LibvirtHypervisor, spec: DomainSpec) -> None:
    """HypervisorError when QEMU does not take all of the state."""
    events = hypervisor.events

    def look() -> str | None:
        if any(event.ends_guest for event in events.lifecycle(spec.uuid)):
            return f"QEMU refuses the state{_words(hypervisor, spec)}"
        with contextlib.suppress(HypervisorError):
            return None if _status(hypervisor, spec.guest) == "inmigrate" else ""
        return None

    why = events.wait_until(look, IN_S)
    if why is None:
        raise HypervisorError("QEMU does not finish loading the state", where=spec.guest)
    if why:
        raise StateRefused(why, where=spec.guest)


def _status(hypervisor: LibvirtHypervisor, guest: str) -> Any:
    return hypervisor.qmp(guest, "query-status")["status"]


def _words(hypervisor: LibvirtHypervisor, spec: DomainSpec) -> str:
    words = hypervisor.last_words(spec.name)
    return f": {words}" if words else ""


def _ignore_shared(hypervisor: LibvirtHypervisor, guest: str, on: bool) -> None:
    set_capabilities(partial(hypervisor.qmp, guest), "x-ignore-shared", on=on)
