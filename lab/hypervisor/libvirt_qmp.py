"""QMP through libvirt, for guests without the lab's own monitor, and where libvirt is in use anyway."""

from __future__ import annotations

import json
from typing import Any

from lab.hypervisor.binding import as_hypervisor_error, libvirt, libvirt_qemu
from lab.hypervisor.qmp import MonitorError


def execute(domain: Any, command: str, **arguments: Any) -> Any:
    """Run a QMP command, without a time limit, and return its result. MonitorError when QEMU or libvirt
    refuses, or QEMU has ended. libvirt marks the domain as tainted."""
    request = {"execute": command, **({"arguments": arguments} if arguments else {})}
    try:
        answer = json.loads(libvirt_qemu.qemuMonitorCommand(domain, json.dumps(request), 0))
    except libvirt.libvirtError as error:
        raise MonitorError(str(as_hypervisor_error(error, f"QMP {command} failed"))) from error
    if "error" in answer:
        raise MonitorError(f"QMP {command} failed: {answer['error'].get('desc')}")
    return answer.get("return")
