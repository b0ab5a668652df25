"""Opening a hypervisor: the embedded driver by default, or any libvirt URI."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from lab.errors import HypervisorError
from lab.hypervisor import reaper
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.binding import as_hypervisor_error, libvirt
from lab.hypervisor.embed import Ends, Root, Waiting
from lab.hypervisor.loop import LOOP
from lab.ports import Clock
from lab.process.requirements import advice

NO_DAEMON = "does its daemon run, and may you use it? Without --connect no daemon is needed"

_ASK_S, _UNANSWERED = 5, 3
"""libvirt's keepalive: the interval in seconds, and how many answers may be missing before the connection is
closed; 20 s in all (virConnectSetKeepAlive)."""


def connect(
    uri: str | None,
    state: Path,
    *,
    clock: Clock,
    waiting: Waiting | None = None,
    ends: Ends | None = None,
) -> LibvirtHypervisor:
    """Open `uri`, or the embedded QEMU driver under `state`/libvirt when it is None or "".

    HypervisorError when nothing answers there, or another process of the lab holds the embedded driver. With
    `waiting`, which is called with a line about that process, it waits for the process to end. It always
    waits for a dead-man.

    ends: which guests of earlier processes to end before libvirt connects to them; see Root._settle_guests
    and LibvirtHypervisor.ended. Only for the embedded driver, and when this process opens it first.
    """
    root = None if uri else Root.take(state, waiting, ends)
    if root is not None:
        reaper.start()
    LOOP.acquire()
    connection: Any = None
    address = root.uri if root is not None else uri or ""
    try:
        try:
            connection = libvirt.open(address)
            if root is None:
                # Without keepalive, calls wait for ever for a stopped daemon or a host that is gone.
                with contextlib.suppress(libvirt.libvirtError):  # test:///default is in this process
                    connection.setKeepAlive(_ASK_S, _UNANSWERED)
        except libvirt.libvirtError as error:
            failure = as_hypervisor_error(error, "cannot connect", "" if root is not None else address)
            hint = failure.hint or NO_DAEMON if root is None else advice(images=False) or failure.hint
            raise HypervisorError(failure.what, where=failure.where, hint=hint) from error
        return LibvirtHypervisor(connection, address, state, clock, root)
    except BaseException:
        if connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()
        LOOP.release()
        raise
