"""A guest's seed: the files that make one guest of an image, as a deterministic tar.

The host gives it through QEMU's fw_cfg as FW_CFG_NAME; the image's initramfs unpacks it over the
root file system before systemd starts. So no cloud-init, no mounting on the host, no disk of its own.
"""

from __future__ import annotations

import hashlib
import io
import ipaddress
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.errors import ImageError

FW_CFG_NAME = "opt/freezelab/seed"

_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Network:
    """The guest's only interface, eth0. No address: DHCP. The default is QEMU's user-mode network. On
    a bridge of the host's own an address alone will do."""

    address: str | None = "10.0.2.15/24"
    gateway: str | None = "10.0.2.2"
    nameserver: str | None = "10.0.2.3"


USER_NETWORK = Network.address or ""
"""A guest's address on QEMU's user-mode network, with its prefix length."""


@dataclass(frozen=True)
class SeedFile:
    """One more file for the guest, root's."""

    content: bytes
    mode: int = 0o644


def instance_of(name: str, host_key_public: str) -> str:
    """32 hexadecimal digits that belong to a guest's name and host key."""
    return hashlib.sha256(f"{name}\n{host_key_public}".encode()).hexdigest()[:32]


def make_seed(
    *,
    name: str,
    host_key: bytes,
    host_key_public: str,
    authorized_keys: Sequence[str],
    network: Network = Network(),
    machine_id: str | None = None,
    files: Mapping[str, SeedFile] | None = None,
) -> bytes:
    """The seed of guest `name`; the same arguments give the same bytes.

    machine_id: 32 hexadecimal digits; by default made from the name and the host key.
    files: more files by absolute path, such as /etc/chrony/chrony.conf.
    """
    if not _HOSTNAME.fullmatch(name):
        raise ImageError(
            f"not a guest name: {name!r}", hint="small letters, digits and hyphens, at most 63 characters"
        )
    machine_id = machine_id or instance_of(name, host_key_public)
    if not re.fullmatch(r"[0-9a-f]{32}", machine_id):
        raise ImageError(f"not a machine id: {machine_id!r}")
    contents = {
        "/etc/hostname": SeedFile(f"{name}\n".encode()),
        "/etc/hosts": SeedFile(f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost\n".encode()),
        "/etc/machine-id": SeedFile(f"{machine_id}\n".encode(), 0o444),
        "/etc/ssh/ssh_host_ed25519_key": SeedFile(host_key, 0o600),
        "/etc/ssh/ssh_host_ed25519_key.pub": SeedFile(f"{host_key_public}\n".encode()),
        "/root/.ssh/authorized_keys": SeedFile("".join(f"{k}\n" for k in authorized_keys).encode(), 0o600),
        "/etc/freezelab/network": SeedFile(_network(network).encode()),
    }
    if network.nameserver:
        contents["/etc/resolv.conf"] = SeedFile(f"nameserver {_ip(network.nameserver)}\n".encode())
    elif network.address is not None:
        contents["/etc/resolv.conf"] = SeedFile(b"")  # the image's own names the build machine's
    for path, file in (files or {}).items():
        if not path.startswith("/") or ".." in path.split("/"):
            raise ImageError(f"not an absolute path: {path!r}")
        contents[path] = file
    return make_tar(contents)


def contents(seed: bytes) -> dict[str, SeedFile]:
    """The files of a seed, by absolute path."""
    with tarfile.open(fileobj=io.BytesIO(seed)) as tar:
        return {
            f"/{entry.name}": SeedFile(file.read(), entry.mode)
            for entry in tar
            if (file := tar.extractfile(entry)) is not None
        }


def _network(network: Network) -> str:
    """Shell assignments that the initramfs reads; every value is checked to be an address."""
    if network.address is None:
        return "mode=dhcp\n"
    try:
        address = ipaddress.ip_interface(network.address)
    except ValueError as error:
        raise ImageError(f"not an address with a prefix length: {network.address!r}") from error
    lines = f"mode=static\naddress={address.with_prefixlen}\n"
    return lines + (f"gateway={_ip(network.gateway)}\n" if network.gateway else "")


def _ip(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise ImageError(f"not an address: {text!r}") from error


def make_tar(contents: Mapping[str, SeedFile]) -> bytes:
    """A deterministic tar of files of root's, by absolute path."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, file in sorted(contents.items()):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode, entry.mtime = len(file.content), file.mode, 0
            tar.addfile(entry, io.BytesIO(file.content))
    return buffer.getvalue()
