"""The documents of every version, and dates in English wherever one is."""

from __future__ import annotations

import json
import locale
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.core.clock import Stamp
from lab.core.scheduled.documents import document, etag, http_date, to_json, visible_events
from lab.core.scheduled.instance import (
    InstanceInfo,
    find,
    metadata,
    refusal,
    scale_set_host,
    scale_set_name,
    to_text,
)
from lab.core.scheduled.model import ApiVersion, Event, EventSource, EventStatus, EventType, Notice

S = 1_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SEEN = datetime(2016, 9, 19, 18, 29, 47, tzinfo=UTC)  # the documentation's example


def event(
    kind: EventType = EventType.FREEZE, status: EventStatus = EventStatus.SCHEDULED, duration_s: int = 9
) -> Event:
    notice = Notice("web", ("w0", "w1"), kind, 900 * S, duration_s, "Host is patched.", EventSource.USER)
    not_before = Stamp(7, int(SEEN.timestamp()) * S + 999_999_999)
    return Event("602D9444-D2CD-49C7-8624-8643E7171297", notice, status, Stamp(0, 0), not_before)


def entry(version: ApiVersion, one: Event) -> dict[str, Any]:
    made = document(3, [one], version, lambda guest: f"web_{guest}")
    parsed = json.loads(to_json(made))
    assert parsed == made and list(parsed) == ["DocumentIncarnation", "Events"]
    (entry,) = parsed["Events"]
    assert isinstance(entry, dict)
    return entry


FIRST = ["EventId", "EventStatus", "EventType", "ResourceType", "Resources", "NotBefore"]


@pytest.mark.parametrize(
    ("version", "names", "last"),
    [
        (ApiVersion.V2017_03_01, ["_web_w0", "_web_w1"], []),
        (ApiVersion.V2017_08_01, ["web_w0", "web_w1"], []),
        (ApiVersion.V2017_11_01, ["web_w0", "web_w1"], []),
        (ApiVersion.V2019_01_01, ["web_w0", "web_w1"], []),
        (ApiVersion.V2019_04_01, ["web_w0", "web_w1"], ["Description"]),
        (ApiVersion.V2019_08_01, ["web_w0", "web_w1"], ["Description", "EventSource"]),
        (ApiVersion.V2020_07_01, ["web_w0", "web_w1"], ["Description", "EventSource", "DurationInSeconds"]),
    ],
)
def test_a_version_has_its_own_fields_and_no_others(
    version: ApiVersion, names: list[str], last: list[str]
) -> None:
    values = {
        "EventId": "602D9444-D2CD-49C7-8624-8643E7171297",
        "EventStatus": "Scheduled",
        "EventType": "Freeze",
        "ResourceType": "VirtualMachine",
        "Resources": names,
        "NotBefore": "Mon, 19 Sep 2016 18:29:47 GMT",
        "Description": "Host is patched.",
        "EventSource": "User",
        "DurationInSeconds": 9,
    }
    assert list(entry(version, event()).items()) == [(key, values[key]) for key in FIRST + last]


@pytest.mark.parametrize("version", ApiVersion)
def test_types_that_a_version_does_not_know_are_left_out(version: ApiVersion) -> None:
    events = [event(kind) for kind in EventType]
    known = ["Freeze", "Reboot", "Redeploy"]
    known += ["Preempt"] * (version >= "2017-11-01") + ["Terminate"] * (version >= "2019-01-01")
    assert [one.notice.type.value for one in visible_events(events, version)] == known
    made = document(1, events, version, str)
    assert [one["EventType"] for one in made["Events"]] == known


def test_both_keys_are_there_when_there_is_nothing() -> None:
    assert to_json(document(1, [], ApiVersion.V2017_03_01, str)) == b'{"DocumentIncarnation":1,"Events":[]}'


def test_once_started_there_is_no_not_before_and_the_id_is_the_same() -> None:
    before = entry(ApiVersion.V2020_07_01, event())
    after = entry(ApiVersion.V2020_07_01, event(status=EventStatus.STARTED))
    assert after == before | {"EventStatus": "Started", "NotBefore": ""}


@pytest.mark.parametrize("kind", EventType)
@pytest.mark.parametrize("duration_s", [-1, 0, 5, 30])
def test_only_of_a_freeze_the_duration_is_known(kind: EventType, duration_s: int) -> None:
    shown = entry(ApiVersion.V2020_07_01, event(kind, duration_s=duration_s))["DurationInSeconds"]
    assert shown == (duration_s if kind is EventType.FREEZE else -1)


def test_an_etag_is_of_the_incarnation() -> None:
    assert [etag(1), etag(12)] == ['"1"', '"12"']


# -- dates -------------------------------------------------------------------------------------------


@pytest.fixture
def german(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The C library speaks German. The locale is made: there may be none, and ISO-8859-1 is the quickest."""
    if not shutil.which("localedef") or not Path("/usr/share/i18n/locales/de_DE").exists():
        pytest.skip("no localedef, or no source of a locale")
    made = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(tmp_path / "de_DE.ISO-8859-1")]
    subprocess.run(made, check=True, capture_output=True)
    monkeypatch.setenv("LOCPATH", str(tmp_path))
    before = locale.setlocale(locale.LC_ALL)
    locale.setlocale(locale.LC_ALL, "de_DE.ISO-8859-1")
    yield
    locale.setlocale(locale.LC_ALL, before)


def right(day: datetime) -> str:
    return format_datetime(day, usegmt=True)


def nanoseconds(instant: datetime) -> int:
    return (instant - EPOCH) // timedelta(microseconds=1) * 1000


def test_every_day_from_1970_to_2100_is_right() -> None:
    for days in range((datetime(2101, 1, 1, tzinfo=UTC) - EPOCH).days):
        instant = EPOCH + timedelta(days=days, seconds=days * 7919 % 86_400)
        assert http_date(nanoseconds(instant)) == right(instant)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59), timezones=st.just(UTC)))  # noqa: DTZ001
def test_any_instant_is_cut_to_its_second(instant: datetime) -> None:
    assert http_date(nanoseconds(instant)) == right(instant.replace(microsecond=0))


def test_names_are_english_everywhere(german: None) -> None:
    assert SEEN.strftime("%a") == "Mo"
    for month in range(1, 13):
        instant = datetime(2024, month, month + 10, 23, 59, 59, tzinfo=UTC)
        assert http_date(nanoseconds(instant)) == right(instant)


# -- /metadata/instance ------------------------------------------------------------------------------

ABOUT = InstanceInfo(
    guest="w0",
    name="web_w0",
    vm_id="5c08b38e",
    size="lab-1",
    fault_domain=2,
    update_domain=7,
    mac="52:54:00:ab:cd:0f",
    address="10.0.0.4",
    tags=(("role", "web"), ("set", "web")),
)


def leaves(node: Any) -> Iterator[Any]:
    if isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from leaves(child)
    else:
        yield node


def test_every_primitive_is_a_string_and_what_is_missing_is_empty() -> None:
    for about in (ABOUT, InstanceInfo("x", "lab_x", "", "")):
        made = metadata(about)
        assert all(isinstance(leaf, str) for leaf in leaves(made))
        assert json.loads(to_json(made)) == made
    assert find(made, ["compute", "zone"]) == find(made, ["network", "interface", "0", "macAddress"]) == ""


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("compute/name", "web_w0"),
        ("compute/osProfile/computerName", "w0"),
        ("compute/vmId", "5c08b38e"),
        ("compute/vmSize", "lab-1"),
        ("compute/location", "westeurope"),
        ("compute/platformFaultDomain", "2"),
        ("compute/platformUpdateDomain", "7"),
        ("compute/placementGroupId", ""),
        ("compute/tags", "role:web;set:web"),
        ("compute/tagsList/1/name", "set"),
        ("network/interface/0/macAddress", "525400ABCD0F"),
        ("network/interface/0/ipv4/ipAddress/0/privateIpAddress", "10.0.0.4"),
    ],
)
def test_a_property_is_found_by_its_path(path: str, value: str) -> None:
    assert find(metadata(ABOUT), path.split("/")) == value


@pytest.mark.parametrize(
    "path", ["x", "compute/Name", "compute/name/0", "network/interface/1", "network/interface/-1"]
)
def test_what_is_not_there_is_not_found(path: str) -> None:
    assert find(metadata(ABOUT), path.split("/")) is None


def test_as_text_a_node_lists_its_children() -> None:
    made = metadata(ABOUT)
    assert to_text(made) == "compute/\nnetwork/"
    assert to_text(made["network"]) == "interface/"
    assert to_text(find(made, ["network", "interface"]) or "") == "0/"
    assert to_text(find(made, ["network", "interface", "0"]) or "") == "ipv4/\nipv6/\nmacAddress"
    assert to_text(find(made, ["compute", "name"]) or "") == "web_w0"
    assert to_text([]) == ""


# The documentation's tables, "Azure Instance Metadata Service", api-versions up to 2025-04-07.
COMPUTE = """
azEnvironment additionalCapabilities/hibernationEnabled customData evictionPolicy extendedLocation/type
extendedLocation/name host/id hostGroup/id isHostCompatibilityLayerVm licenseType location name offer
osProfile/adminUsername osProfile/computerName osProfile/disablePasswordAuthentication osType physicalZone
placementGroupId plan/name plan/product plan/publisher platformUpdateDomain platformFaultDomain
platformSubFaultDomain priority provider publicKeys/0/keyData publicKeys/0/path publisher resourceGroupName
resourceId sku securityProfile/secureBootEnabled securityProfile/virtualTpmEnabled
securityProfile/encryptionAtHost securityProfile/securityType subscriptionId tags tagsList/0/name
tagsList/0/value userData version virtualMachineScaleSet/id vmId vmScaleSetName vmSize zone
storageProfile/resourceDisk/size
"""
IMAGE = "id offer publisher sku version communityGalleryImageId sharedGalleryImageId exactVersion"
DISK = """
caching createOption diffDiskSettings/option diskSizeGB image/uri managedDisk/id
managedDisk/storageAccountType name osType vhd/uri writeAcceleratorEnabled
encryptionSettings/enabled encryptionSettings/diskEncryptionKey/sourceVault/id
encryptionSettings/diskEncryptionKey/secretUrl encryptionSettings/keyEncryptionKey/sourceVault/id
encryptionSettings/keyEncryptionKey/keyUrl
"""
DATA_DISK = "bytesPerSecondThrottle diskCapacityBytes isSharedDisk isUltraDisk lun opsPerSecondThrottle"
NETWORK = """
ipv4/ipAddress/0/privateIpAddress ipv4/ipAddress/0/publicIpAddress ipv4/subnet/0/address ipv4/subnet/0/prefix
macAddress
"""
DOCUMENTED = [
    *(f"compute/{field}" for field in COMPUTE.split()),
    *(f"compute/storageProfile/imageReference/{field}" for field in IMAGE.split()),
    *(f"compute/storageProfile/osDisk/{field}" for field in DISK.split()),
    *(f"network/interface/0/{field}" for field in NETWORK.split()),
]
OF_A_LIST = [
    *(f"compute/storageProfile/dataDisks/1/{field}" for field in (DISK + DATA_DISK).split()),
    "network/interface/0/ipv6/ipAddress/0/privateIpAddress",
    "network/interface/1/macAddress",
    "compute/publicKeys/1/keyData",
]


@pytest.mark.parametrize("path", DOCUMENTED)
def test_every_documented_field_is_there_and_can_be_given(path: str) -> None:
    steps = path.split("/")
    for about in (ABOUT, InstanceInfo("x", "x", "", "")):
        assert isinstance(find(metadata(about), steps), str)
    if path in ("compute/name", "compute/tags") or "tagsList" in path:
        assert refusal(steps)
        return
    assert refusal(steps) == ""
    made = metadata(replace(ABOUT, given=((tuple(steps), "before"), (tuple(steps), "mine"))))
    assert find(made, steps) == "mine"


@pytest.mark.parametrize("path", OF_A_LIST)
def test_lists_grow_by_whole_entries(path: str) -> None:
    steps = path.split("/")
    assert refusal(steps) == ""
    made = metadata(replace(ABOUT, given=((tuple(steps), "mine"),)))
    assert find(made, steps) == "mine"
    assert all(isinstance(leaf, str) for leaf in leaves(made))
    assert metadata(ABOUT) == metadata(replace(ABOUT, given=()))  # nothing is left of it


@pytest.mark.parametrize(
    "path",
    [
        "", "compute", "compute/nothing", "compute/osProfile", "compute/name", "compute/tagsList/0/name",
        "compute/tags", "compute/tags/a/b", "compute/publicKeys", "compute/publicKeys/x/path",
        "compute/publicKeys/64/path", "compute/publicKeys/-1/path", "compute/zone/x", "network/interface/0",
    ],
)  # fmt: skip
def test_what_cannot_be_given_has_a_reason(path: str) -> None:
    assert refusal(tuple(path.split("/")))


def test_what_a_plain_machine_shows() -> None:
    """What clients look at to find out where they are. Nomad's fingerprint takes any azEnvironment for Azure
    (its client/fingerprint/env_azure.go)."""
    compute = metadata(InstanceInfo("web-0", "web-0", "id", "lab"))["compute"]
    assert isinstance(compute, dict)
    assert compute["azEnvironment"] == "AzurePublicCloud"
    assert compute["provider"] == "Microsoft.Compute"
    assert str(UUID(str(compute["subscriptionId"]))) == compute["subscriptionId"]
    assert compute["resourceId"] == (
        f"/subscriptions/{compute['subscriptionId']}/resourceGroups/{compute['resourceGroupName']}"
        "/providers/Microsoft.Compute/virtualMachines/web-0"
    )
    for field in ("publisher", "offer", "sku", "version", "tags", "location", "resourceGroupName"):
        assert compute[field], field
    for field in ("vmScaleSetName", "placementGroupId", "zone"):
        assert compute[field] == "", field


def test_what_is_given_goes_through_to_what_follows_from_it() -> None:
    mine = (
        (("compute", "subscriptionId"), "sub"),
        (("compute", "resourceGroupName"), "group"),
        (("compute", "sku"), "12-gen2"),
        (("compute", "tags", "role"), "web"),
        (("compute", "tags", "a:b"), "c;d"),
    )
    made = metadata(InstanceInfo("web-0", "prod", "id", "lab", given=mine))
    resource = "/subscriptions/sub/resourceGroups/group/providers/Microsoft.Compute"
    for path, value in {
        "compute/resourceId": f"{resource}/virtualMachines/prod",
        "compute/storageProfile/osDisk/managedDisk/id": f"{resource}/disks/prod_OsDisk_1",
        "compute/storageProfile/imageReference/sku": "12-gen2",
        "compute/tags": "role:web;a:b:c;d",
        "compute/tagsList/1/name": "a:b",
        "compute/tagsList/1/value": "c;d",
    }.items():
        assert find(made, path.split("/")) == value


def test_the_subnet_is_the_address_s() -> None:
    made = metadata(replace(ABOUT, address="10.7.3.9", prefix=22))
    subnet = find(made, ["network", "interface", "0", "ipv4", "subnet", "0"])
    assert subnet == {"address": "10.7.0.0", "prefix": "22"}


def test_an_instance_of_a_scale_set() -> None:
    """Names as Azure has them: those of AKS's nodes are well known, aks-…-vmss_10 is aks-…-vmss00000a."""
    assert scale_set_name("web", 10) == "web_10"
    assert [scale_set_host("web", n) for n in (0, 9, 10, 35, 36, 46_655)] == [
        "web000000", "web000009", "web00000a", "web00000z", "web000010", "web000zzz",
    ]  # fmt: skip
    about = InstanceInfo("web00000a", "web_10", "id", "lab", availability_set="web", scale_set=True)
    compute = metadata(about)["compute"]
    assert isinstance(compute, dict)
    assert compute["vmScaleSetName"] == "web"
    assert str(UUID(str(compute["placementGroupId"]))) == compute["placementGroupId"]
    assert str(compute["resourceId"]).endswith("/virtualMachineScaleSets/web/virtualMachines/10")
