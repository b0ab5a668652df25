"""Recovers the guests of a killed run: frozen, half handed over, or saved to a file.

Exactly one of the two ends of a hand-over may run. QEMU itself is queried to decide which: when the successor
has run, the predecessor never runs again; as long as the successor has not run, it can be ended. libvirt's
state does not decide: after a connection was opened, it comes from the status file, which is older than the
kill, until libvirt has queried QEMU some tenths of a second later."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from lab.errors import HypervisorError
from lab.hypervisor import overlays
from lab.hypervisor.binding import as_hypervisor_error, libvirt
from lab.hypervisor.context import LibvirtContext
from lab.hypervisor.domains import LabDomain, state_of
from lab.hypervisor.migration import is_post_copy
from lab.hypervisor.own_lease import records
from lab.hypervisor.process import QemuProcess
from lab.hypervisor.qmp import (
    NEVER_RAN,
    MonitorError,
    QmpSocket,
    leave_migration,
    migration_status,
    status,
    take_port,
)

_END_S = 5.0
_REST_S = 60.0
_PAUSE_S = 0.01

_RECONNECT_S = 1.0
"""Time limit for libvirt to query QEMU for a guest's state after a connection was opened; it took 0.3 s."""

_STILL = ("paused", "pmsuspended")


def settle(context: LibvirtContext, but: Collection[str]) -> Iterator[str]:
    """End one of the two ends of each interrupted hand-over. Yields a line for each. Afterwards every guest's
    name means one domain again, which may still be paused. but: runs that are alive."""
    found: dict[tuple[str, str], list[LabDomain]] = defaultdict(list)
    for domain in context.domains.lab():
        if domain.run not in but:
            found[domain.run, domain.guest].append(domain)
    for (_run, guest), ends in found.items():
        if len(ends) < 2:
            continue
        *older, newest = sorted(ends, key=lambda end: end.generation)
        if _has_run(context, newest):
            for end in older:
                _end(context, end)
            with contextlib.suppress(HypervisorError):
                forward(context, newest)
            yield f"guest {guest}: its successor runs; the old process was ended"
        else:
            _end(context, newest)
            yield (
                f"guest {guest}: its hand-over was interrupted before the successor ran, "
                "and the successor was ended"
            )


def run_again(context: LibvirtContext, but: Collection[str], *, all_guests: bool) -> Iterator[str]:
    """Resume every guest of this lab, including those that were saved to a file, or only the kept ones.
    Yields a line for each."""
    for domain in context.domains.lab():
        if domain.run in but or not (all_guests or domain.kept_guest):
            continue
        was = _resume(context, domain)
        if was != "running":
            yield f"guest {domain.guest} runs again (it was {was})"
        for line in overlays.undo(_lookup(context, domain), domain.guest):
            yield f"guest {domain.guest}: {line}"
    running = {domain.uuid for domain in context.domains.lab()}
    own = {record.uuid for record in records(context.home)}
    for path in saved(context.home) if all_guests else ():
        if path.stem in own:
            continue  # of another connection
        if path.stem in running:  # restored already: the run was killed before it had removed the file
            drop_saved(path)
            continue
        try:
            context.connection.restoreFlags(str(path), None, libvirt.VIR_DOMAIN_SAVE_RUNNING)
        except libvirt.libvirtError as error:
            raise as_hypervisor_error(error, "cannot be restored", str(path)) from error
        drop_saved(path)
        yield f"the guest saved in {path} runs again"


def _has_run(context: LibvirtContext, domain: LabDomain) -> bool:
    """Whether a successor has been told to run. One whose QEMU is gone counts as not."""
    if domain.monitor:
        with contextlib.suppress(MonitorError), QmpSocket(domain.monitor) as monitor:
            return status(monitor) not in NEVER_RAN
    return _state(context, domain) == "running"


def _resume(context: LibvirtContext, domain: LabDomain) -> str:
    """Resume a guest. Returns its state before. HypervisorError when it does not run afterwards."""
    if not domain.monitor:
        return _resume_by_libvirt(context, domain)
    was = _resume_by_monitor(domain)
    _await_libvirt(context, domain)
    return was


def _resume_by_monitor(domain: LabDomain) -> str:
    try:
        with QmpSocket(domain.monitor) as monitor:
            was = status(monitor)
            if was == "running":
                return was
            leave_migration(monitor)
            monitor.execute("system_wakeup" if was == "suspended" else "cont")
            end = time.monotonic() + _END_S
            while (found := status(monitor)) != "running":
                if time.monotonic() > end:
                    raise HypervisorError(f"cannot be resumed: QEMU says {found}", where=domain.guest)
                time.sleep(_PAUSE_S)
            return was
    except MonitorError as error:
        raise HypervisorError(f"cannot be resumed: {error}", where=domain.guest) from error


def _await_libvirt(context: LibvirtContext, domain: LabDomain) -> None:
    """Wait until libvirt knows that a guest runs. On QEMU's event it writes its status file, which `list`
    reads; if this process ended before, the file would still say "paused"."""
    end = time.monotonic() + _END_S
    with contextlib.suppress(HypervisorError, libvirt.libvirtError):
        while state_of(_lookup(context, domain)) != "running" and time.monotonic() < end:
            time.sleep(_PAUSE_S)


def _resume_by_libvirt(context: LibvirtContext, domain: LabDomain) -> str:
    was = _state(context, domain)
    if was in _STILL:
        there = _lookup(context, domain)
        try:
            if was == "pmsuspended":
                there.pMWakeup(0)
            else:
                there.resume()
        except libvirt.libvirtError as error:
            raise as_hypervisor_error(error, "cannot be resumed", domain.guest) from error
        return was
    return "running"


def _state(context: LibvirtContext, domain: LabDomain) -> str:
    """The state in libvirt's words, after it has queried QEMU, for a guest without the lab's own monitor."""
    if context.root is not None:
        time.sleep(_RECONNECT_S)
    return state_of(_lookup(context, domain))


def saved(home: Path) -> list[Path]:
    """Files of guests that save-restore has left in the state folder, or linked from there."""
    folder = home / "saved"
    return sorted(folder.glob("*.save")) if folder.is_dir() else []


def drop_saved(path: Path) -> None:
    """Remove a saved guest's file, and the link to it."""
    with contextlib.suppress(OSError):
        path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def forward(context: LibvirtContext, domain: LabDomain) -> None:
    """Make a successor's user-mode network take over the guest's port on 127.0.0.1. HypervisorError when
    another process has the port, or the guest has no such network."""
    if domain.ssh_port is None:
        return
    failure = take_port(partial(context.qmp, _lookup(context, domain), domain.guest), domain.ssh_port)
    if failure:
        raise HypervisorError(
            f"its TCP port {domain.ssh_port} on 127.0.0.1 was not forwarded to the successor: {failure}",
            where=domain.guest,
        )


def _lookup(context: LibvirtContext, domain: LabDomain) -> Any:
    try:
        return context.connection.lookupByUUIDString(domain.uuid)
    except libvirt.libvirtError as error:
        raise as_hypervisor_error(error, "is gone", domain.guest) from error


def _end(context: LibvirtContext, domain: LabDomain) -> None:
    """Kill a process, wait until it is gone, and let libvirt clean up its domain. One that still has memory
    of the guest, in post-copy, is waited for."""
    if domain.monitor:
        with contextlib.suppress(MonitorError), QmpSocket(domain.monitor) as monitor:
            end = time.monotonic() + _REST_S
            while is_post_copy(migration_status(monitor)) and time.monotonic() < end:
                time.sleep(_PAUSE_S)
    with contextlib.suppress(HypervisorError), QemuProcess.find(domain.uuid, domain.guest) as process:
        process.kill(_END_S)
    with contextlib.suppress(libvirt.libvirtError, HypervisorError):
        _lookup(context, domain).destroy()
