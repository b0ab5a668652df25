"""known_hosts: which lines are about a host, and what becomes of a key that is not in them."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import paramiko
import pytest

from lab.guest.address import RefusedError
from lab.guest.known_hosts import KnownHosts, fingerprint
from lab.image.identity import make_key


def key_of(name: str) -> tuple[str, paramiko.PKey]:
    """A public key as its line has it, and as paramiko has it."""
    kind, text = make_key(name)[1].split()[:2]
    return f"{kind} {text}", paramiko.Ed25519Key(data=base64.b64decode(text))


LINE, KEY = key_of("guest")
OTHER, _ = key_of("other")


def hashed(host: str) -> str:
    salt = b"0123456789abcdefghij"
    digest = hmac.new(salt, host.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("host", "port", "names"),
    [
        ("db", 22, "db"),
        ("DB", 22, "other,db"),
        ("db.example.org", 22, "*.example.org"),
        ("db", 2222, "[db]:2222"),
        ("10.0.0.7", 22, "10.0.0.?"),
        ("fd00::7", 22, "fd00::7"),
        ("db", 22, hashed("db")),
        ("db", 2222, hashed("[db]:2222")),
    ],
)
def test_a_host_is_known_by(tmp_path: Path, host: str, port: int, names: str) -> None:
    file = tmp_path / "known"
    file.write_text(f"# a comment\n\nnonsense\n{names} {LINE} me@here\n")
    known = KnownHosts(host, port, [tmp_path / "missing", file])
    known.verify(KEY, "guest db")
    assert known.kinds == ("ssh-ed25519",)


@pytest.mark.parametrize(
    ("host", "port", "names"),
    [
        ("db", 22, "dbx"),
        ("db", 22, "[db]:2222"),
        ("db", 2222, "db"),
        ("db.example.org", 22, "*.example.org,!db.example.org"),
        ("db", 22, hashed("dc")),
        ("db", 22, "|1|x|y"),
        ("d", 22, "[xdy]"),
    ],
)
def test_a_host_is_not_known_by(tmp_path: Path, host: str, port: int, names: str) -> None:
    file = tmp_path / "known"
    file.write_text(f"{names} {LINE}\n")
    with pytest.raises(RefusedError, match="is not known") as refused:
        KnownHosts(host, port, [file]).verify(KEY, "guest db")
    assert fingerprint(KEY) in str(refused.value)
    assert f"{LINE}' >>{file}" in refused.value.hint


def test_the_command_of_an_unknown_host_adds_it(tmp_path: Path) -> None:
    file = tmp_path / "known"
    with pytest.raises(RefusedError) as refused:
        KnownHosts("db", 2222, [file]).verify(KEY, "guest db")
    line = refused.value.hint.split("echo '")[1].split("'")[0]
    file.write_text(line + "\n")
    KnownHosts("db", 2222, [file]).verify(KEY, "guest db")


def test_a_changed_key_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "known"
    file.write_text(f"x {LINE}\ndb {OTHER}\n")
    with pytest.raises(RefusedError, match="another host key") as refused:
        KnownHosts("db", 22, [file]).verify(KEY, "guest db")
    assert f"{file}:2" in refused.value.hint
    assert f"ssh-keygen -R 'db' -f {file}" in refused.value.hint


def test_a_revoked_key_is_refused_although_it_is_known(tmp_path: Path) -> None:
    file = tmp_path / "known"
    file.write_text(f"db {LINE}\n@revoked * {LINE}\n")
    with pytest.raises(RefusedError, match="revoked") as refused:
        KnownHosts("db", 22, [file]).verify(KEY, "guest db")
    assert f"{file}:2" in refused.value.hint


def test_an_authority_is_not_a_key(tmp_path: Path) -> None:
    file = tmp_path / "known"
    file.write_text(f"@cert-authority * {LINE}\n")
    known = KnownHosts("db", 22, [file])
    assert known.kinds == ()
    with pytest.raises(RefusedError, match="certificate authority, which is not supported"):
        known.verify(KEY, "guest db")


def test_fingerprints_are_those_of_ssh_keygen(tmp_path: Path) -> None:
    import subprocess

    file = tmp_path / "key.pub"
    file.write_text(f"{LINE} x\n")
    shown = subprocess.run(["ssh-keygen", "-lf", str(file)], check=True, capture_output=True, text=True)
    assert shown.stdout.split()[1] == fingerprint(KEY)
