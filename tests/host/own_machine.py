"""A domain as a user writes it by hand, on a libvirt daemon: nothing of the lab's template, but its image."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import libvirt

from lab.image.identity import make_key, write_key
from lab.image.seed import FW_CFG_NAME, Network, make_seed
from lab.image.store import Image, ImageStore, default_cache, overlay
from lab.session.paths import RECIPES
from lab.session.settings import free_port

XML = """
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <description>of somebody's own</description>
  <memory unit='MiB'>384</memory>
  <vcpu>1</vcpu>
  <sysinfo type='fwcfg'><entry name='{fw_cfg}' file='{seed}'/></sysinfo>
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
    <kernel>{kernel}</kernel><initrd>{initrd}</initrd><cmdline>{cmdline}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  {more}
  <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model></cpu>
  <clock offset='utc'/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='unsafe'/><source file='{disk}'/><target dev='vda' bus='virtio'/>
    </disk>
    {devices}
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <serial type='file'><source path='{console}'/></serial>
    <memballoon model='none'/>
  </devices>
  {network}
</domain>
"""

USER_NETWORK = """
  <qemu:commandline>
    <qemu:arg value='-netdev'/><qemu:arg value='user,id=mine,hostfwd=tcp:127.0.0.1:{port}-:22'/>
    <qemu:arg value='-device'/><qemu:arg value='virtio-net-pci,netdev=mine,bus={bus},addr=0x10,romfile='/>
  </qemu:commandline>
"""

ON_BRIDGE = """
<interface type='bridge'>
  <source bridge='{bridge}'/><model type='virtio'/><rom enabled='no'/>
</interface>
"""

SECOND_DISK = """
<disk type='file' device='disk'>
  <driver name='qemu' type='raw'/><source file='{folder}/second.img'/><target dev='vdb' bus='virtio'/>
</disk>
<disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
"""
"""A second disk, and an empty CD drive."""

OF_QCOW2 = SECOND_DISK.replace("second.img", "second.qcow2").replace("'raw'", "'qcow2'")
"""The same, with a second disk of which libvirt takes snapshots."""

RANDOM = "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"

NOTHING = """
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>32</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{devices}</devices>
</domain>
"""
"""A machine that finds nothing to boot."""


MANAGED = Path("/var/lib/libvirt/qemu/save")
"""Where qemu:///system has managed saves."""


@dataclass
class OwnMachine:
    """One domain. folder: for its files. devices, more: of its XML. machine: pc or q35. packages: what its
    image has beside the shipped one's. bridge, address: of this host's, and its address there with prefix
    length; "": QEMU's user-mode network."""

    connection: Any
    folder: Path
    name: str = "my-vm"
    devices: str = ""
    more: str = ""
    machine: str = "q35"
    packages: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    persistent: bool = True
    bridge: str = ""
    address: str = ""

    def __post_init__(self) -> None:
        image = _image(self.packages)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        host_private, self.host_key = make_key(self.name)
        private, public = make_key("me")
        write_key(self.key, private, public)
        seed = self.folder / "seed.tar"
        seed.write_bytes(
            make_seed(
                name=self.name,
                host_key=host_private,
                host_key_public=self.host_key,
                authorized_keys=[public],
                network=Network(self.address, None, None) if self.bridge else Network(),
            )
        )
        disk = overlay(image, self.folder / "disk.qcow2")
        (self.folder / "second.img").write_bytes(bytes(1 << 20))
        if "second.qcow2" in self.devices:
            make_qcow2(self.folder / "second.qcow2")
        bus = "pcie.0" if self.machine == "q35" else "pci.0"
        network = "" if self.bridge else USER_NETWORK.format(port=self.port, bus=bus)
        devices = self.devices + (ON_BRIDGE if self.bridge else "")
        if self.bridge:
            self.port = 22
        xml = XML.format(
            name=self.name,
            fw_cfg=FW_CFG_NAME,
            seed=seed,
            kernel=image.kernel,
            initrd=image.initrd,
            cmdline=f"{image.cmdline} no_timer_check",
            disk=disk,
            devices=devices.format(folder=self.folder, bridge=self.bridge),
            more=self.more,
            machine=self.machine,
            network=network,
            console=self.folder / "console.log",
        )
        if self.persistent:
            self.domain = self.connection.defineXML(xml)
            self.domain.create()
        else:
            self.domain = self.connection.createXML(xml)
        self.write_config()

    @property
    def host(self) -> str:
        """The address of its sshd."""
        return self.address.partition("/")[0] if self.bridge else "127.0.0.1"

    @property
    def key(self) -> Path:
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def config(self) -> Path:
        return self.folder / "ssh_config"

    def write_config(self, *more: str, user: str = "root") -> None:
        """Its entry in an ssh_config, called MACHINE-host, and its line of known_hosts."""
        kind, key = self.host_key.split()[:2]
        where = self.host if self.port == 22 else f"[{self.host}]:{self.port}"
        self.known_hosts.write_text(f"{where} {kind} {key}\n")
        lines = [
            f"Host {self.name}-host",
            f"HostName {self.host}",
            f"Port {self.port}",
            f"User {user}",
            f"IdentityFile {self.key}",
            f"UserKnownHostsFile {self.known_hosts}",
            *more,
        ]
        self.config.write_text("\n".join(lines) + "\n")

    def entry(self, more: str = "") -> str:
        """Its entry of a playbook's guests. more: keys beside those."""
        ssh = f"{{host: {self.name}-host, config: {self.config}}}"
        return f"{{name: db, domain: {self.name}, ssh: {ssh}{more}}}"

    def inside(self, command: str, given: bytes = b"") -> None:
        """Run a command in the guest. given: its standard input."""
        ssh = ["ssh", "-F", str(self.config), f"{self.name}-host", command]
        subprocess.run(ssh, check=True, input=given, timeout=60)

    def poised(self, before: str, then: str) -> Callable[[], None]:
        """Log in and run `before`. What is returned runs `then` at once: a login may take longer than file
        systems are frozen."""
        ssh = ["ssh", "-F", str(self.config), f"{self.name}-host", f"{before}\necho; read -r _; {then}"]
        process = subprocess.Popen(ssh, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()

        def act() -> None:
            process.communicate(b"\n", timeout=60)
            assert process.returncode == 0, process.args

        return act

    def answers(self, within_s: float = 240) -> None:
        """Wait for its sshd."""
        end = time.monotonic() + within_s
        while True:
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1) as sock:
                sock.settimeout(2)
                if sock.recv(4) == b"SSH-":
                    return
            if time.monotonic() > end:
                raise AssertionError(f"{self.name} does not answer")
            time.sleep(0.2)

    def state(self) -> int | None:
        """libvirt's state of its domain; None when there is none."""
        try:
            return int(self.domain.state()[0])
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise

    def find_again(self, connection: Any) -> None:
        """Its domain, on another connection."""
        self.connection, self.domain = connection, connection.lookupByName(self.name)

    def look(self) -> dict[str, Any]:
        """All that must be the same afterwards: what libvirt says, and the files, but for the contents of
        those to which the guest and QEMU write."""
        domain = self.connection.lookupByName(self.name)
        managed = MANAGED / f"{self.name}.save"
        contents = [path for path in (self.folder / "second.img", managed) if path.exists()]
        return {
            "snapshots": {one.getName(): one.getXMLDesc() for one in domain.listAllSnapshots()},
            "current": domain.hasCurrentSnapshot() and domain.snapshotCurrent().getName(),
            "files": {
                str(path): (info.st_mode, info.st_uid, info.st_gid)
                for path in (*self.folder.iterdir(), *contents)
                for info in [path.stat()]
            },
            "contents": {str(path): sha256(path.read_bytes()).hexdigest() for path in contents},
            "all domains": sorted(one.name() for one in self.connection.listAllDomains()),
            "persistent": bool(domain.isPersistent()),
            "autostart": bool(domain.autostart()) if domain.isPersistent() else False,
            "inactive": domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE),
            "managed": bool(domain.hasManagedSaveImage(0)),
            "messages": domain.messages(libvirt.VIR_DOMAIN_MESSAGE_TAINTING),
            "state": domain.state()[0],
        }


@contextlib.contextmanager
def daemon(*argv: str, log: Path, env: dict[str, str] | None = None) -> Iterator[None]:
    """A libvirt daemon for as long as the context lasts."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            argv, stdout=out, stderr=out, cwd="/", env={**os.environ, **(env or {})}, start_new_session=True
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def opened(uri: str, within_s: float = 60) -> Any:
    """A connection to a daemon that is starting."""
    end = time.monotonic() + within_s
    while True:
        try:
            return libvirt.open(uri)
        except libvirt.libvirtError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def make_qcow2(path: Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "4M"], check=True)


def _image(packages: tuple[str, ...]) -> Image:
    store = ImageStore(RECIPES, default_cache())
    return (store.find("debian", packages) if packages else None) or store.get("debian")
