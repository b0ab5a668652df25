"""The documents of every version, and dates in English wherever one is."""

from __future__ import annotations

import json
import locale
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.core.clock import Stamp
from lab.core.scheduled.documents import document, etag, http_date, to_json, told
from lab.core.scheduled.instance import About, compute_name, find, metadata, to_text
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
    made = document(3, [one], version, lambda guest: compute_name(guest, "web"))
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
    assert [one.notice.type.value for one in told(events, version)] == known
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

ABOUT = About(
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
    for about in (ABOUT, About("x", "lab_x", "", "")):
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
        ("compute/location", "lab"),
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


def test_a_compute_name_is_no_host_name() -> None:
    assert compute_name("w0", "web") == "web_w0"
    assert compute_name("w0", "") == "lab_w0"
