"""The tree of values below computeMetadata/v1, and its forms.

Name, host name, machine id, network card, addresses and key are the guest's; the rest is that of a plain
machine in an invented project.
"""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from lab.core.scheduled.instance import InstanceInfo

Node: TypeAlias = "str | int | list[Node] | dict[str, Node]"
"""A directory is a mapping, or a list of directories; the rest are values."""

NUMBER, PROJECT = 480207616137, "freezelab"
REGION, ZONE = "europe-west4", "europe-west4-a"
IMAGE = "projects/debian-cloud/global/images/debian-12-bookworm-v20260101"

_VERBATIM = ("attributes", "guest-attributes")
"""Directories whose keys are users', and stay as they are in JSON."""


def tree(about: InstanceInfo, live: Mapping[str, Node]) -> dict[str, Node]:
    """What there is for a guest. live: members of `instance` that change with events."""
    return {
        "instance": dict(sorted({**_instance(about), **live}.items())),
        "project": {
            "attributes": {},
            "numeric-project-id": NUMBER,
            "project-id": PROJECT,
        },
        "universe": {"universe-domain": "googleapis.com"},
    }


def find(node: Node, steps: Sequence[str]) -> Node | None:
    """The part below `node`; None if there is none."""
    for step in steps:
        if isinstance(node, dict) and step in node:
            node = node[step]
        elif is_directory(node) and isinstance(node, list) and step in map(str, range(len(node))):
            node = node[int(step)]
        else:
            return None
    return node


def is_directory(node: Node) -> bool:
    return isinstance(node, dict) or (isinstance(node, list) and all(isinstance(one, dict) for one in node))


def listing(node: Node) -> str:
    """A directory's entries, one a line; directories among them end with a slash."""
    return "".join(f"{name}/\n" if is_directory(child) else f"{name}\n" for name, child in _entries(node))


def to_text(node: Node) -> str:
    """A value unchanged; a list of values one a line; of a directory each value with its path."""
    if not is_directory(node):
        return "\n".join(map(str, node)) if isinstance(node, list) else str(node)
    return "".join(f"{path} {value}\n" for path, value in _leaves(node, ""))


def to_values(node: Node, joint: str = "") -> object:
    """As JSON has it. joint: between the words of a name; "" for camelCase, "-" for names as they are."""
    if isinstance(node, dict):
        return {
            _joined(name, joint): to_values(child, "-" if name in _VERBATIM else joint)
            for name, child in node.items()
        }
    return [to_values(child, joint) for child in node] if isinstance(node, list) else node


def machine_number(about: InstanceInfo) -> int:
    """The numeric id of a machine: 63 bits of its UUID. 0 for a guest without one."""
    return uuid.UUID(about.vm_id).int >> 65 if about.vm_id else 0


def _instance(about: InstanceInfo) -> dict[str, Node]:
    key = about.public_key
    attributes: dict[str, Node] = {"ssh-keys": f"root:{key}"} if key else {}
    return {
        "attributes": attributes,
        "cpu-platform": "Intel Broadwell",
        "description": "",
        "disks": [
            {
                "device-name": about.guest,
                "index": 0,
                "interface": "SCSI",
                "mode": "READ_WRITE",
                "type": "PERSISTENT-BALANCED",
            }
        ],
        "guest-attributes": {},
        "hostname": f"{about.guest}.{ZONE}.c.{PROJECT}.internal",
        "id": machine_number(about),
        "image": IMAGE,
        "licenses": [],
        "machine-type": f"projects/{NUMBER}/machineTypes/{_machine_type(about)}",
        "name": about.guest,
        "network-interfaces": [_card(about)],
        "region": f"projects/{NUMBER}/regions/{REGION}",
        "remaining-cpu-time": -1,
        "scheduling": {
            "automatic-restart": "TRUE",
            "on-host-maintenance": "MIGRATE",
            "preemptible": "FALSE",
        },
        "service-accounts": {},
        "tags": ["freezelab"],
        "virtual-clock": {"drift-token": "0"},
        "zone": f"projects/{NUMBER}/zones/{ZONE}",
    }


def _machine_type(about: InstanceInfo) -> str:
    """A series, a kind and a size, as clients split it."""
    return about.size.replace("_", "-") if "_" in about.size else f"{about.size}-standard-1"


def _card(about: InstanceInfo) -> Node:
    gateway, mask = "", ""
    if about.address:
        network = ipaddress.ip_interface(f"{about.address}/{about.prefix}").network
        gateway, mask = str(network.network_address + 1), str(network.netmask)
    return {
        "access-configs": [{"external-ip": "", "type": "ONE_TO_ONE_NAT"}],
        "dns-servers": ["169.254.169.254"],
        "forwarded-ips": [],
        "gateway": gateway,
        "ip": about.address,
        "ip-aliases": [],
        "mac": about.mac,
        "mtu": 1460,
        "network": f"projects/{NUMBER}/networks/default",
        "subnetmask": mask,
        "target-instance-ips": [],
    }


def _entries(node: Node) -> Iterator[tuple[str, Node]]:
    if isinstance(node, dict):
        yield from node.items()
    elif isinstance(node, list):
        yield from ((str(index), child) for index, child in enumerate(node))


def _leaves(node: Node, path: str) -> Iterator[tuple[str, str]]:
    for name, child in _entries(node):
        if is_directory(child):
            yield from _leaves(child, f"{path}{name}/")
        else:
            yield path + name, to_text(child)


def _joined(name: str, joint: str) -> str:
    first, *others = name.split("-")
    return joint.join([first, *others]) if joint else first + "".join(map(str.capitalize, others))
