"""/metadata/instance: what a guest is told of itself."""

from __future__ import annotations

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
Service lists. The lab answers all of them alike, with the fields of the newest."""


@dataclass(frozen=True)
class About:
    """One guest as the metadata service knows it.

    name: compute.name, the one that events name; by intent another than `guest`, the host name. mac: as
    "52:54:00:12:34:56". address: its private IPv4 address.
    """

    guest: str
    name: str
    vm_id: str
    size: str
    location: str = "lab"
    availability_set: str = ""
    fault_domain: int = 0
    update_domain: int = 0
    mac: str = ""
    address: str = ""
    tags: tuple[tuple[str, str], ...] = ()


def compute_name(guest: str, availability_set: str) -> str:
    """compute.name of a guest: never its host name, because clients that mix the two up are to find out
    here."""
    return f"{availability_set or 'lab'}_{guest}"


def metadata(about: About) -> dict[str, Node]:
    """All that the guest is told. What the lab has nothing to say of is there, and empty."""
    return {"compute": _compute(about), "network": _network(about)}


def find(node: Node, steps: list[str]) -> Node | None:
    """The part below `node` that keys and indices lead to, None when there is none."""
    for step in steps:
        if isinstance(node, dict) and step in node:
            node = node[step]
        elif isinstance(node, list) and step in [str(index) for index in range(len(node))]:
            node = node[int(step)]
        else:
            return None
    return node


def to_text(node: Node) -> str:
    """A leaf as it is; of anything else its children, one a line, with a slash when they have children."""
    if isinstance(node, str):
        return node
    children = node.items() if isinstance(node, dict) else enumerate(node)
    return "\n".join(f"{name}" if isinstance(child, str) else f"{name}/" for name, child in children)


def _compute(about: About) -> dict[str, Node]:
    return {
        "additionalCapabilities": {"hibernationEnabled": "false"},
        "azEnvironment": "",
        "customData": "",
        "evictionPolicy": "",
        "extendedLocation": {"name": "", "type": ""},
        "host": {"id": ""},
        "hostGroup": {"id": ""},
        "isHostCompatibilityLayerVm": "false",
        "licenseType": "",
        "location": about.location,
        "name": about.name,
        "offer": "",
        "osProfile": {
            "adminUsername": "",
            "computerName": about.guest,
            "disablePasswordAuthentication": "true",
        },
        "osType": "Linux",
        "physicalZone": "",
        "placementGroupId": "",
        "plan": {"name": "", "product": "", "publisher": ""},
        "platformFaultDomain": str(about.fault_domain),
        "platformSubFaultDomain": "",
        "platformUpdateDomain": str(about.update_domain),
        "priority": "",
        "provider": "",
        "publicKeys": [],
        "publisher": "",
        "resourceGroupName": "",
        "resourceId": "",
        "securityProfile": {
            "encryptionAtHost": "false",
            "secureBootEnabled": "false",
            "securityType": "",
            "virtualTpmEnabled": "false",
        },
        "sku": "",
        "storageProfile": {
            "dataDisks": [],
            "imageReference": {"id": "", "offer": "", "publisher": "", "sku": "", "version": ""},
            "osDisk": {"caching": "", "createOption": "", "diskSizeGB": "", "name": "", "osType": "Linux"},
            "resourceDisk": {"size": "0"},
        },
        "subscriptionId": "",
        "tags": ";".join(f"{name}:{value}" for name, value in about.tags),
        "tagsList": [{"name": name, "value": value} for name, value in about.tags],
        "userData": "",
        "version": "",
        "virtualMachineScaleSet": {"id": ""},
        "vmId": about.vm_id,
        "vmScaleSetName": "",
        "vmSize": about.size,
        "zone": "",
    }


def _network(about: About) -> dict[str, Node]:
    return {
        "interface": [
            {
                "ipv4": {
                    "ipAddress": [{"privateIpAddress": about.address, "publicIpAddress": ""}],
                    "subnet": [{"address": "", "prefix": ""}],
                },
                "ipv6": {"ipAddress": []},
                "macAddress": about.mac.replace(":", "").upper(),
            }
        ]
    }
