"""The NoCloud seed, parsed back as cloud-init would."""

from __future__ import annotations

import io
from typing import Any

import pycdlib
import pytest
import yaml

from lab.image.identity import make_key
from lab.image.nocloud import make_iso
from lab.image.seed import Network, SeedFile, contents

PRIVATE, PUBLIC = make_key("web-0")
MAC = "52:54:00:01:02:03"


def parsed(**values: Any) -> dict[str, Any]:
    """The label, and the files by name."""
    known: dict[str, Any] = {
        "name": "web-0", "host_key": PRIVATE, "host_key_public": PUBLIC,
        "authorized_keys": ["ssh-ed25519 AAAA lab"], "network": Network(), "mac": MAC,
    }  # fmt: skip
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(make_iso(**{**known, **values})))
    found: dict[str, Any] = {"label": iso.pvd.volume_identifier.decode().strip()}
    for kind in ("rr_path", "joliet_path"):  # who mounts it takes either
        tar = io.BytesIO()
        iso.get_file_from_iso_fp(tar, **{kind: "/files.tar"})
        found["files"] = contents(tar.getvalue())
        for file in ("meta-data", "user-data", "network-config"):
            text = io.BytesIO()
            iso.get_file_from_iso_fp(text, **{kind: f"/{file}"})
            found[file] = yaml.safe_load(text.getvalue())
            found[f"{file} text"] = text.getvalue().decode()
    return found


def test_it_has_name_keys_and_network() -> None:
    found = parsed()
    assert found["label"] == "cidata"
    assert found["meta-data"]["local-hostname"] == found["user-data"]["hostname"] == "web-0"
    assert found["user-data text"].startswith("#cloud-config\n")
    keys = found["user-data"]["ssh_keys"]
    assert keys == {"ed25519_private": PRIVATE.decode(), "ed25519_public": PUBLIC}
    assert found["network-config"] == {
        "version": 2,
        "ethernets": {
            "eth0": {
                "match": {"macaddress": MAC},
                "set-name": "eth0",
                "dhcp4": False,
                "addresses": ["10.0.2.15/24"],
                "routes": [{"to": "0.0.0.0/0", "via": "10.0.2.2"}],
                "nameservers": {"addresses": ["10.0.2.3"]},
            }
        },
    }


def test_root_logs_in_unless_another_user_is_named() -> None:
    root = parsed()["user-data"]
    assert (root["disable_root"], root["users"]) == (False, [])
    assert root["ssh_authorized_keys"] == ["ssh-ed25519 AAAA lab"]
    other = parsed(user="admin")["user-data"]
    assert "ssh_authorized_keys" not in other
    assert [(user["name"], user["ssh_authorized_keys"], user["sudo"]) for user in other["users"]] == [
        ("admin", ["ssh-ed25519 AAAA lab"], "ALL=(ALL) NOPASSWD:ALL")
    ]


def test_files_tar_says_the_same_without_yaml() -> None:
    more = {"/usr/lib/lab/tool": SeedFile(b"#!/bin/sh\n", 0o755)}
    found = parsed(files=more)
    files, data = found["files"], found["user-data"]
    assert files["/etc/hostname"].content.decode().strip() == found["meta-data"]["local-hostname"]
    key = files["/etc/ssh/ssh_host_ed25519_key"]
    assert (key.content.decode(), key.mode) == (data["ssh_keys"]["ed25519_private"], 0o600)
    assert files["/etc/ssh/ssh_host_ed25519_key.pub"].content.decode().strip() == PUBLIC
    assert files["/root/.ssh/authorized_keys"] == SeedFile(b"ssh-ed25519 AAAA lab\n", 0o600)
    for each in data["write_files"]:
        assert files[each["path"]] == SeedFile(each["content"].encode(), int(each["permissions"], 8))
    assert files["/usr/lib/lab/tool"] == more["/usr/lib/lab/tool"]
    assert "/root/.ssh/authorized_keys" not in parsed(user="admin")["files"]


def test_each_guest_is_another_instance() -> None:
    first, again = parsed()["meta-data"], parsed()["meta-data"]
    assert first == again
    assert parsed(name="web-1")["meta-data"]["instance-id"] != first["instance-id"]
    other = make_key("web-0")
    new = parsed(host_key=other[0], host_key_public=other[1])["meta-data"]
    assert new["instance-id"] != first["instance-id"], "cloud-init does nothing for one that it knows"


def test_a_bridge_has_only_an_address_and_dhcp_none() -> None:
    bridged = parsed(network=Network("192.0.2.7/24", None, None))["network-config"]["ethernets"]["eth0"]
    assert bridged["addresses"] == ["192.0.2.7/24"]
    assert not {"routes", "nameservers"} & set(bridged)
    assert parsed(network=Network(None, None, None))["network-config"]["ethernets"]["eth0"]["dhcp4"] is True


@pytest.mark.parametrize(
    "content", ["one line\n", "#!/bin/sh\necho 'a: b' \"${c}\"\n\n  indented\n", "- x\n", "\ttab\n"]
)
def test_files_arrive_as_they_are(content: str) -> None:
    found = parsed(files={"/etc/x": SeedFile(content.encode(), 0o755)})["user-data"]["write_files"]
    assert {"path": "/etc/x", "permissions": "0755", "content": content} in found
    assert [file["path"] for file in found] == sorted(file["path"] for file in found)


def test_keys_are_in_the_form_that_readers_in_shell_know() -> None:
    """A block of lines, as in cloud-init's own examples."""
    text = parsed()["user-data text"]
    assert "  ed25519_private: |\n    -----BEGIN OPENSSH PRIVATE KEY-----\n" in text
    assert "ssh_authorized_keys:\n- ssh-ed25519 AAAA lab\n" in text
