"""A look, before the freeze, at a process that will only be started in it.

In the cold exchange and in save-restore the guest's next process begins when its last one has gone; what that
one refuses, or has not, would be found out too late. So it is started once beforehand, paused and waiting for
a state that does not come, beside the running guest: it takes no lock of a disk and writes to no RAM.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
import uuid
from dataclasses import replace

from lab.errors import HypervisorError
from lab.hypervisor import handover_check
from lab.hypervisor.binding import libvirt
from lab.hypervisor.context import LibvirtContext
from lab.hypervisor.domain import DomainSpec
from lab.hypervisor.process import QemuProcess

_END_S = 5.0


def rehearse(context: LibvirtContext, spec: DomainSpec) -> None:
    """Start the guest's next process (spec, but for its sockets), see what the guest would lose there, and
    end it; a second or two. Nothing of it is left. HypervisorError when it does not start, Refused when the
    guest would lose."""
    guest = spec.guest
    place = context.sockets
    agent, probe, monitor = (
        place / f"{secrets.token_hex(4)}.{kind}" if path is not None else None
        for kind, path in (
            ("agent", spec.agent_socket),
            ("probe", spec.probe_socket),
            ("monitor", spec.monitor_socket),
        )
    )
    # With a name of its own: libvirt keeps the last words of each name.
    trial = replace(
        spec,
        generation=spec.generation + 1,
        uuid=str(uuid.uuid4()),
        agent_socket=agent,
        probe_socket=probe,
        monitor_socket=monitor,
    )
    domain = None
    try:
        domain = context.domains.create(trial, paused=True)
        old, new = (functools.partial(context.qmp, one, guest) for one in (context.domain(guest)[0], domain))
        handover_check.refuse(old, new, guest)
    finally:
        with contextlib.suppress(HypervisorError), QemuProcess.find(trial.uuid, guest) as process:
            process.kill(_END_S)
        if domain is not None:
            with contextlib.suppress(libvirt.libvirtError):
                domain.destroy()
        for path in (*trial.sockets, context.logs.path(trial.name)):
            if path is not None:
                path.unlink(missing_ok=True)
