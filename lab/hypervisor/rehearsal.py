"""Tests, before the freeze, a process that will be started only during the freeze.

In the cold exchange and in save-restore, the guest's next process starts when the previous one is gone.
Anything that it refuses or lacks would be found too late. So it is started once beforehand beside the running
guest, paused and waiting for a state that never comes. It takes no disk locks and writes to no RAM.
"""

from __future__ import annotations

import contextlib
import functools
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
    """Start the guest's next process (spec, with other sockets), check what the guest would lose there, and
    end it without a trace. This takes a second or two. HypervisorError when it does not start, Refused when
    the guest would lose something."""
    guest = spec.guest
    # It has its own name, because libvirt keeps a log for each name.
    trial = replace(spec, generation=spec.generation + 1, uuid=str(uuid.uuid4()))
    trial = trial.with_sockets_in(context.sockets)
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
