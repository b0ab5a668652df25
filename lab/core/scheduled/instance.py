"""The document of /metadata/instance.

It has every field of Azure's documentation ("Azure Instance Metadata Service", tables Compute, Storage
profile and Network). Name, domains, machine UUID, network card and addresses are the guest's; the rest is
that of a plain machine in an invented subscription. `InstanceInfo.given` replaces it field by field.
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TypeAlias

Node: TypeAlias = "str | list[Node] | dict[str, Node]"
"""A document's parts: primitives are strings, all of them."""

VERSIONS = (
    "2017-03-01",
    "2017-04-02",
    "2017-08-01",
    "2017-10-01",
    "2017-12-01",
    "2018-02-01",
    "2018-04-02",
    "2018-10-01",
    "2019-02-01",
    "2019-03-11",
    "2019-04-30",
    "2019-06-01",
    "2019-06-04",
    "2019-08-01",
    "2019-08-15",
    "2019-11-01",
    "2020-06-01",
    "2020-07-15",
    "2020-09-01",
    "2020-10-01",
    "2020-12-01",
    "2021-01-01",
    "2021-02-01",
    "2021-03-01",
    "2021-05-01",
    "2021-08-01",
    "2021-10-01",
    "2021-11-01",
    "2021-11-15",
    "2021-12-13",
    "2023-07-01",
    "2023-11-15",
    "2024-03-15",
    "2024-07-17",
    "2025-04-07",
)
"""api-versions of /metadata/instance, oldest first: those that the documentation of Azure's Instance Metadata
Service lists. The lab gives all of them the same answer, with the fields of the newest."""


Path: TypeAlias = tuple[str, ...]
"""A path from the document to a value: keys, and indices of lists."""

Given: TypeAlias = tuple[tuple[Path, str], ...]
"""Values that replace the lab's; `refusal` checks their paths."""

ENVIRONMENT = "AzurePublicCloud"
SUBSCRIPTION = "ec013c86-a0fb-58fc-a519-b19a113652f6"
GROUP = "freezelab"
PROVIDER = "Microsoft.Compute"
LOCATION = "westeurope"
PUBLISHER, OFFER, SKU, VERSION = "Debian", "debian-12", "12", "12.0.0"
TAGS = (("environment", "freezelab"),)
MOST_ENTRIES = 64
"""The most entries of a list; Azure's largest machines have 64 data disks."""

COMPUTE_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9_])?")
"""What Azure takes for the name of a Linux machine (Resource Manager's naming rules)."""

UPDATE_DOMAINS, FAULT_DOMAINS = 5, 2
"""Of an availability set, where nothing else is asked for."""

SCALE_SET_FAULT_DOMAINS = 5
"""Of a scale set's placement group, and at most; it has as many update domains."""

_TAGS: Path = ("compute", "tags")


@dataclass(frozen=True)
class InstanceInfo:
    """The facts about one guest for the metadata service.

    guest: its host name, osProfile.computerName. name: compute.name, its name in events. vm_id: its machine's
    UUID, as in /sys/class/dmi/id/product_uuid. availability_set: or the scale set that it is an instance of,
    when `scale_set` says so. mac: as "52:54:00:12:34:56". address: its private IPv4 address; prefix: that
    one's length. public_key: the line of the key that may log in. given: values that replace the lab's; the
    last one of a path counts.
    """

    guest: str
    name: str
    vm_id: str
    size: str
    location: str = LOCATION
    availability_set: str = ""
    scale_set: bool = False
    fault_domain: int = 0
    update_domain: int = 0
    mac: str = ""
    address: str = ""
    prefix: int = 24
    public_key: str = ""
    tags: tuple[tuple[str, str], ...] = TAGS
    given: Given = ()


def size_name(vcpus: int, memory_bytes: int) -> str:
    """The compute.vmSize of a guest."""
    return f"lab_{vcpus}vcpu_{memory_bytes >> 20}mib"


def scale_set_name(scale_set: str, number: int) -> str:
    """The compute.name of a scale set's instance."""
    return f"{scale_set}_{number}"


def scale_set_host(scale_set: str, number: int) -> str:
    """The host name of a scale set's instance: six digits in base 36. ValueError for a negative number."""
    if number < 0:
        raise ValueError(f"no number of an instance: {number}")
    digits = ""
    while number or not digits:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return f"{scale_set}{digits:0>6}"


def metadata(about: InstanceInfo) -> dict[str, Node]:
    """The whole document. Values that the lab does not have are empty."""
    made: dict[str, Node] = {"compute": _compute(about), "network": _network(about)}
    for path, value in about.given:
        if path[:2] != _TAGS:
            _put(made, path, value)
    return made


def refusal(path: Sequence[str]) -> str:
    """Why no value can be given at this path; "" when one can."""
    match path:
        case ("compute", "name"):
            return "it is given by compute_name, because events name it too"
        case ("compute", "tagsList", *_):
            return "it follows from tags"
        case ("compute", "tags", _):
            return ""
        case ("compute", "tags", *_):
            return "tags are names with a value each"
    node: Node | None = _TEMPLATE
    for depth, step in enumerate(path):
        if isinstance(node, list):
            short = step.isascii() and step.isdecimal() and int(step) < MOST_ENTRIES
            node = _ENTRIES[path[depth - 1]] if short else None
        else:
            node = node.get(step) if isinstance(node, dict) else None
        if node is None:
            return "the documentation has no such field"
    return "" if isinstance(node, str) else "it has parts: give these"


def fields(path: Sequence[str]) -> list[str]:
    """The keys at a path, for messages."""
    node = find(_TEMPLATE, list(path))
    return list(node) if isinstance(node, dict) else []


def find(node: Node, steps: list[str]) -> Node | None:
    """The part below `node` to which keys and indices lead; None if there is none."""
    for step in steps:
        if isinstance(node, dict) and step in node:
            node = node[step]
        elif isinstance(node, list) and step in [str(index) for index in range(len(node))]:
            node = node[int(step)]
        else:
            return None
    return node


def to_text(node: Node) -> str:
    """A leaf unchanged; for a node its children, one per line, with a slash if they have children."""
    if isinstance(node, str):
        return node
    children = node.items() if isinstance(node, dict) else enumerate(node)
    return "\n".join(f"{name}" if isinstance(child, str) else f"{name}/" for name, child in children)


def _put(made: dict[str, Node], path: Path, value: str) -> None:
    node: Node = made
    for depth, step in enumerate(path[:-1]):
        if isinstance(node, list):
            while len(node) <= int(step):
                node.append(deepcopy(_ENTRIES[path[depth - 1]]))
            node = node[int(step)]
        elif isinstance(node, dict):
            node = node[step]
    if isinstance(node, dict):
        node[path[-1]] = value


def _compute(about: InstanceInfo) -> dict[str, Node]:
    given = dict(about.given)

    def said(name: str, otherwise: str) -> str:
        return given.get(("compute", name), otherwise)

    subscription, group = said("subscriptionId", SUBSCRIPTION), said("resourceGroupName", GROUP)
    resources = f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{said('provider', PROVIDER)}"
    resource = f"{resources}/virtualMachines/{about.name}"
    if about.scale_set:
        number = about.name.rpartition("_")[2]
        resource = f"{resources}/virtualMachineScaleSets/{about.availability_set}/virtualMachines/{number}"
    tags = {path[2]: value for path, value in about.given if path[:2] == _TAGS} or dict(about.tags)
    image = {
        "offer": said("offer", OFFER),
        "publisher": said("publisher", PUBLISHER),
        "sku": said("sku", SKU),
    }
    return {
        "additionalCapabilities": {"hibernationEnabled": "false"},
        "azEnvironment": ENVIRONMENT,
        "customData": "",
        "evictionPolicy": "",
        "extendedLocation": {"name": "", "type": ""},
        "host": {"id": ""},
        "hostGroup": {"id": ""},
        "isHostCompatibilityLayerVm": "false",
        "isVmInStandbyPool": "",
        "licenseType": "",
        "location": about.location,
        "name": about.name,
        "offer": image["offer"],
        "osProfile": {
            "adminUsername": "root",
            "computerName": about.guest,
            "disablePasswordAuthentication": "true",
        },
        "osType": "Linux",
        "physicalZone": "",
        "placementGroupId": _placement_group(about),
        "plan": {"name": "", "product": "", "publisher": ""},
        "platformFaultDomain": str(about.fault_domain),
        "platformSubFaultDomain": "",
        "platformUpdateDomain": str(about.update_domain),
        "priority": "",
        "provider": PROVIDER,
        "publicKeys": [{"keyData": about.public_key, "path": "/root/.ssh/authorized_keys"}],
        "publisher": image["publisher"],
        "resourceGroupName": GROUP,
        "resourceId": resource,
        "securityProfile": {
            "encryptionAtHost": "false",
            "secureBootEnabled": "false",
            "securityType": "",
            "virtualTpmEnabled": "false",
        },
        "sku": image["sku"],
        "storageProfile": {
            "dataDisks": [],
            "imageReference": {
                "communityGalleryImageId": "",
                "exactVersion": "",
                "id": "",
                **image,
                "sharedGalleryImageId": "",
                "version": "latest",
            },
            "osDisk": _os_disk(f"{about.name}_OsDisk_1", resources),
            "resourceDisk": {"size": "0"},
        },
        "subscriptionId": SUBSCRIPTION,
        "tags": ";".join(f"{name}:{value}" for name, value in tags.items()),
        "tagsList": [{"name": name, "value": value} for name, value in tags.items()],
        "userData": "",
        "version": VERSION,
        "virtualMachineScaleSet": {"id": ""},  # flexible orchestration's; the lab's are uniform
        "vmId": about.vm_id,
        "vmScaleSetName": about.availability_set if about.scale_set else "",
        "vmSize": about.size,
        "zone": "",
    }


def _placement_group(about: InstanceInfo) -> str:
    """A scale set's placement group: a GUID, common to all of its instances."""
    if not about.scale_set:
        return ""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{about.availability_set}.placement.freezelab"))


def _disk() -> dict[str, Node]:
    """The common fields of system and data disks."""
    return {
        "caching": "",
        "createOption": "",
        "diffDiskSettings": {"option": ""},
        "diskSizeGB": "",
        "encryptionSettings": {
            "diskEncryptionKey": {"secretUrl": "", "sourceVault": {"id": ""}},
            "enabled": "false",
            "keyEncryptionKey": {"keyUrl": "", "sourceVault": {"id": ""}},
        },
        "image": {"uri": ""},
        "managedDisk": {"id": "", "storageAccountType": ""},
        "name": "",
        "osType": "",
        "vhd": {"uri": ""},
        "writeAcceleratorEnabled": "false",
    }


def _os_disk(name: str, resources: str) -> dict[str, Node]:
    return {
        **_disk(),
        "caching": "ReadWrite",
        "createOption": "FromImage",
        "diskSizeGB": "30",
        "managedDisk": {"id": f"{resources}/disks/{name}", "storageAccountType": "Premium_LRS"},
        "name": name,
        "osType": "Linux",
    }


def _network(about: InstanceInfo) -> dict[str, Node]:
    subnet, prefix = "", ""
    if about.address:
        network = ipaddress.ip_interface(f"{about.address}/{about.prefix}").network
        subnet, prefix = str(network.network_address), str(network.prefixlen)
    return {
        "interface": [
            {
                "ipv4": {
                    "ipAddress": [{"privateIpAddress": about.address, "publicIpAddress": ""}],
                    "subnet": [{"address": subnet, "prefix": prefix}],
                },
                "ipv6": {"ipAddress": []},
                "macAddress": about.mac.replace(":", "").upper(),
            }
        ]
    }


_TEMPLATE: Node = metadata(InstanceInfo("", "", "", ""))
_ENTRIES: Mapping[str, Node] = {
    "publicKeys": {"keyData": "", "path": ""},
    "dataDisks": {
        **_disk(),
        "bytesPerSecondThrottle": "",
        "caching": "None",
        "createOption": "Empty",
        "diskCapacityBytes": "",
        "isSharedDisk": "false",
        "isUltraDisk": "false",
        "lun": "",
        "opsPerSecondThrottle": "",
    },
    "interface": {"ipv4": {"ipAddress": [], "subnet": []}, "ipv6": {"ipAddress": []}, "macAddress": ""},
    "ipAddress": {"privateIpAddress": "", "publicIpAddress": ""},
    "subnet": {"address": "", "prefix": ""},
}
"""The initial value of a further entry of each list."""
