"""What libvirt says of a domain of the user's own, and which freezes that allows.

The lab only reads such a domain, and stops and resumes it. It never defines, changes or destroys it, and uses
none of libvirt's calls that would leave a mark on it, such as a QMP command, which taints a domain.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from lab.core.method import FreezeMethod
from lab.core.plan import RtcTrack
from lab.errors import HypervisorError, Refused, UsageError
from lab.hypervisor import agent
from lab.hypervisor.binding import as_hypervisor_error, is_code, libvirt, mapped
from lab.hypervisor.domain import NAMESPACE
from lab.hypervisor.domains import state_of
from lab.hypervisor.facts import Emulator

QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
"""The XML namespace of what a domain gives QEMU directly (libvirt, "QEMU command-line passthrough")."""

MOST_SHOWN = 300
"""The most characters of a device's XML in a message."""

_TODO = {
    "paused": "if it is to run: virsh resume {}",
    "shut off": "start it first: virsh start {}",
    "pmsuspended": "wake it first: virsh dompmwakeup {}",
    "crashed": "start it again first",
}


@dataclass(frozen=True)
class OwnDomain:
    """A domain as it was found. persistent: it is defined, and stays when it ends.

    disks, cdroms: targets such as "vda". host_devices: of its XML, in words. snapshots, checkpoints: how many
    libvirt knows. agent: whether it has a channel for qemu-guest-agent. may_sleep: its firmware may offer S3,
    as far as its XML says. hpet: it has one. mac: of its first network card; "" without one. machine_uuid: as
    in the guest's firmware. user_network: it has one of QEMU's user-mode networks, whose connections end with
    the process. monitor: the lab's own monitor of a kept guest; "" without one. inactive, active: its XML
    when it is shut off, and as it runs.
    """

    name: str
    uuid: str
    persistent: bool
    kind: str
    emulator: str
    machine: str
    memory_bytes: int
    vcpus: int
    disks: tuple[str, ...]
    cdroms: tuple[str, ...]
    host_devices: tuple[str, ...]
    snapshots: int
    checkpoints: int
    agent: bool
    may_sleep: bool
    hpet: bool
    rtc: RtcTrack
    mac: str
    machine_uuid: str
    user_network: bool
    monitor: str
    inactive: str
    active: str

    @property
    def machine_type(self) -> Emulator:
        return Emulator(Path(self.emulator), self.machine)

    @property
    def where(self) -> str:
        return f"domain {self.name}"

    def refusal(self, method: FreezeMethod) -> str:
        """Why this method would fail, as far as its XML says; "" when nothing is known."""
        if method.traits.copies_memory and self.host_devices:
            return f"libvirt cannot save host devices and shared folders: {', '.join(self.host_devices)}"
        if method.traits.copies_memory and not self.persistent and (self.snapshots or self.checkpoints):
            return "it is transient, and libvirt forgets its snapshots and checkpoints when it is saved"
        if (method.sleeps or method.traits.freezes_files) and not self.agent:
            return f"it has no channel {agent.CHANNEL} for qemu-guest-agent"
        if method.sleeps and not self.may_sleep:
            return "its XML disables S3 (pm, suspend-to-mem)"
        if method.sleeps and self.kind == "qemu" and "q35" in self.machine and not self.hpet:
            return "without KVM and HPET, the time of a guest on a q35 machine stands still after S3"
        return ""


def look_up(connection: Any, name: str) -> Any:
    """The domain of this name. UsageError when there is none."""
    try:
        return connection.lookupByName(name)
    except libvirt.libvirtError as error:
        if not is_code(error, "VIR_ERR_NO_DOMAIN"):
            raise as_hypervisor_error(error, "cannot be looked up", f"domain {name}") from error
    with mapped("the domains cannot be listed"):
        there = [str(domain.name()) for domain in connection.listAllDomains(0)]
    close = difflib.get_close_matches(name, there, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(sorted(there)[:6]) or 'none'}"
    raise UsageError("there is no such domain on this connection", where=f"domain {name}", hint=hint)


def read(domain: Any) -> OwnDomain:
    """What libvirt says of a domain. Refused for a guest of a lab, unless it is a kept one."""
    name = str(domain.name())
    with mapped("its XML cannot be read", f"domain {name}"):
        active, inactive = str(domain.XMLDesc(0)), str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        persistent, snapshots = bool(domain.isPersistent()), int(domain.snapshotNum(0))
        checkpoints = len(domain.listAllCheckpoints(0))
    root = _parsed(active)
    mark = root.find(f"metadata/{{{NAMESPACE}}}guest")
    if mark is not None and mark.get("kept") != "yes":
        raise Refused("is a guest that a lab has started", where=f"domain {name}")
    devices = root.find("devices")
    devices = devices if devices is not None else ET.Element("devices")
    kinds: dict[str, list[str]] = {}
    for disk in devices.iter("disk"):
        target = disk.find("target")
        kinds.setdefault(disk.get("device", "disk"), []).append(
            target.get("dev", "?") if target is not None else "?"
        )
    mac = devices.find("interface/mac")
    sleep = root.find("pm/suspend-to-mem")
    timers = {timer.get("name"): timer for timer in root.iter("timer")}
    track = timers["rtc"].get("track") if "rtc" in timers else None
    return OwnDomain(
        name=name,
        uuid=str(domain.UUIDString()),
        persistent=persistent,
        kind=root.get("type", ""),
        emulator=devices.findtext("emulator", ""),
        machine=_attribute(root, "os/type", "machine"),
        memory_bytes=int(root.findtext("memory", "0")) << 10,
        vcpus=int(root.findtext("vcpu", "1")),
        disks=tuple(kinds.get("disk", []) + kinds.get("lun", [])),
        cdroms=tuple(kinds.get("cdrom", []) + kinds.get("floppy", [])),
        host_devices=tuple(_host_devices(devices)),
        snapshots=snapshots,
        checkpoints=checkpoints,
        agent=any(target.get("name") == agent.CHANNEL for target in devices.iterfind("channel/target")),
        may_sleep=sleep is None or sleep.get("enabled") != "no",
        hpet="hpet" not in timers or timers["hpet"].get("present") != "no",
        rtc=RtcTrack.GUEST if track == "guest" else RtcTrack.WALL,
        mac=mac.get("address", "") if mac is not None else "",
        machine_uuid=_machine_uuid(root, str(domain.UUIDString())),
        user_network=_has_user_network(root),
        monitor=mark.get("monitor", "") if mark is not None else "",
        inactive=inactive,
        active=active,
    )


def check_runs(domain: Any, name: str) -> None:
    """Refused when the domain does not run. One that is paused was not paused by this lab, which resumes at
    once what a killed run of its own had frozen."""
    state = state_of(domain)
    if state != "running":
        todo = _TODO.get(state, "it has to run").format(name)
        raise Refused(f"is {state}, and this lab has not done that", where=f"domain {name}", hint=todo)


def differences(before: str, after: str) -> list[str]:
    """What differs in two XMLs of one domain, one line each. What is new in every process is left out: its
    id, paths of terminals and sockets, names of tap devices; and the order of devices."""
    one, two = _parsed(before), _parsed(after)
    devices, others = [_devices(root) for root in (one, two)], [_leaves(root) for root in (one, two)]
    found = [
        f"{path}: {_shown(others[0].get(path))} is now {_shown(others[1].get(path))}"
        for path in sorted(others[0].keys() | others[1].keys())
        if others[0].get(path) != others[1].get(path)
    ]
    found += [f"{device} is gone" for device in (devices[0] - devices[1]).elements()]
    return found + [f"{device} is new" for device in (devices[1] - devices[0]).elements()]


def compare(domain: Any, own: OwnDomain) -> list[str]:
    """How a domain differs from how it was found; of one that somebody has ended, how its definition does.
    HypervisorError when libvirt does not answer."""
    try:
        now = bool(domain.isPersistent())
        inactive = str(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        active = str(domain.XMLDesc(0)) if domain.isActive() else own.active
    except libvirt.libvirtError as error:
        if is_code(error, "VIR_ERR_NO_DOMAIN"):
            return ["it was persistent and is gone"] if own.persistent else []
        raise as_hypervisor_error(error, "its XML cannot be read", own.where) from error
    words = {True: "persistent", False: "transient"}
    found = [] if now == own.persistent else [f"it was {words[own.persistent]} and is {words[now]}"]
    if own.persistent and now:
        found += differences(own.inactive, inactive)
    return found + differences(own.active, active)


def _parsed(xml: str) -> ET.Element:
    try:
        return ET.fromstring(xml)  # noqa: S314 - libvirt's own
    except ET.ParseError as error:
        raise HypervisorError(f"libvirt's XML cannot be read: {error}") from error


def _attribute(root: ET.Element, path: str, name: str) -> str:
    found = root.find(path)
    return found.get(name, "") if found is not None else ""


def _has_user_network(root: ET.Element) -> bool:
    """Also one that the user gives QEMU directly."""
    cards = [card.get("type") for card in root.iterfind("devices/interface")]
    return "user" in cards or any(text.split(",")[0] == "user" for text in _given(root))


def _given(root: ET.Element) -> list[str]:
    """The arguments that the domain gives QEMU directly."""
    return [each.get("value", "") for each in root.iterfind(f"{{{QEMU}}}commandline/{{{QEMU}}}arg")]


def _machine_uuid(root: ET.Element, uuid: str) -> str:
    """The product UUID (DMI), which is the domain's unless it says otherwise."""
    for text in _given(root):
        for word in text.split(",") if text.startswith("type=1,") else ():
            if word.startswith("uuid="):
                return word.removeprefix("uuid=")
    return root.findtext("sysinfo/system/entry[@name='uuid']") or uuid


def _host_devices(devices: ET.Element) -> Iterator[str]:
    """Devices of the host, and folders shared with it, without which libvirt cannot save a domain."""
    for element in devices:
        if element.tag == "hostdev":
            yield f"hostdev {element.get('type', '')}".strip()
        elif element.tag == "interface" and element.get("type") == "hostdev":
            yield "interface hostdev"
        elif element.tag in ("filesystem", "shmem"):
            yield element.tag


_NEW_EACH_TIME = {
    "": {"alias", "seclabel", "backingStore", "mirror"},
    "interface": {"@target.dev"},
    "console": {"@tty", "@source.path", "@source.tty"},
    "serial": {"@tty", "@source.path"},
    "channel": {"@source.path", "@target.state"},
    "graphics": {"@port", "@tlsPort", "@socket", "@listen.socket"},
}
"""Parts of a device's XML that libvirt chooses again for each process; "": of any device."""


def _devices(root: ET.Element) -> Counter[str]:
    """The domain's devices, each as one line of XML, without what is new in every process."""
    found: Counter[str] = Counter()
    for device in root.iterfind("devices/*"):
        dropped = _NEW_EACH_TIME[""] | _NEW_EACH_TIME.get(device.tag, set())
        for name in [name for name in device.attrib if f"@{name}" in dropped]:
            del device.attrib[name]
        for part in list(device):
            if part.tag in dropped:
                device.remove(part)
                continue
            for name in [name for name in part.attrib if f"@{part.tag}.{name}" in dropped]:
                del part.attrib[name]
        text = ET.canonicalize(ET.tostring(device, encoding="unicode"), strip_text=True)
        found[text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…{hash(text) & 0xFFFF:04x}"] += 1
    return found


def _leaves(root: ET.Element) -> dict[str, str]:
    """Every text and attribute outside the devices, by its path."""
    found: dict[str, str] = {}

    def walk(element: ET.Element, path: str) -> None:
        for name, value in element.attrib.items():
            if (path, name) != (root.tag, "id"):
                found[f"{path}/@{name}"] = value
        found[path] = (element.text or "").strip()
        counts: Counter[str] = Counter()
        for child in element:
            tag = child.tag.rpartition("}")[2]
            counts[tag] += 1
            if path != root.tag or tag not in ("devices", "seclabel"):
                walk(child, f"{path}/{tag}" + (f"[{counts[tag]}]" if counts[tag] > 1 else ""))

    walk(root, root.tag)
    return found


def _shown(value: str | None) -> str:
    return "absent" if value is None else repr(value[:60])
