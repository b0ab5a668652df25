"""A guest's keys and its seed."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import paramiko
import pytest

from lab.errors import ImageError, MachineError
from lab.image.identity import make_key, write_key
from lab.image.seed import Network, SeedFile, make_seed

HOST_KEY, HOST_PUBLIC = make_key("web-0")
LAB_KEY, LAB_PUBLIC = make_key("lab")


def seed(**changes: object) -> bytes:
    arguments: dict[str, object] = {
        "name": "web-0",
        "host_key": HOST_KEY,
        "host_key_public": HOST_PUBLIC,
        "authorized_keys": [LAB_PUBLIC],
    }
    return make_seed(**(arguments | changes))  # type: ignore[arg-type]


def unpack(content: bytes) -> dict[str, tuple[int, str]]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        found = {}
        for member in tar:
            assert (member.uid, member.gid, member.mtime) == (0, 0, 0)
            file = tar.extractfile(member)
            assert file is not None
            found[member.name] = (member.mode, file.read().decode())
        return found


def test_key_is_one_that_paramiko_takes() -> None:
    key = paramiko.Ed25519Key.from_private_key(io.StringIO(LAB_KEY.decode()))
    assert f"ssh-ed25519 {key.get_base64()} lab" == LAB_PUBLIC
    assert make_key()[0] != make_key()[0]


def test_key_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    for umask in (0o000, 0o077, 0o377):
        before = os.umask(umask)
        try:
            path = tmp_path / f"key-{umask:o}"
            write_key(path, LAB_KEY, LAB_PUBLIC)
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_bytes() == LAB_KEY


def test_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_key(path, LAB_KEY, LAB_PUBLIC)
    with pytest.raises(ImageError):
        write_key(path, HOST_KEY, HOST_PUBLIC)
    assert path.read_bytes() == LAB_KEY
    assert (tmp_path / "key.pub").read_text() == LAB_PUBLIC + "\n"


def test_key_file_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises((ImageError, MachineError)):
        write_key(tmp_path / "key", LAB_KEY, LAB_PUBLIC)
    assert not (tmp_path / "elsewhere").exists()


def test_key_file_without_a_folder(tmp_path: Path) -> None:
    with pytest.raises(MachineError) as caught:
        write_key(tmp_path / "none" / "key", LAB_KEY, LAB_PUBLIC)
    assert "No such file" in caught.value.what


def test_seed_holds_the_identity() -> None:
    files = unpack(seed())
    assert files["etc/hostname"] == (0o644, "web-0\n")
    assert files["etc/ssh/ssh_host_ed25519_key"] == (0o600, HOST_KEY.decode())
    assert files["etc/ssh/ssh_host_ed25519_key.pub"] == (0o644, HOST_PUBLIC + "\n")
    assert files["root/.ssh/authorized_keys"] == (0o600, LAB_PUBLIC + "\n")
    assert len(files["etc/machine-id"][1].strip()) == 32
    assert files["etc/freezelab/network"][1] == "mode=static\naddress=10.0.2.15/24\ngateway=10.0.2.2\n"
    assert LAB_KEY not in seed()  # the lab's private key stays on the host


def test_seed_is_deterministic_and_every_guest_its_own() -> None:
    assert seed() == seed()
    other = unpack(seed(name="web-1"))
    assert other["etc/machine-id"] != unpack(seed())["etc/machine-id"]
    assert unpack(seed(machine_id="0" * 32))["etc/machine-id"] == (0o444, "0" * 32 + "\n")


def test_seed_network() -> None:
    files = unpack(seed(network=Network(address=None, gateway=None, nameserver=None)))
    assert files["etc/freezelab/network"][1] == "mode=dhcp\n"
    assert "etc/resolv.conf" not in files
    files = unpack(seed(network=Network("192.168.9.7/16", None, None)))
    assert files["etc/freezelab/network"][1] == "mode=static\naddress=192.168.9.7/16\n"


def test_seed_takes_more_files() -> None:
    files = unpack(seed(files={"/etc/chrony/chrony.conf": SeedFile(b"makestep 1 3\n", 0o640)}))
    assert files["etc/chrony/chrony.conf"] == (0o640, "makestep 1 3\n")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Web"},
        {"name": ""},
        {"name": "-a"},
        {"name": "a" * 64},
        {"name": "a\nb"},
        {"name": "../a"},
        {"machine_id": "xyz"},
        {"network": Network("10.0.2.15; poweroff", None, None)},
        {"network": Network("10.0.2.15/24", "$(poweroff)", None)},
        {"network": Network("10.0.2.15/24", None, "a b")},
        {"files": {"etc/x": SeedFile(b"")}},
        {"files": {"/etc/../../x": SeedFile(b"")}},
    ],
)
def test_seed_refuses(changes: dict[str, object]) -> None:
    with pytest.raises(ImageError):
        seed(**changes)
