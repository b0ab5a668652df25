"""Reads a kept guest's state without libvirt, whose embedded driver another process may be using.

libvirt writes a domain's state to ROOT/run/qemu/NAME.xml whenever it changes (`domstatus`; libvirt,
src/conf/domain_conf.c), as long as a process has the driver open. At other times it does not learn that a
guest has powered itself off. The guest's QEMU, which libvirt starts with -no-shutdown, stays and knows: it is
asked, over the lab's own monitor. The process is found by the domain's uuid.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from lab.errors import HypervisorError
from lab.hypervisor.domain import control_socket_of
from lab.hypervisor.process import QemuProcess
from lab.hypervisor.qmp import MonitorError, QmpSocket, status

SHUT_OFF, GONE = "shut off", "gone"
ENDED = (SHUT_OFF, GONE)
"""States of a guest that runs no more."""

_ASK_S = 0.5
"""Time limit for QEMU's answer; another process may be using the monitor."""

_STATES = {
    "running": "running",
    "shutdown": SHUT_OFF,
    "paused": "paused",
    "suspended": "pmsuspended",
    "guest-panicked": "crashed",
}
"""libvirt's words for states of QEMU's (qapi/run-state.json) into which a guest comes without libvirt."""


def domain_status(home: Path, domain: str, uuid: str) -> str:
    """The domain's state in libvirt's words (running, paused, shut off, …); "stopped" when its process was
    stopped by a signal, GONE without a process, and "running" when the process exists but neither libvirt's
    file can be read nor QEMU answers."""
    try:
        with QemuProcess.find(uuid, domain) as process:
            if process.is_stopped():
                return "stopped"
            arguments = process.arguments
    except HypervisorError:
        return GONE
    known = _in_the_file(home / "libvirt" / "run" / "qemu" / f"{domain}.xml")
    # A process that closes the driver right after a resume may leave "paused" in the file.
    return _asked(arguments) or known if known in ("running", "paused") else known


def _in_the_file(path: Path) -> str:
    try:
        root = ET.fromstring(path.read_text(encoding="utf-8"))  # noqa: S314 - libvirt's own file
    except (OSError, UnicodeDecodeError, ET.ParseError):
        return "running"
    return root.get("state") or "running"


def _asked(arguments: list[str]) -> str:
    """What QEMU says; "" when it does not answer, or says another thing."""
    socket = control_socket_of(arguments)
    if socket is None:
        return ""
    try:
        with QmpSocket(socket, _ASK_S) as monitor:
            return _STATES.get(status(monitor), "")
    except MonitorError:
        return ""
