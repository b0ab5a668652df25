"""A kept guest with its files, and a console of a given width with its output."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from lab.image.build import Progress
from lab.ports import View
from lab.session import kept_guests

GUEST = kept_guests.KeptGuest(
    name="web-0", run="kept-1", domain="freezelab-kept-1-web-0", uuid="no-such-uuid", image="debian-1",
    memory_bytes=512 << 20, vcpus=1, resync="none", since="2026-11-20T10:00:00+00:00", host="127.0.0.1",
    port=40000, user="root", key="/keys/k", host_key="ssh-ed25519 AAAA web-0", known_hosts="", console="/c",
    sockets=(), accelerator="tcg",
)  # fmt: skip


def keep(home: Path, guest: kept_guests.KeptGuest = GUEST) -> kept_guests.KeptGuest:
    folder = home / "guests" / guest.run
    folder.mkdir(parents=True)
    made = replace(guest, known_hosts=str(folder / "known_hosts"), sockets=(str(home / "agents" / "a"),))
    kept_guests.write(home, made)
    return made


def no_view(_guests: Sequence[str]) -> AbstractContextManager[tuple[View, Progress]]:
    raise AssertionError("something is started")


def console_of(width: int = 80) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=width, force_terminal=True, color_system=None, _environ={}), out
