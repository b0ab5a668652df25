"""A guest's seed: its keys, and the file that brings its identity into it."""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from lab.core.plan import GuestSpec
from lab.hypervisor.domain import FwCfg
from lab.image.identity import make_key
from lab.image.nocloud import make_iso
from lab.image.seed import FW_CFG_NAME, Network, SeedFile, contents, make_seed
from lab.image.store import Image
from lab.session import paths

_OF_ANY = (
    "/etc/hostname",
    "/etc/machine-id",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssh/ssh_host_ed25519_key.pub",
)

_FOR_NTP = (
    "usr/lib/freezelab/ntp-port",
    "etc/systemd/system/systemd-timesyncd.service.d/freezelab.conf",
    "etc/systemd/system/ntpsec.service.d/freezelab.conf",
)
"""What the shipped image has for programs that ask port 123 only (images/debian/README.md)."""


@dataclass(frozen=True)
class GuestSeed:
    """One guest's identity. file: what the guest boots with, which holds its host key. host_key: the line of
    its public host key. files: what a copy of a booted guest gets to become this one. mac: "" for any."""

    file: Path
    network: Network
    host_key: str
    files: dict[str, SeedFile]
    mac: str
    is_disk: bool

    @property
    def fw_cfg(self) -> tuple[FwCfg, ...]:
        return () if self.is_disk else (FwCfg(FW_CFG_NAME, self.file),)

    @property
    def disk(self) -> Path | None:
        return self.file if self.is_disk else None


def write_seed(spec: GuestSpec, image: Image, key: str, folder: Path, *, for_others: bool) -> GuestSeed:
    """Make the seed of a guest in `folder`. key: the public line of who logs in. for_others: QEMU runs as
    another user."""
    private, public = make_key(spec.name)
    network = Network(spec.address, None, None) if spec.bridge else Network()
    tar = make_seed(
        name=spec.name, host_key=private, host_key_public=public, authorized_keys=[key], network=network
    )
    files, mac, content = contents(tar), "", tar
    if image.imported:
        files = {path: files[path] for path in _OF_ANY}
        mac = _mac(image, alone=not spec.bridge)
        content = make_iso(
            name=spec.name,
            host_key=private,
            host_key_public=public,
            authorized_keys=[key],
            network=network,
            mac=mac,
            user=image.user,
            files={f"/{path}": _file(path) for path in _FOR_NTP},
        )
    file = folder / ("seed.iso" if image.imported else "seed.tar")
    file.touch(0o644 if for_others else 0o600)
    file.write_bytes(content)
    return GuestSeed(file, network, public, files, mac, image.imported)


def _file(path: str) -> SeedFile:
    source = paths.RECIPES / "debian" / "files" / path
    return SeedFile(source.read_bytes(), 0o755 if os.access(source, os.X_OK) else 0o644)


def _mac(image: Image, *, alone: bool) -> str:
    """The MAC address by which a guest of an imported image recognises its card, for good. Guests that are
    alone in their networks all have the same: a copy of a booted one finds its own card again."""
    last = hashlib.sha256(image.digest.encode()).hexdigest() if alone else secrets.token_hex(3)
    return f"52:54:00:{last[0:2]}:{last[2:4]}:{last[4:6]}"
