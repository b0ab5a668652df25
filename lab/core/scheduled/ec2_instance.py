"""The trees of values below a version of EC2's instance metadata: meta-data and dynamic.

Machine id, network card, addresses and key are the guest's; the rest is that of a plain machine of an
invented account.
"""

from __future__ import annotations

import ipaddress
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from lab.core.scheduled.instance import InstanceInfo

Node: TypeAlias = "str | dict[str, Node]"

ACCOUNT, REGION, ZONE, ZONE_ID = "480207616137", "eu-west-1", "eu-west-1a", "euw1-az1"
IMAGE = "ami-0f5c62f121b64f0f9"
LAUNCHED = "2026-01-01T00:00:00Z"

VERSIONS = (
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "2011-01-01",
    "2011-05-01",
    "2012-01-12",
    "2014-02-25",
    "2014-11-05",
    "2015-10-20",
    "2016-04-19",
    "2016-06-30",
    "2016-09-02",
    "2018-03-28",
    "2018-08-17",
    "2018-09-24",
    "2019-10-01",
    "2020-10-27",
    "2021-01-03",
    "2021-03-23",
    "2021-07-15",
    "latest",
)
"""The first part of a path. The lab gives all of them the same answer."""

KEY_NAME = "freezelab"


def tree(about: InstanceInfo, live: Mapping[str, Node], lifecycle: str) -> dict[str, Node]:
    """What there is for a guest, below a version. live: members of meta-data that change with events.
    lifecycle: "on-demand" or "spot"."""
    values = {**_meta_data(about), "instance-life-cycle": lifecycle, **live}
    document = json.dumps(_identity(about), indent=2, separators=(",", " : "))
    return {
        "dynamic": {
            "fws": {"instance-monitoring": "disabled"},
            "instance-identity": {"document": document},
        },
        "meta-data": dict(sorted(values.items())),
    }


def find(node: Node, steps: Sequence[str]) -> Node | None:
    """The part below `node`; None if there is none."""
    for step in steps:
        if not isinstance(node, dict) or step not in node:
            return None
        node = node[step]
    return node


def to_text(node: Node, place: Sequence[str]) -> str:
    """A value unchanged; of a directory its entries, one a line, directories among them with a slash. Keys of
    public-keys have their name beside them."""
    if isinstance(node, str):
        return node
    if place == ["meta-data", "public-keys"]:
        return "\n".join(f"{name}={KEY_NAME}" for name in node)
    return "\n".join(f"{name}/" if isinstance(child, dict) else name for name, child in node.items())


def machine_id(about: InstanceInfo) -> str:
    """The instance-id: the first 17 digits of the machine's UUID."""
    return f"i-{_digits(about)}"


def machine_type(about: InstanceInfo) -> str:
    """The instance-type: a family and a size, as clients split it."""
    family, _, size = about.size.partition("_")
    return f"{family}.{size.replace('_', '-') or 'small'}"


def _digits(about: InstanceInfo) -> str:
    return (uuid.UUID(about.vm_id).hex if about.vm_id else "0" * 32)[:17]


def _host_name(about: InstanceInfo) -> str:
    name = f"ip-{about.address.replace('.', '-')}" if about.address else about.guest
    return f"{name}.{REGION}.compute.internal"


def _meta_data(about: InstanceInfo) -> dict[str, Node]:
    host = _host_name(about)
    values: dict[str, Node] = {
        "ami-id": IMAGE,
        "ami-launch-index": "0",
        "ami-manifest-path": "(unknown)",
        "block-device-mapping": {"ami": "/dev/vda", "root": "/dev/vda"},
        "hostname": host,
        "instance-action": "none",
        "instance-id": machine_id(about),
        "instance-type": machine_type(about),
        "local-hostname": host,
        "mac": about.mac,
        "network": {"interfaces": {"macs": {about.mac: _card(about)}}} if about.mac else {},
        "placement": {"availability-zone": ZONE, "availability-zone-id": ZONE_ID, "region": REGION},
        "profile": "default-hvm",
        "reservation-id": f"r-{_digits(about)}",
        "security-groups": "default",
        "services": {"domain": "amazonaws.com", "partition": "aws"},
        "system": "nitro",
    }
    if about.address:
        values["local-ipv4"] = about.address
    if about.public_key:
        values["public-keys"] = {"0": {"openssh-key": about.public_key}}
    return values


def _card(about: InstanceInfo) -> dict[str, Node]:
    digits = _digits(about)
    card: dict[str, Node] = {
        "device-number": "0",
        "interface-id": f"eni-{digits}",
        "local-hostname": _host_name(about),
        "mac": about.mac,
        "owner-id": ACCOUNT,
        "security-group-ids": f"sg-{digits}",
        "security-groups": "default",
        "subnet-id": f"subnet-{digits}",
        "vpc-id": f"vpc-{digits}",
    }
    if about.address:
        network = str(ipaddress.ip_interface(f"{about.address}/{about.prefix}").network)
        card |= {
            "local-ipv4s": about.address,
            "subnet-ipv4-cidr-block": network,
            "vpc-ipv4-cidr-block": network,
            "vpc-ipv4-cidr-blocks": network,
        }
    return dict(sorted(card.items()))


def _identity(about: InstanceInfo) -> dict[str, str | None]:
    """The instance identity document. The lab cannot sign it."""
    return {
        "accountId": ACCOUNT,
        "architecture": "x86_64",
        "availabilityZone": ZONE,
        "billingProducts": None,
        "devpayProductCodes": None,
        "marketplaceProductCodes": None,
        "imageId": IMAGE,
        "instanceId": machine_id(about),
        "instanceType": machine_type(about),
        "kernelId": None,
        "pendingTime": LAUNCHED,
        "privateIp": about.address,
        "ramdiskId": None,
        "region": REGION,
        "version": "2017-09-30",
    }
