"""cloud-init's and waagent's readers of /metadata/instance, by their own functions (read_instance.py)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.host.clients.namespaces import Namespace
from tests.host.clients.packages import Clients
from tests.host.clients.service import Service

SCRIPT = Path(__file__).with_name("read_instance.py")


def read(client: str, clients: Clients, inside: Namespace) -> tuple[dict[str, Any], str]:
    """What it found, and what it logged."""
    done = inside.run(*clients.python(SCRIPT, client))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_cloud_init(service: Service, inside: Namespace, clients: Clients) -> None:
    found, logged = read("cloud-init", clients, inside)
    compute, interface = found["told"]["compute"], found["told"]["network"]["interface"][0]
    assert compute["name"] == "web_0"
    assert found["host name"] == "web000000"
    assert found["user"] == "root"
    card = found["network"]["ethernets"]["eth0"]
    assert re.fullmatch("(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", card["match"]["macaddress"])
    assert card["match"]["macaddress"].replace(":", "").upper() == interface["macAddress"]
    assert (card["dhcp4"], card["dhcp6"]) == (True, False)
    assert "2019-06-01" not in logged  # the version that it falls back to


def test_waagent(service: Service, inside: Namespace, clients: Clients) -> None:
    found, logged = read("waagent", clients, inside)
    assert found["healthy"], found["why"]
    assert found["compute"]["name"] == "web_0"
    assert found["compute"]["vmId"]
    assert logged == ""
