"""systemd's client of metadata services (systemd-imdsd, new in 261), with the endpoints that systemd itself
has in its hwdb, against the service in each cloud's words. It is in Debian's sid alone."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.errors import MachineError
from lab.host.emulators_sources import Archive
from lab.image.store import default_cache
from tests.host.clients import packages
from tests.host.clients.namespaces import Namespace, namespace
from tests.host.clients.service import served

VENDORS = {"azure": "microsoft-azure", "gce": "google-gcp", "ec2": "amazon-ec2"}
WANTED = {
    "azure": {"hostname": "web000000", "region": "westeurope"},
    "gce": {
        "hostname": "web-0.europe-west4-a.c.freezelab.internal",
        "region": "projects/480207616137/regions/europe-west4",
        "zone": "projects/480207616137/zones/europe-west4-a",
    },
    "ec2": {
        "hostname": "ip-10-0-0-4.eu-west-1.compute.internal",
        "region": "eu-west-1",
        "zone": "eu-west-1a",
    },
}
NOTICES = {  # not Azure's: systemd asks there with a version that events do not have
    "gce": ("/instance/maintenance-event", "NONE"),
    "ec2": ("/meta-data/events/maintenance/scheduled", "[]"),
}


@pytest.fixture(scope="module")
def root(able: None, archive: Archive) -> Path:
    """systemd-imdsd with its libraries, as a root."""
    try:
        made = packages.unpacked("sid", ("systemd-imds", "systemd"), archive, default_cache(), closure=True)
    except MachineError as error:
        pytest.skip(f"no systemd-imds: {error.what}")  # sid is what it is
    for name in ("lib", "lib64"):
        if not (made / name).exists():
            (made / name).symlink_to(f"usr/{name}")
    for name in ("proc", "run", "tmp"):
        (made / name).mkdir(exist_ok=True)
    return made


@pytest.fixture(scope="module")
def endpoints(root: Path, archive: Archive) -> dict[str, list[tuple[str, str]]]:
    """By vendor, the records of systemd's hwdb."""
    udev = packages.unpacked("sid", ("udev",), archive, default_cache())
    found: dict[str, list[tuple[str, str]]] = {}
    vendor = ""
    for line in (udev / "usr/lib/udev/hwdb.d/40-imds.hwdb").read_text("utf-8").splitlines():
        key, _, value = line.strip().partition("=")
        if key == "IMDS_VENDOR":
            vendor = value
        if key.startswith("IMDS_"):
            found.setdefault(vendor, []).append((key.removeprefix("IMDS_"), value))
    return found


def options(records: list[tuple[str, str]]) -> Iterator[str]:
    """The endpoint as it is configured by hand."""
    for name, value in records:
        if name.startswith("KEY_"):
            yield f"--well-known-key={name.removeprefix('KEY_').lower().replace('_', '-')}:{value}"
        elif not name.endswith("IPV6"):
            yield f"--{name.lower().replace('_', '-')}={value}"


def ask(
    inside: Namespace, root: Path, records: list[tuple[str, str]], *words: str
) -> subprocess.CompletedProcess[str]:
    enter = f'mount -t proc proc {root}/proc && exec chroot {root} /usr/lib/systemd/systemd-imdsd "$@"'
    more = ("--interface=lo", "--cache=no", "--wait=no")
    return inside.run("unshare", "--mount", "sh", "-c", enter, "sh", *options(records), *more, *words)


@pytest.mark.parametrize("cloud", VENDORS)
def test_what_systemd_reads(
    root: Path, endpoints: dict[str, list[tuple[str, str]]], tmp_path: Path, cloud: str
) -> None:
    records = endpoints[VENDORS[cloud]]
    tokens = ("--imdsv2",) if cloud == "ec2" else ()
    with namespace() as inside, served(inside, tmp_path, "--cloud", cloud, *tokens):
        for name, value in WANTED[cloud].items():
            done = ask(inside, root, records, "--well-known", name)
            assert (done.returncode, done.stdout.strip()) == (0, value), done.stderr
        if cloud in NOTICES:
            path, notice = NOTICES[cloud]
            assert ask(inside, root, records, path).stdout.strip() == notice
        assert ask(inside, root, records, "/nothing").returncode != 0
