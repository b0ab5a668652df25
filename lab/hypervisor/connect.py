"""Opening a hypervisor: the embedded driver by default, or any libvirt URI."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from lab.errors import HypervisorError
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.binding import as_hypervisor_error, libvirt
from lab.hypervisor.embed import Root, Waiting
from lab.hypervisor.loop import LOOP
from lab.ports import Clock

NO_DAEMON = "does its daemon run, and may you use it? Without --connect no daemon is needed"


def connect(
    uri: str | None, state: Path, *, clock: Clock, waiting: Waiting | None = None
) -> LibvirtHypervisor:
    """Open `uri`, or the embedded QEMU driver under `state`/libvirt when it is None or "".

    HypervisorError when nothing answers there, or another process of the lab holds the embedded driver;
    with `waiting`, which is told who does, that is waited for, and a dead-man always.
    """
    root = None if uri else Root.take(state, waiting)
    LOOP.acquire()
    connection: Any = None
    address = root.uri if root is not None else uri or ""
    try:
        try:
            connection = libvirt.open(address)
        except libvirt.libvirtError as error:
            failure = as_hypervisor_error(error, "cannot connect", "" if root is not None else address)
            hint = failure.hint or ("" if root is not None else NO_DAEMON)
            raise HypervisorError(failure.what, where=failure.where, hint=hint) from error
        return LibvirtHypervisor(connection, address, state, clock, root)
    except BaseException:
        if connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()
        LOOP.release()
        raise
