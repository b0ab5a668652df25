"""What others do to a domain of a user's own while it is frozen; scenes of own_inside.py."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt

from lab.session.settings import free_port
from tests.host.own_lab import PLACE, SYSTEM, Lab, until
from tests.host.own_machine import MANAGED, NOTHING, daemon, make_qcow2, opened


def meddled(lab: Lab) -> dict[str, Any]:
    """Somebody else stops, resumes, pauses or destroys it; a second lab wants it as well."""
    machine = lab.machine
    seen = {}
    machine.domain.suspend()
    seen["paused before"] = {**lab("run", lab.playbook()), "state": machine.state()}
    machine.domain.resume()
    seen["resumed"] = lab.during("freeze", lambda _: machine.domain.resume(), "suspend")
    seen["paused while stopped"] = lab.during(
        "freeze", lambda _: in_thread(machine.domain.suspend), "sigstop"
    )
    machine.domain.resume()
    seen["second lab"] = {}

    def second(_process: subprocess.Popen[str]) -> None:
        seen["second lab"] = Lab(machine, lab.uri, PLACE / "other")("run", lab.playbook())

    seen["first lab"] = lab.during("cycle", second, "suspend")
    seen["paused in the watch"] = lab.during("resume", lambda _: machine.domain.suspend(), "suspend")
    machine.domain.resume()
    seen["destroyed"] = lab.during("freeze", lambda _: machine.domain.destroy(), "suspend")
    seen["shut off"] = lab("run", lab.playbook())
    return seen


def in_thread(act: Callable[[], object]) -> None:
    """Begin what waits until the guest's QEMU answers."""
    threading.Thread(target=act, daemon=True).start()


SNAPSHOT = "<domainsnapshot><name>{}</name></domainsnapshot>"


def has_more(lab: Lab) -> dict[str, Any]:
    """Two disks, a CD drive, a random number generator, two snapshots, and a managed save of an earlier day,
    whose file is there although it runs."""
    machine = lab.machine
    seen: dict[str, Any] = {}
    for name in ("first", "second"):
        machine.domain.snapshotCreateXML(SNAPSHOT.format(name), 0)
    image = MANAGED / f"{machine.name}.save"
    machine.domain.managedSave(0)
    earlier = image.read_bytes()
    machine.domain.create()
    image.write_bytes(earlier)
    image.chmod(0o600)
    del earlier
    os.kill(int(Path("/run/libvirtd.pid").read_text()), signal.SIGTERM)
    until(lambda: not Path("/run/libvirtd.pid").exists())
    with daemon("/usr/sbin/libvirtd", log=PLACE / "libvirtd-2.out"):
        machine.find_again(opened(SYSTEM))
        machine.answers()
        seen["before"] = machine.look()
        for method in ("suspend", "sigstop", "save-restore"):
            seen[method] = lab.run(method)
        seen["plan"] = lab("plan", lab.playbook())
        third = SNAPSHOT.format("third")
        seen["watched"] = lab.during(
            "resume", lambda _: machine.domain.snapshotCreateXML(third, 0), "suspend"
        )
        folder = PLACE / "nothing"
        folder.mkdir()
        make_qcow2(folder / "disk.qcow2")
        disk = (
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
            f"<source file='{folder}/disk.qcow2'/><target dev='vda' bus='virtio'/></disk>"
        )
        shared = f"<filesystem type='mount'><source dir='{folder}'/><target dir='it'/></filesystem>"
        for name, devices in (("transient", disk), ("shares", shared)):
            domain = machine.connection.createXML(NOTHING.format(name=name, devices=devices))
            if name == "transient":
                domain.snapshotCreateXML(SNAPSHOT.format("only"), 0)
            seen[name] = lab("plan", lab.playbook(entry=f"{{domain: {name}, ssh: none}}"))
            try:
                domain.save(str(folder / "state"))
                machine.connection.restore(str(folder / "state"))
                domain = machine.connection.lookupByName(name)
                seen[f"{name} restored"] = domain.snapshotNum()
            except libvirt.libvirtError as error:
                seen[f"{name} restored"] = str(error)
            domain.destroy()
        machine.domain.destroy()
    return seen


def vanishes(lab: Lab) -> dict[str, Any]:
    """Somebody undefines it, saves it, renames it or starts it while it is frozen."""
    machine = lab.machine
    xml = machine.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    seen: dict[str, Any] = {}

    def again() -> None:
        machine.domain = machine.connection.defineXML(xml)

    try:
        machine.domain.rename("other")
    except libvirt.libvirtError as error:
        seen["renamed while it runs"] = str(error)
    for method in ("suspend", "save-restore"):
        seen[f"undefined, {method}"] = lab.during("freeze", lambda _: machine.domain.undefine(), method)
        again()
    seen["saved"] = lab.during("freeze", lambda _: machine.domain.managedSave(0), "suspend")
    machine.domain.create()
    seen["saved and started"] = machine.state()
    machine.domain.resume()
    machine.answers()
    seen["renamed"] = lab.during("freeze", lambda _: machine.domain.rename("other"), "save-restore")
    machine.domain.rename(machine.name)
    seen["renamed back"] = {**lab("recover"), "state": machine.state(), "left": lab.left()}
    machine.answers()
    seen["started"] = lab.during("freeze", lambda _: machine.domain.create(), "save-restore")
    machine.answers()

    def ends(_process: subprocess.Popen[str]) -> None:
        machine.domain.undefine()
        machine.domain.destroy()

    seen["gone"] = lab.during("resume", ends, "suspend")
    return seen


OTHER = """
for folder in /run/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
    mount -t tmpfs none $folder
done
exec /usr/sbin/libvirtd --config {folder}/libvirtd.conf --pid-file {folder}/libvirtd.pid
"""


def migrated(lab: Lab) -> dict[str, Any]:
    """Somebody migrates it away, to another daemon with folders of its own, while it is watched and while it
    is frozen."""
    machine, folder = lab.machine, PLACE / "there"
    folder.mkdir()
    (folder / "libvirtd.conf").write_text(
        f"unix_sock_dir = '{folder}'\nhost_uuid = '{uuid.uuid4()}'\nauth_unix_rw = 'none'\n"
    )
    seen: dict[str, Any] = {}
    argv = ["unshare", "--mount", "sh", "-c", OTHER.format(folder=folder)]
    with daemon(*argv, log=folder / "out"):
        there = opened(f"qemu+unix:///system?socket={folder}/libvirt-sock")
        port = free_port()

        def migrate(domain: Any, to: Any, one: int, other: int) -> None:
            xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE).replace(f":{one}-:22", f":{other}-:22")
            flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_UNSAFE
            parameters = {
                libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{folder}/state-{other}",
                libvirt.VIR_MIGRATE_PARAM_DEST_XML: xml,
            }
            domain.migrate3(to, parameters, flags)

        def away(_process: subprocess.Popen[str]) -> None:
            migrate(machine.domain, there, machine.port, port)

        try:
            for kind in ("resume", "freeze"):
                seen[kind] = lab.during(kind, away, "suspend", watch="1min")  # which its end cuts short
                domain = there.lookupByName(machine.name)
                seen[f"{kind}, there"] = domain.state()[0]
                if kind == "freeze":
                    domain.resume()
                migrate(domain, machine.connection, port, machine.port)
                machine.answers()
                seen[f"{kind}, back"] = machine.state()
        finally:
            for domain in there.listAllDomains():
                with contextlib.suppress(libvirt.libvirtError):  # it is back
                    domain.destroy()
            there.close()
    return seen
