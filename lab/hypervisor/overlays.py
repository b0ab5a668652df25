"""External snapshots of a domain's disks: overlays that take its writes from then on, and their return into
the disks.

An overlay's name has the domain's uuid, so that whoever finds a domain with one knows that a lab has made it.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from lab.errors import HypervisorError, Refused
from lab.hypervisor import agent
from lab.hypervisor.binding import as_hypervisor_error, libvirt, mapped

_READY_S = 120.0
"""Time limit for what was written into an overlay to be in its disk, in seconds."""

_PAUSE_S = 0.02


def check(domain: Any, where: str, folder: Path | None) -> set[Path]:
    """The folders of take()'s overlays. Refused when it cannot make or remove them: there is no disk, a disk
    is no file and has no folder, the folder is not this user's, or files of an earlier snapshot are there."""
    sources, uuid = disks(domain, where), str(domain.UUIDString())
    if names := left(domain, where):
        raise Refused(f"a snapshot of a lab is in use: {', '.join(names.values())}", where=where)
    for name, source in sources.items():
        if folder is None and Path(source).is_block_device():
            hint = "set save_to to a folder for its overlay"
            raise Refused(f"its disk {name} is a block device, {source}", where=where, hint=hint)
    folders = {folder} if folder else {Path(source).parent for source in sources.values()}
    if there := [str(path) for each in sorted(folders) for path in each.glob(f"{_prefix(uuid)}*")]:
        hint = "a killed lab has left it, and the domain does not use it: remove it"
        raise Refused(f"a file of an earlier snapshot is there: {' '.join(there)}", where=where, hint=hint)
    for each in sorted(folders):
        if each.is_dir() and not os.access(each, os.W_OK):
            hint = "set save_to to a folder of yours, where its QEMU may write"
            raise Refused(f"you may not remove what libvirt would make in {each}", where=where, hint=hint)
    return folders


def disks(domain: Any, where: str) -> dict[str, str]:
    """The files or devices of the domain's writable disks, by target. Refused when it has none, or one that
    has no path on this host."""
    found: dict[str, str] = {}
    for disk in _all(domain, where):
        target, source = disk.find("target"), disk.find("source")
        if disk.get("device", "disk") != "disk" or disk.find("readonly") is not None or target is None:
            continue
        path = "" if source is None else source.get("file") or source.get("dev") or ""
        name = target.get("dev", "")
        if not path:
            raise Refused(f"its disk {name} has no path on this host", where=where)
        found[name] = path
    if not found:
        raise Refused("it has no disk that could be snapshotted", where=where)
    return found


def left(domain: Any, where: str) -> dict[str, str]:
    """The lab's overlays of a domain, by target."""
    uuid = str(domain.UUIDString())
    found = {}
    for disk in _all(domain, where):
        target, source = disk.find("target"), disk.find("source")
        path = "" if source is None else source.get("file") or ""
        if target is not None and Path(path).name.startswith(_prefix(uuid)):
            found[target.get("dev", "")] = path
    return found


def take(domain: Any, where: str, folder: Path | None, memory: Path | None) -> None:
    """Put an overlay over every writable disk at once. folder: for the overlays; None: beside each disk.
    memory: a file for the guest's RAM and devices as well; None: without them. HypervisorError when libvirt
    refuses or the disk is full; the domain is as before then, but for what _remove finds."""
    uuid, sources = str(domain.UUIDString()), disks(domain, where)
    root = ET.Element("domainsnapshot")
    state = ET.SubElement(root, "memory", snapshot="no" if memory is None else "external")
    if memory is not None:
        state.set("file", str(memory))
    listed = ET.SubElement(root, "disks")
    for disk in _all(domain, where):
        target = disk.find("target")
        name = "" if target is None else target.get("dev", "")
        if name not in sources:
            ET.SubElement(listed, "disk", name=name, snapshot="no")
            continue
        overlay = (folder or Path(sources[name]).parent) / f"{_prefix(uuid)}{name}.qcow2"
        entry = ET.SubElement(listed, "disk", name=name, snapshot="external", type="file")
        ET.SubElement(entry, "driver", type="qcow2")
        ET.SubElement(entry, "source", file=str(overlay))
    flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    if memory is None:
        flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    with mapped("libvirt cannot take the snapshot", where):
        domain.snapshotCreateXML(ET.tostring(root, encoding="unicode"), flags)


def flatten(domain: Any, where: str) -> list[str]:
    """Write what the lab's overlays hold into the disks below them, have the domain use these again, and
    remove the overlays. A domain that QEMU has paused, because an overlay could not grow, runs again. Returns
    their paths. HypervisorError when one cannot be; it stays in use then."""
    done = []
    for name, path in left(domain, where).items():
        try:
            flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE | libvirt.VIR_DOMAIN_BLOCK_COMMIT_SHALLOW
            if not domain.blockJobInfo(name, 0):
                domain.blockCommit(name, None, None, 0, flags)
            _pivot(domain, name)
        except libvirt.libvirtError as error:
            failure = as_hypervisor_error(error, f"{path} cannot be written into its disk", where)
            hint = (
                f"the guest runs on with it; to try again: virsh blockcommit DOMAIN {name} --shallow --pivot"
            )
            raise HypervisorError(failure.what, where=where, hint=hint) from error
        remove(Path(path))
        done.append(path)
    if done:
        with mapped("cannot be resumed", where):
            if tuple(domain.state()) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR):
                domain.resume()
    return done


def beneath(domain: Any, where: str) -> str:
    """The lab's overlay that is in use below one of another program's, which took a snapshot; "" for
    none."""
    prefix = _prefix(str(domain.UUIDString()))
    for disk in _all(domain, where):
        for source in disk.iterfind(".//backingStore/source"):
            if Path(path := source.get("file") or "").name.startswith(prefix):
                return path
    return ""


def undo(domain: Any, where: str, folder: str = "", *, frozen: bool = False) -> list[str]:
    """Thaw the file systems of a running domain that a killed run has left in a snapshot, flatten(), and
    remove the snapshot's other files. Returns a line for each; [] for a domain without any. folder: where the
    run put them beside the disks' own folders. frozen: nobody else has thawed it."""
    there, done = left(domain, where), []
    if frozen or there:
        with suppress(HypervisorError):  # the dead-man, or the guest itself, thaws what its agent does not
            done += ["its file systems were thawed"] * bool(agent.thaw_files(domain, where))
    done += [f"its snapshot {path} was written back" for path in flatten(domain, where)]
    folders = {Path(path).parent for path in there.values()} | ({Path(folder)} if folder else set())
    return done + [f"{path} was removed" for path in _remove_unused(domain, where, folders)]


def ended_with_one(domain: Any, where: str) -> HypervisorError | None:
    """What to say of a domain that has ended with overlays in use; None for one without any."""
    if not (there := left(domain, where)):
        return None
    paths = " ".join(there.values())
    return HypervisorError(
        f"it ended while a snapshot was in use: what it wrote since is in {paths}",
        where=where,
        hint=f"qemu-img commit {paths}; then name the disk itself again: virsh edit",
    )


def _remove_unused(domain: Any, where: str, folders: set[Path]) -> list[str]:
    """Remove files of the lab's snapshots that the domain does not use: a saved state, and overlays that were
    written back, or were made and never used, just before the run was killed."""
    with suppress(Refused):
        folders |= {Path(path).parent for path in disks(domain, where).values()}
    with mapped("its domain XML cannot be read", where):
        described = domain.XMLDesc(0) + domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    done = []
    for folder in sorted(folders):
        for path in sorted(folder.glob(f"{_prefix(str(domain.UUIDString()))}*")):
            if path.name not in described:
                if path == downtime_file(folder, str(domain.UUIDString())):
                    _restore_downtime(domain, where, path)
                remove(path)
                done.append(str(path))
    return done


def _restore_downtime(domain: Any, where: str, path: Path) -> None:
    """Give a domain back its limit for the downtime of migrations, which a killed save of RAM has changed."""
    with suppress(OSError, ValueError), mapped("its allowed downtime cannot be set", where):
        domain.migrateSetMaxDowntime(int(path.read_text(encoding="ascii")), 0)


def memory_file(folder: Path, uuid: str) -> Path:
    """The file for the RAM and devices of a domain's snapshot."""
    return folder / f"{_prefix(uuid)}memory.save"


def downtime_file(folder: Path, uuid: str) -> Path:
    """The file for the domain's own limit for the downtime of migrations, in milliseconds, while a save of
    its RAM has another one."""
    return folder / f"{_prefix(uuid)}downtime"


def remove(path: Path) -> None:
    """Remove a file that nothing uses any more, if this user may."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise HypervisorError(f"cannot be removed: {error.strerror}", where=str(path)) from error


def _pivot(domain: Any, name: str) -> None:
    end = time.monotonic() + _READY_S
    while True:
        try:
            domain.blockJobAbort(name, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
        except libvirt.libvirtError as error:
            # It is not ready while the guest's writes are copied.
            if error.get_error_code() != libvirt.VIR_ERR_BLOCK_COPY_ACTIVE or time.monotonic() > end:
                domain.blockJobAbort(name, 0)
                raise
            time.sleep(_PAUSE_S)
        else:
            return


def _prefix(uuid: str) -> str:
    return f"freezelab-{uuid}-"


def _all(domain: Any, where: str) -> list[ET.Element]:
    with mapped("its domain XML cannot be read", where):
        return ET.fromstring(domain.XMLDesc(0)).findall("devices/disk")  # noqa: S314 - libvirt's own
