"""Host keys of known_hosts files, as sshd(8) describes them ("SSH_KNOWN_HOSTS FILE FORMAT").

A host is accepted only by a key of its own in one of the files: never because it is unknown, and never by a
certificate, which paramiko cannot verify.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import paramiko

from lab.errors import MachineError
from lab.guest.address import RefusedError

_AUTHORITY, _REVOKED = "@cert-authority", "@revoked"


@dataclass(frozen=True)
class KnownKey:
    """One line. marker: "" or "@revoked" and the like. at: FILE:LINE."""

    marker: str
    kind: str
    key: bytes
    at: str


class KnownHosts:
    """The lines of several files that are about one host. host: as in the files, see pattern(). files: those
    that are missing have no keys. MachineError when one cannot be read."""

    def __init__(self, host: str, port: int, files: Sequence[Path]) -> None:
        self.host, self.files = pattern(host, port), tuple(files)
        self._keys = [known for file in files for known in _lines(file, self.host)]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the keys that would be accepted: "ssh-ed25519", "ssh-rsa" …"""
        return tuple(dict.fromkeys(known.kind for known in self._keys if not known.marker))

    def verify(self, shown: paramiko.PKey, where: str) -> None:
        """RefusedError, with what to do, when the host is not known by this key. where: the guest."""
        data, kind = shown.asbytes(), shown.get_name()
        what = f"{kind} {fingerprint(shown)}"
        same = [known for known in self._keys if known.key == data]
        for known in same:
            if known.marker == _REVOKED:
                raise RefusedError(
                    f"{self.host} shows a revoked host key, {what}",
                    where=where,
                    hint=f"it is revoked in {known.at}; nothing was sent to it",
                )
        if any(not known.marker for known in same):
            return
        other = next((known for known in self._keys if not known.marker), None)
        if other is not None:
            raise RefusedError(
                f"{self.host} shows another host key than the known one: {what}",
                where=where,
                hint=f"the known one is in {other.at}; if the key was changed on purpose: ssh-keygen -R "
                f"'{self.host}' -f {other.at.rpartition(':')[0]}",
            )
        authority = next((known for known in self._keys if known.marker == _AUTHORITY), None)
        line = f"{self.host} {kind} {base64.b64encode(data).decode()}"
        trusted = "" if authority is None else f" ({authority.at} trusts a certificate authority, which is "
        trusted += "not supported)" if trusted else ""
        file = self.files[0] if self.files else Path("~/.ssh/known_hosts")
        raise RefusedError(
            f"the host key of {self.host} is not known: {what}{trusted}",
            where=where,
            hint=f"if it is its own (ssh-keygen -lf FILE.pub there): echo '{line}' >>{file}",
        )


def fingerprint(key: paramiko.PKey) -> str:
    """The key's fingerprint, as ssh-keygen -l prints it: "SHA256:…"."""
    digest = hashlib.sha256(key.asbytes()).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def pattern(host: str, port: int) -> str:
    """How known_hosts calls a host: "name", or "[name]:2222" for another port than 22."""
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def _lines(file: Path, host: str) -> Iterator[KnownKey]:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise MachineError(f"known hosts cannot be read: {error.strerror}", where=str(file)) from error
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#") or not _is_about(words[0], host):
            continue
        try:
            key = base64.b64decode(words[2], validate=True)
        except binascii.Error:
            continue  # as ssh(1), which ignores a line that is none
        yield KnownKey(marker, words[1], key, f"{file}:{number}")


def _is_about(patterns: str, host: str) -> bool:
    if patterns.startswith("|"):
        return _is_hash_of(patterns, host)
    named = False
    for each in patterns.lower().split(","):
        if fnmatchcase(host, _literal(each.removeprefix("!"))):
            if each.startswith("!"):
                return False
            named = True
    return named


def _literal(each: str) -> str:
    """A pattern in which only * and ? are special, as for fnmatch."""
    return each.replace("[", "[[]")


def _is_hash_of(hashed: str, host: str) -> bool:
    """Whether this is a host name hashed with a salt: |1|SALT|HMAC-SHA1 (ssh-keygen -H)."""
    try:
        _, kind, salt, digest = hashed.split("|")
        expected = hmac.new(base64.b64decode(salt), host.encode(), hashlib.sha1).digest()
        return kind == "1" and hmac.compare_digest(base64.b64decode(digest), expected)
    except (ValueError, binascii.Error):
        return False
