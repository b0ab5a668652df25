"""Saves a guest's device state as bytes, and starts guests from it.

The state does not contain RAM, as in in-place: at the source, x-ignore-shared leaves out RAM that is a shared
mapping of a file. The destination loads whatever arrives, so it may map the file privately (QEMU,
migration/ram.c, ram_load). So many guests can start from one file, and none can change it.

QEMU's user-mode network writes its own state with all connections into the stream, which a guest on a bridge
could not load and no guest should have. So the network card is detached from it before. The card's link is
then set up again, because it would otherwise be down in every copy.
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
from lab.process.pace import paced

OUT_S = 30.0
IN_S = 30.0
"""Time limit for a state's transfer, which takes tenths of a second, and more on a very busy host."""

_PLACE = Path("/golden")
_NOBODY = "00000000-0000-4000-8000-000000000000"


class StateRefused(HypervisorError):
    """QEMU refuses a state. Trying again does not help."""


def shape(spec: DomainSpec) -> str:
    """Everything in a domain that must match a device state, as text: the domain's XML without the parts that
    differ between guests. It depends neither on whether the RAM is shared nor on the network."""
    return render(
        replace(
            spec,
            guest="golden",
            run="golden",
            home=_PLACE,
            disk=replace(spec.disk, path=_PLACE) if spec.disk is not None else None,
            seed_disk=_PLACE if spec.seed_disk is not None else None,
            console_log=_PLACE,
            fw_cfg=tuple(replace(entry, file=_PLACE) for entry in spec.fw_cfg),
            agent_socket=_PLACE if spec.agent_socket is not None else None,
            probe_socket=_PLACE if spec.probe_socket is not None else None,
            monitor_socket=None,
            control_socket=None,
            memory_file=_PLACE,
            memory_base=None,
            ssh_port=1,
            tap="",
            other_tap="",
            mac="52:54:00:00:00:00",
            lab_socket=_PLACE if spec.lab_socket is not None else None,
            lab_switch=_PLACE if spec.lab_switch is not None else None,
            lab_mac="52:54:01:00:00:00" if spec.lab_socket is not None else "",
            kept_guest=False,
            generation=0,
            incoming=False,
            uuid=_NOBODY,
            machine_uuid=_NOBODY,
        )
    )


def take(hypervisor: LibvirtHypervisor, guest: str, folder: Path, clock: Clock) -> bytes:
    """Stop a guest and return its device state. From then on its RAM file belongs to that state, and the
    guest never runs again. folder: for a socket, with a short path. HypervisorError when the state cannot be
    saved."""
    hypervisor.qmp(guest, "stop")
    hypervisor.qmp(guest, "netdev_del", id="lab0")
    hypervisor.qmp(guest, "set_link", name="labnet0", up=True)
    _ignore_shared(hypervisor, guest, True)
    path = folder / f"{secrets.token_hex(4)}.state"
    keeper = Keeper(path)
    try:
        hypervisor.qmp(guest, "migrate", uri=f"unix:{path}")
        deadline = clock.now().raw_ns + round(paced(OUT_S) * NS_PER_S)
        while not is_over(str((known := hypervisor.qmp(guest, "query-migrate")).get("status", "none"))):
            if clock.now().raw_ns > deadline:
                raise HypervisorError("QEMU did not send its state in time", where=guest)
            clock.sleep_until(clock.now().raw_ns + NS_PER_S // 100)
        if known.get("status") != "completed":
            why = known.get("error-desc") or known.get("status")
            raise HypervisorError(f"its state cannot be saved: {why}", where=guest)
        return keeper.take(paced(OUT_S))
    finally:
        keeper.close()
        path.unlink(missing_ok=True)


def start(hypervisor: LibvirtHypervisor, spec: DomainSpec, state: bytes, folder: Path) -> None:
    """Start a guest from the device state of another guest of the same shape. spec.incoming must be set. The
    guest runs when this returns. HypervisorError when libvirt or QEMU refuses; the domain may exist then."""
    guest = spec.guest
    hypervisor.define_and_start(spec)
    path = folder / f"{secrets.token_hex(4)}.state"
    try:
        _ignore_shared(hypervisor, guest, True)
        hypervisor.qmp(guest, "migrate-set-parameters", **{"announce-rounds": 0})
        hypervisor.qmp(guest, "migrate-incoming", uri=f"unix:{path}")
        try:
            send_state(path, state, paced(IN_S))
        except OSError as error:
            words = _words(hypervisor, spec)
            raise StateRefused(
                f"QEMU does not accept the state: {error.strerror or error}{words}", where=guest
            ) from error
        _await_state(hypervisor, spec)
        # libvirt's own save would write a stream that libvirt's own restore does not understand.
        _ignore_shared(hypervisor, guest, False)
        hypervisor.qmp(guest, "cont")  # libvirt's cont has no effect: the loaded state is a stopped guest's
        # QEMU answers `cont` with success even when it only records the request.
        if (status := _status(hypervisor, guest)) != "running":
            raise HypervisorError(
                f"QEMU has loaded the state, but is {status} instead of running", where=guest
            )
    finally:
        path.unlink(missing_ok=True)


def _await_state(hypervisor: LibvirtHypervisor, spec: DomainSpec) -> None:
    """Wait until QEMU has loaded the state. HypervisorError when it does not."""
    events = hypervisor.events

    def look() -> str | None:
        if any(event.ends_guest for event in events.lifecycle(spec.uuid)):
            return f"QEMU refuses the state{_words(hypervisor, spec)}"
        with contextlib.suppress(HypervisorError):
            return None if _status(hypervisor, spec.guest) == "inmigrate" else ""
        return None

    why = events.wait_until(look, paced(IN_S))
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
