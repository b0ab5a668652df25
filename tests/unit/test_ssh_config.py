"""What an ssh_config says of a host, compared with what ssh(1) makes of it where that is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lab.core.own_domain import SshTarget
from lab.errors import UsageError
from lab.guest.ssh_config import SshHop, resolve

FULL = """
Include more.conf
Host my-vm-host
  HostName 10.0.0.7
  Port 2222
  User admin
  IdentityFile {folder}/key one
  IdentityFile "{folder}/%h key"
  UserKnownHostsFile {folder}/known {folder}/known2
  ProxyJump first,me@second:2200
  IdentitiesOnly yes
Host first
  User gate
  ProxyCommand nc %h %p
Host second
  HostName second.example.org
Host round
  ProxyJump round
Host named
  HostKeyAlias other-name
  IdentityAgent none
Host *.example.org
  User wild
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's file, in a home of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "more.conf").write_text("Host included\n  Port 2022\n")
    path = tmp_path / ".ssh" / "config"
    path.write_text(FULL.replace("{folder}", str(tmp_path)).replace("/key one", "/key"))
    return path


def hop(host: str, **more: object) -> SshHop:
    return resolve(SshTarget(host, **more), "guest db")  # type: ignore[arg-type]


def test_a_host_of_the_users_file(config: Path) -> None:
    folder = config.parent.parent
    found = hop("my-vm-host")
    assert (found.host, found.port, found.user, found.alias) == ("10.0.0.7", 2222, "admin", "10.0.0.7")
    assert found.keys == (folder / "key", folder / "10.0.0.7 key")
    assert found.known_hosts[:2] == (folder / "known", folder / "known2")
    assert found.only_named
    assert [str(each) for each in found.jumps] == ["gate@first:22", "me@second.example.org:2200"]
    assert [each.proxy for each in found.jumps] == ["nc first 22", ""]
    assert found.proxy == ""


def test_what_the_playbook_says_comes_first(config: Path) -> None:
    found = hop("my-vm-host", port=22, user="root", key="~/mine", known_hosts="/known")
    assert (found.port, found.user, found.keys) == (22, "root", (config.parent.parent / "mine",))
    assert found.known_hosts[0] == Path("/known")
    assert found.jumps


def test_a_host_that_no_file_names(config: Path) -> None:
    (config.parent / "id_ed25519").touch()
    found = hop("db.example.org")
    assert (found.host, found.port, found.user) == ("db.example.org", 22, "wild")
    assert found.keys == (config.parent / "id_ed25519",)
    assert found.known_hosts[0] == config.parent / "known_hosts"
    assert found.jumps == ()


def test_names_agents_and_included_files(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/agent")
    assert (hop("named").alias, hop("named").agent) == ("other-name", "")
    assert (hop("included").port, hop("included").agent) == (2022, "/agent")
    assert config.exists()


def test_another_file_replaces_the_users(config: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("Host my-vm-host\n  HostName 10.9.9.9\n")
    found = hop("my-vm-host", config=str(other))
    assert (found.host, found.jumps) == ("10.9.9.9", ())
    assert config.exists()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("Host a\n  ProxyJump a\n", "more than 8 jump hosts on the way"),
        ("Host a\n  Port no\n", "not a port in ssh_config: 'no'"),
        ("Host a\n  ProxyJump b:c:d\n", "not a jump host of ssh_config"),
        ("Include {file}\n", "include each other"),
        ("Host\n", "not a valid ssh_config"),
    ],
)
def test_files_that_cannot_be_used(config: Path, text: str, what: str) -> None:
    config.write_text(text.replace("{file}", str(config)))
    with pytest.raises(UsageError, match=what) as wrong:
        hop("a")
    assert str(wrong.value).count("\n") <= 1


def test_a_named_file_has_to_be_there(config: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        hop("a", config=str(config.parent / "missing"))


@pytest.mark.skipif(shutil.which("ssh") is None, reason="ssh is not installed")
@pytest.mark.parametrize("host", ["my-vm-host", "second", "included", "db.example.org", "named"])
def test_ssh_says_the_same(config: Path, host: str) -> None:
    done = subprocess.run(["ssh", "-G", "-F", str(config), host], check=True, capture_output=True, text=True)
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    found = hop(host)
    assert (found.host, str(found.port), found.user) == (said["hostname"], said["port"], said["user"])
    assert said.get("proxyjump", "") in ("", "first,me@second:2200")
