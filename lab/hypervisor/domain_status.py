"""A kept guest's state without libvirt, whose embedded driver another process may use.

libvirt writes a domain's state to ROOT/run/qemu/NAME.xml whenever it changes (`domstatus`, its src/conf/
domain_conf.c); the process is found by the domain's uuid.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from lab.errors import HypervisorError
from lab.hypervisor.process import QemuProcess


def domain_status(home: Path, domain: str, uuid: str) -> str:
    """running, paused, … as libvirt has it; "stopped" when its process stands still by a signal, "gone" when
    there is none. "running" when libvirt's file cannot be read: the process is there."""
    try:
        with QemuProcess.find(uuid, domain) as process:
            if process.is_stopped():
                return "stopped"
    except HypervisorError:
        return "gone"
    try:
        status = (home / "libvirt" / "run" / "qemu" / f"{domain}.xml").read_text(encoding="utf-8")
        root = ET.fromstring(status)  # noqa: S314 - libvirt's own file
    except (OSError, UnicodeDecodeError, ET.ParseError):
        return "running"
    return root.get("state") or "running"
