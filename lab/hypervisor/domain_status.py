"""Reads a kept guest's state without libvirt, whose embedded driver another process may be using.

libvirt writes a domain's state to ROOT/run/qemu/NAME.xml whenever it changes (`domstatus`; libvirt,
src/conf/domain_conf.c). The process is found by the domain's uuid.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from lab.errors import HypervisorError
from lab.hypervisor.process import QemuProcess


def domain_status(home: Path, domain: str, uuid: str) -> str:
    """The domain's state in libvirt's words (running, paused, …); "stopped" when its process was stopped by a
    signal, "gone" without a process, and "running" when the process exists but libvirt's file cannot be
    read."""
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
