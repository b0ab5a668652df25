"""Unmodified clients of the metadata of Compute Engine and of EC2: npm's gcp-metadata, Google's guest agent,
cloud-init's datasources, PyPI's ec2-metadata, Debian's amazon-ec2-utils, and curl for what these never do."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.errors import MachineError
from lab.host.emulators_sources import Archive
from lab.image.store import default_cache
from tests.host.clients import packages, registries
from tests.host.clients.conftest import missing
from tests.host.clients.namespaces import SERVICE, Namespace, ip, namespace, running
from tests.host.clients.packages import Clients
from tests.host.clients.service import Service, served

HERE = Path(__file__).parent
EVENT = "/computeMetadata/v1/instance/maintenance-event"
MIGRATE = "MIGRATE_ON_HOST_MAINTENANCE"
GOOGLE = ("-H", "Metadata-Flavor: Google")
PATIENCE_S = 60

Site = tuple[Service, Namespace]


@pytest.fixture(scope="module")
def gce_site(able: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with namespace() as made, served(made, tmp_path_factory.mktemp("gce"), "--cloud", "gce") as service:
        yield service, made


@pytest.fixture(scope="module")
def ec2_site(able: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    options = ("--cloud", "ec2", "--imdsv2")
    with namespace() as made, served(made, tmp_path_factory.mktemp("ec2"), *options) as service:
        yield service, made


@pytest.fixture
def gce(gce_site: Site) -> Iterator[Site]:
    yield gce_site
    gce_site[0].clear()


@pytest.fixture
def ec2(ec2_site: Site) -> Iterator[Site]:
    yield ec2_site
    ec2_site[0].clear()


def from_registry(fetch: Callable[[], Path]) -> Path:
    try:
        return fetch()
    except MachineError as error:
        missing(error.what)


def curl(inside: Namespace, *words: str, wait_s: float = 30) -> tuple[int, str]:
    """The status and the body; 0 when there was no answer within wait_s."""
    done = inside.run("curl", "-s", "--max-time", str(wait_s), "-w", "\n%{http_code}", *words)
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# -- Compute Engine ----------------------------------------------------------------------------------


def test_gcp_metadata(gce: Site) -> None:
    service, inside = gce
    script = [shutil.which("node") or "", str(HERE / "gcp_metadata.mjs")]
    script.append(str(from_registry(registries.gcp_metadata)))

    def read(*asked: str) -> list[Any]:
        done = inside.run(*script, *asked)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    whole = "?recursive=true"
    found = read("maintenance-event", "hostname", whole, "service-accounts/default/token")
    assert (found[0], found[1], found[4]) == (True, "NONE", 404)
    assert found[2].startswith("web-0.")
    assert found[3]["maintenanceEvent"] == "NONE"
    tag = re.search("(?mi)^etag: (.*?)\r?$", curl(inside, "-i", *GOOGLE, f"http://{SERVICE}{EVENT}")[1])
    assert tag is not None
    # As on Cloud Run, where its requests have no time limit of 3 s.
    wait = f"maintenance-event?wait_for_change=true&last_etag={tag[1]}"
    waiting = ["env", "K_SERVICE=lab", *script, wait]
    with running(inside.argv(waiting), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) is True
        event = service.announce("web-0")
        assert json.loads(process.stdout.readline()) == MIGRATE
    now = read("maintenance-event", "upcoming-maintenance?alt=json")
    assert now[1] == MIGRATE
    assert now[2]["maintenance_status"] == "PENDING"
    assert service.seen_by(event) == ["web-0"]
    service.cancel(event)
    assert read("maintenance-event")[1] == "NONE"


def test_cloud_init_on_compute_engine(gce: Site, clients: Clients) -> None:
    _, inside = gce
    done = inside.run(*clients.python(HERE / "read_notices.py", "gce"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["success"], found["reason"]
    assert found["meta-data"]["local-hostname"].startswith("web-0.")
    assert found["meta-data"]["availability-zone"] == "europe-west4-a"
    assert int(found["meta-data"]["instance-id"]) > 0


@contextmanager
def guest_agent(inside: Namespace, archive: Archive, root: Path) -> Iterator[Path]:
    """Google's guest agent, in a root with nothing but its libraries: it would add users and change sshd's
    configuration. What it prints is in the file."""
    try:
        unpacked = packages.unpacked("bookworm", ("google-guest-agent", "libc6"), archive, default_cache())
    except MachineError as error:
        missing(error.what)
    for part in ("usr/bin", "lib", "lib64", "etc", "tmp"):
        (root / part).mkdir(parents=True)
    for path in (
        "usr/bin/google_guest_agent",
        "lib/x86_64-linux-gnu/libc.so.6",
        "lib64/ld-linux-x86-64.so.2",
    ):
        (root / path).parent.mkdir(exist_ok=True)
        shutil.copy(unpacked / path, root / path)
    (root / "etc/hosts").write_text(f"{SERVICE} metadata.google.internal\n", encoding="ascii")
    agent = ["unshare", "--mount", "--uts", "chroot", str(root)]
    log = root / "tmp/log"
    with (
        log.open("w", encoding="utf-8") as file,
        running(inside.argv([*agent, "/usr/bin/google_guest_agent"]), stdout=file, stderr=file),
    ):
        yield log


def test_googles_guest_agent_waits_for_changes(gce: Site, archive: Archive, tmp_path: Path) -> None:
    """It reads the whole tree with last_etag and timeout_sec, again after each change."""
    service, inside = gce
    with guest_agent(inside, archive, tmp_path / "root") as log:
        until(lambda: "Instance ID changed" in log.read_text("utf-8"))
        event = service.announce("web-0")
        until(lambda: service.seen_by(event) == ["web-0"])
        service.cancel(event)
        until(lambda: service.control.service()["guests"][0]["asks"])  # since the event, that is
    assert "GCE Agent Started" in log.read_text("utf-8")
    assert "json" not in log.read_text("utf-8").lower()


def test_compute_engine_refuses(gce: Site) -> None:
    service, inside = gce
    url = f"http://{SERVICE}{EVENT}"
    assert curl(inside, *GOOGLE, url) == (200, "NONE")
    assert curl(inside, url)[0] == 403
    assert curl(inside, *GOOGLE, "-H", "X-Forwarded-For: 10.0.0.9", url)[0] == 403
    assert curl(inside, *GOOGLE, "-d", "x", url)[0] == 405
    assert curl(inside, *GOOGLE, f"http://{SERVICE}/latest/meta-data/")[0] == 404
    mate = f"http://127.0.0.1:8170{EVENT}"
    assert curl(inside, *GOOGLE, mate) == (200, "NONE")
    service.announce("web-1")  # of the same set
    assert (curl(inside, *GOOGLE, url)[1], curl(inside, *GOOGLE, mate)[1]) == ("NONE", MIGRATE)


# -- EC2 ---------------------------------------------------------------------------------------------


def test_amazon_ec2_utils(ec2: Site, archive: Archive) -> None:
    _, inside = ec2
    try:
        unpacked = packages.unpacked("bookworm", ("amazon-ec2-utils",), archive, default_cache())
    except MachineError as error:
        missing(error.what)
    done = inside.run("bash", str(unpacked / "usr/bin/ec2-metadata"), "--all")
    assert done.returncode == 0, done.stderr
    found = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert found["instance-id"].startswith("i-")
    assert found["placement"] == "eu-west-1a"
    assert found["reservation-id"].startswith("r-")  # asked for at /latest//meta-data/
    assert found["kernel-id"] == found["user-data"] == "not available"


def test_ec2_metadata(ec2: Site) -> None:
    service, inside = ec2
    modules = from_registry(registries.ec2_metadata)
    program = (
        "import json; from ec2_metadata import ec2_metadata as m; a = m.spot_instance_action; "
        "found = m.instance_id, m.region, m.account_id, list(m.network_interfaces), a and a.action; "
        "print(json.dumps(found))"
    )

    def read() -> list[Any]:
        done = inside.run(sys.executable, "-c", program, env={"PYTHONPATH": str(modules)})
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout))

    machine, region, account, cards, action = read()
    assert machine.startswith("i-")
    assert (region, len(account), len(cards), action) == ("eu-west-1", 12, 1, None)
    event = service.announce("web-0", kind="Preempt")
    assert read()[-1] == "terminate"
    assert service.seen_by(event) == ["web-0"]


def test_cloud_init_on_ec2(ec2: Site, clients: Clients) -> None:
    service, inside = ec2
    service.announce("web-0", kind="Reboot")
    done = inside.run(*clients.python(HERE / "read_notices.py", "ec2"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    meta = found["meta-data"]
    assert meta["instance-id"] == found["dynamic"]["instance-identity"]["document"]["instanceId"]
    (event,) = json.loads("\n".join(meta["events"]["maintenance"]["scheduled"]))  # a list of lines to it
    assert (event["Code"], event["State"]) == ("system-reboot", "active")


def test_tokens_of_ec2(ec2: Site) -> None:
    _, inside = ec2
    ttl = "X-aws-ec2-metadata-token-ttl-seconds"

    def token(*words: str, door: str = f"{SERVICE}:80") -> tuple[int, str]:
        return curl(inside, "-X", "PUT", *words, f"http://{door}/latest/api/token")

    def read(given: str, door: str = f"{SERVICE}:80") -> int:
        url = f"http://{door}/latest/meta-data/instance-id"
        return curl(inside, "-H", f"X-aws-ec2-metadata-token: {given}", url)[0]

    status, short = token("-H", f"{ttl}: 1")
    assert (status, token("-H", f"{ttl}: 0")[0], token()[0]) == (200, 400, 400)
    assert token("-H", f"{ttl}: 60", "-H", "X-Forwarded-For: 10.0.0.9")[0] == 403
    good = token("-H", f"{ttl}: 60")[1]
    assert (read(good), read(""), read("x"), read(good, "127.0.0.1:8170")) == (200, 401, 401, 401)
    until(lambda: read(short) == 401)
    assert curl(inside, f"http://{SERVICE}/latest/meta-data/instance-id")[0] == 401  # IMDSv1


@contextmanager
def container(of: Namespace) -> Iterator[Namespace]:
    """A namespace whose packets `of` forwards, as a container's are by its machine: one hop more."""
    with namespace() as made:
        ip("link", "add", "vm", "netns", of.name, "type", "veth", "peer", "name", "eth", "netns", made.name)
        for where, device, address in ((of, "vm", "10.9.9.1/24"), (made, "eth", "10.9.9.2/24")):
            ip("-n", where.name, "address", "add", address, "dev", device)
            ip("-n", where.name, "link", "set", device, "up")
        ip("-n", made.name, "address", "delete", f"{SERVICE}/32", "dev", "lo")
        ip("-n", made.name, "route", "add", "default", "via", "10.9.9.1")
        try:
            yield made
        finally:
            ip("-n", of.name, "link", "delete", "vm")


@pytest.mark.parametrize(("limit", "status"), [("1", 0), ("2", 200)])
def test_a_token_goes_no_further_than_the_hop_limit(
    able: None, tmp_path: Path, limit: str, status: int
) -> None:
    """The service is one hop from the machine, and two from a container on it."""
    ask = (
        "-X",
        "PUT",
        "-H",
        "X-aws-ec2-metadata-token-ttl-seconds: 60",
        "http://10.9.8.1:80/latest/api/token",
    )
    with namespace() as host, namespace() as machine:
        ip(
            "link",
            "add",
            "tap",
            "netns",
            host.name,
            "type",
            "veth",
            "peer",
            "name",
            "eth",
            "netns",
            machine.name,
        )
        for where, device, address in ((host, "tap", "10.9.8.1/24"), (machine, "eth", "10.9.8.2/24")):
            ip("-n", where.name, "address", "add", address, "dev", device)
            ip("-n", where.name, "link", "set", device, "up")
        ip("-n", host.name, "route", "add", "10.9.9.0/24", "via", "10.9.8.2")
        machine.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        options = ("--cloud", "ec2", "--hop-limit", limit, "--listen", "10.9.8.1:80=web-0")
        with container(machine) as inner, served(host, tmp_path, *options):
            until(lambda: curl(machine, *ask)[0] == 200)  # links that are just up drop the first packets
            assert curl(inner, *ask, wait_s=30 if status else 3)[0] == status
            assert curl(inner, "http://10.9.8.1:80/latest/meta-data/mac")[0] == 200  # what has no limit
