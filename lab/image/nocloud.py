"""A NoCloud seed: the ISO image from which cloud-init, and what imitates it, makes one guest of an image.

cloud-init's NoCloud data source looks for a file system labelled `cidata` with the files meta-data, user-data
and network-config (cloud-init, "NoCloud"). The network is given in version 2 of the network configuration,
which cloud-init renders for netplan, networkd, ifupdown, NetworkManager and sysconfig. The card is named eth0
by its MAC address, because the lab's programs in the guest expect that name.

A system without cloud-init need not read YAML: files.tar, which is not a part of NoCloud, has the same name,
keys and files, and a script of the system's own unpacks it over the root file system (docs/images.md).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import pycdlib
import yaml

from lab.image.seed import Network, SeedFile, instance_of, make_tar

LABEL = "cidata"
FILES = "files.tar"
ROOT = "root"
CARD = "eth0"

_SSHD = (
    b"# The lab logs in by key, and brings the metadata service by a remote forward.\n"
    b"PermitRootLogin prohibit-password\nGatewayPorts clientspecified\n"
)
_FILES = {"/etc/ssh/sshd_config.d/00-freezelab.conf": SeedFile(_SSHD)}


def make_iso(
    *,
    name: str,
    host_key: bytes,
    host_key_public: str,
    authorized_keys: Sequence[str],
    network: Network,
    mac: str,
    user: str = ROOT,
    files: Mapping[str, SeedFile] | None = None,
) -> bytes:
    """The seed of guest `name`, whose card has the MAC address `mac`. user: who logs in with the keys; a user
    other than root may become root by sudo. files: more files, by absolute path."""
    files = {**_FILES, **(files or {})}
    machine_id = instance_of(name, host_key_public)
    meta = {"instance-id": f"freezelab-{machine_id}", "local-hostname": name}
    user_data = _user_data(name, host_key, host_key_public, list(authorized_keys), user, files)
    own = {
        "/etc/hostname": SeedFile(f"{name}\n".encode()),
        "/etc/ssh/ssh_host_ed25519_key": SeedFile(host_key, 0o600),
        "/etc/ssh/ssh_host_ed25519_key.pub": SeedFile(f"{host_key_public}\n".encode()),
    }
    if user == ROOT:
        lines = "".join(f"{key}\n" for key in authorized_keys)
        own["/root/.ssh/authorized_keys"] = SeedFile(lines.encode(), 0o600)
    parts = {
        "meta-data": _yaml(meta),
        "user-data": b"#cloud-config\n" + _yaml(user_data),
        "network-config": _yaml(_network(network, mac)),
        FILES: make_tar({**own, **files}),
    }
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=LABEL)
    for file, content in parts.items():
        short = file.upper().replace("-", "_").replace(".", "_")
        iso.add_fp(io.BytesIO(content), len(content), f"/{short}.;1", rr_name=file, joliet_path=f"/{file}")
    out = io.BytesIO()
    iso.write_fp(out)
    iso.close()
    return out.getvalue()


def _user_data(
    name: str,
    host_key: bytes,
    host_key_public: str,
    keys: list[str],
    user: str,
    files: Mapping[str, SeedFile],
) -> dict[str, Any]:
    data: dict[str, Any] = {
        "hostname": name,
        "preserve_hostname": False,
        "manage_etc_hosts": "localhost",
        "ssh_deletekeys": True,
        # With a key of each side given, none is made, which takes long under emulation.
        "ssh_keys": {"ed25519_private": host_key.decode("ascii"), "ed25519_public": host_key_public},
        "ssh": {"emit_keys_to_console": False},
        "ssh_pwauth": False,
        "write_files": [
            {"path": path, "permissions": f"0{file.mode:o}", "content": file.content.decode()}
            for path, file in sorted(files.items())
        ],
    }
    if user == ROOT:
        return data | {"disable_root": False, "users": [], "ssh_authorized_keys": keys}
    rights = {"sudo": "ALL=(ALL) NOPASSWD:ALL", "lock_passwd": True, "shell": "/bin/sh"}
    return data | {"users": [{"name": user, "ssh_authorized_keys": keys, **rights}]}


def _network(network: Network, mac: str) -> dict[str, Any]:
    card: dict[str, Any] = {"match": {"macaddress": mac}, "set-name": CARD}
    if network.address is None:
        card["dhcp4"] = True
    else:
        card |= {"dhcp4": False, "addresses": [network.address]}
    if network.gateway:
        card["routes"] = [{"to": "0.0.0.0/0", "via": network.gateway}]
    if network.nameserver:
        card["nameservers"] = {"addresses": [network.nameserver]}
    return {"version": 2, "ethernets": {CARD: card}}


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks: small readers of the seed in shell know no other form."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _yaml(value: object) -> bytes:
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=1 << 20)
    return text.encode()
