"""The lock of the lab host's kernel, and what `freezelab recover` makes of its text without a lab host."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import Refused
from lab.session import kept_guests
from lab.session.host_kernel_left import LOCK, alone, remove_left
from lab.session.kept_guests import KeptGuest


@pytest.fixture
def lab_host(tmp_path: Path) -> KeptGuest:
    """A lab host whose domain is gone."""
    guest = KeptGuest(
        name="labhost",
        run="20261130-000000-labhost",
        domain="freezelab-20261130-000000-labhost",
        uuid="5a5e3b5e-0000-4000-8000-000000000001",
        image="labhost-0",
        memory_bytes=3 << 30,
        vcpus=2,
        resync="none",
        since="2026-11-30T00:00:00+00:00",
        host="127.0.0.1",
        port=1,
        user="root",
        key=str(tmp_path / "key"),
        host_key="ssh-ed25519 AAAA",
        known_hosts=str(tmp_path / "known_hosts"),
        console="",
        sockets=("", "", "", "", ""),
        accelerator="tcg",
    )
    kept_guests.write(tmp_path, guest)
    return guest


def test_a_run_notes_that_it_has_a_guest_until_it_has_none(tmp_path: Path, lab_host: KeptGuest) -> None:
    with alone(tmp_path) as lock:
        assert lock.left() is None
        lock.note("run-1", lab_host)
        assert lock.left() == ("run-1", lab_host.uuid)
        with pytest.raises(Refused, match="another run replaces its kernel"), alone(tmp_path):
            pass
        assert list(remove_left(tmp_path)) == []  # its run is alive
        assert lock.left() == ("run-1", lab_host.uuid)
    with alone(tmp_path) as lock:  # the run was killed, and the next one begins
        assert lock.left() == ("run-1", lab_host.uuid)
        lock.note("run-2", lab_host)
        assert lock.left() == ("run-2", lab_host.uuid)
        lock.clear()
        assert lock.left() is None
    assert (tmp_path / LOCK).read_bytes() == b""


def test_nothing_is_left_without_a_run_of_this_kind(tmp_path: Path) -> None:
    assert list(remove_left(tmp_path)) == []
    assert not (tmp_path / LOCK).exists()


def test_what_was_left_goes_with_its_lab_host(tmp_path: Path, lab_host: KeptGuest) -> None:
    with alone(tmp_path) as lock:
        lock.note("run-1", lab_host)
    assert list(remove_left(tmp_path)) == []  # it has ended
    assert (tmp_path / LOCK).read_bytes() == b""
