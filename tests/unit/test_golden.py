"""Golden states: what decides who may begin with one, that each is whole or not at all, and who is told."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.core.plan import RtcTrack
from lab.errors import GuestError, ImageError
from lab.guest.identity import CloneClient, Identity
from lab.hypervisor.domain import Accelerator, Console, Disk, DomainSpec, FwCfg, render
from lab.hypervisor.golden import shape
from lab.image.golden import STRIKES, Golden, GoldenStore, compact_ram, key
from lab.image.seed import contents, make_seed
from lab.image.store import Image
from lab.process.clock import HostClock

PAGE = 4096
SPEC = DomainSpec(
    guest="web-0",
    run="run-1",
    home=Path("/home/one"),
    memory_bytes=512 << 20,
    vcpus=1,
    accelerator=Accelerator.TCG,
    emulator=Path("/usr/bin/qemu-system-x86_64"),
    machine="pc-q35-7.2",
    kernel=Path("/images/vmlinuz"),
    initrd=Path("/images/initrd"),
    cmdline="root=/dev/vda",
    console_log=Path("/runs/1/web-0.log"),
    disk=Disk(Path("/runs/1/web-0.qcow2")),
    ssh_port=22022,
    fw_cfg=(FwCfg("opt/freezelab/seed", Path("/runs/1/web-0.seed")),),
    agent_socket=Path("/a"),
    probe_socket=Path("/p"),
)
OWN: tuple[dict[str, Any], ...] = (
    {"guest": "db-1", "run": "run-2", "home": Path("/home/two"), "kept_guest": True, "ssh_port": 5},
    {"uuid": "3b8e96f6-5279-4459-ac9b-0d1ff4938347", "mac": "52:54:00:00:00:07"},
    {
        "console_log": Path("/x"),
        "disk": Disk(Path("/y")),
        "fw_cfg": (FwCfg("opt/freezelab/seed", Path("/z")),),
    },
    {
        "agent_socket": Path("/b"),
        "probe_socket": Path("/q"),
        "ssh_port": None,
        "tap": "t0",
        "other_tap": "t1",
    },
    {"memory_file": Path("/ram")},
    {"memory_base": Path("/ram"), "incoming": True},
)
SHARED: tuple[dict[str, Any], ...] = (
    {"memory_bytes": 1 << 30}, {"vcpus": 2}, {"machine": "pc-q35-10.0"}, {"cpu": "Opteron_G3"},
    {"cmdline": "root=/dev/vda quiet"}, {"kernel": Path("/other")}, {"initrd": None}, {"disk": None},
    {"emulator": Path("/opt/qemu")}, {"accelerator": Accelerator.KVM}, {"console": Console.VIRTIO},
    {"rtc_track": RtcTrack.GUEST}, {"probe_socket": None}, {"guest_sleep": True},
    {"fw_cfg": (FwCfg("opt/freezelab/other", Path("/z")),)}, {"disk": Disk(Path("/y"), cache="none")},
)  # fmt: skip


def given_to_qemu(spec: DomainSpec) -> list[str]:
    root = ET.fromstring(render(spec))  # noqa: S314 - our own
    return [each.attrib["value"] for each in root.iterfind("{*}commandline/{*}arg")]


@pytest.mark.parametrize("change", OWN)
def test_what_is_a_guests_own_decides_nothing(change: dict[str, Any]) -> None:
    assert shape(dataclasses.replace(SPEC, **change)) == shape(SPEC)


@pytest.mark.parametrize("change", SHARED)
def test_what_a_state_has_to_find_again_decides(change: dict[str, Any]) -> None:
    assert shape(dataclasses.replace(SPEC, **change)) != shape(SPEC)


def test_a_guest_that_begins_with_a_state_maps_its_ram_privately_and_has_its_port_at_once() -> None:
    spec = dataclasses.replace(SPEC, memory_base=Path("/golden/ram"), incoming=True)
    arguments = given_to_qemu(spec)
    size = SPEC.memory_bytes
    assert f"memory-backend-file,id=labram,size={size},mem-path=/golden/ram,share=off" in arguments
    assert "memory-backend=labram" in arguments
    assert arguments[-2:] == ["-incoming", "defer"]
    assert any("hostfwd=tcp:127.0.0.1:22022-:22" in each for each in arguments)
    again = given_to_qemu(spec.again(SPEC.emulator))
    assert not any("labram" in each or each == "-incoming" for each in again)


# -- the store ---------------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path: Path) -> Image:
    folder = tmp_path / "images" / "debian-0123456789ab"
    folder.mkdir(parents=True)
    for name in ("disk.img", "vmlinuz", "initrd"):
        (folder / name).write_bytes(bytes(1 << 20))
    disk, kernel, initrd = (folder / name for name in ("disk.img", "vmlinuz", "initrd"))
    return Image("debian", "0123456789ab" * 5, folder, disk, "raw", kernel, initrd, "root=/dev/vda", {})


@pytest.fixture
def store(tmp_path: Path) -> GoldenStore:
    return GoldenStore(tmp_path)


def facts(image: Image, **more: Any) -> dict[str, Any]:
    return {"image": image.digest, "emulator": "/qemu", "shape": "s", "qemu": "7.2", **more}


def fill(folder: Path) -> tuple[bytes, Mapping[str, Any]]:
    with (folder / "ram").open("wb") as ram:
        ram.truncate(64 * PAGE)
        ram.seek(5 * PAGE)
        ram.write(b"x" * PAGE)
    (folder / "disk.qcow2").write_bytes(b"disk")
    return b"state", {"probe_path": "/proc/1/fd/2"}


def hidden(store: GoldenStore) -> list[str]:
    return [path.name for path in store.folder.iterdir() if path.name.startswith(".make-")]


def test_a_golden_state_is_made_once_and_found_again(store: GoldenStore, image: Image) -> None:
    assert store.find(image, facts(image)) is None
    made = store.make(image, facts(image), fill)
    assert store.find(image, facts(image)) == made
    assert store.make(image, facts(image), lambda _folder: pytest.fail("made again")) == made
    assert made.state() == b"state"
    assert made.report == {"probe_path": "/proc/1/fd/2"}
    assert made.folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in made.folder.iterdir())
    assert store.folder.stat().st_mode & 0o077 == 0
    assert not hidden(store)
    assert store.find(image, facts(image, qemu="10.0")) is None


@pytest.mark.parametrize("error", [GuestError("it did not boot"), KeyboardInterrupt(), OSError(5, "I/O")])
def test_a_golden_state_that_could_not_be_made_leaves_nothing(
    store: GoldenStore, image: Image, error: BaseException
) -> None:
    def fail(folder: Path) -> tuple[bytes, Mapping[str, Any]]:
        fill(folder)
        raise error

    with pytest.raises((GuestError, KeyboardInterrupt, ImageError)):
        store.make(image, facts(image), fail)
    assert store.listing() == []
    assert not hidden(store)


def test_what_a_killed_maker_left_is_swept_by_the_next(store: GoldenStore, image: Image) -> None:
    made = store.make(image, facts(image), fill)
    (store.folder / f".make-{made.label}+dead").mkdir()
    store.remove(made.folder)
    store.make(image, facts(image), fill)
    assert not hidden(store)


def test_two_makers_make_one(store: GoldenStore, image: Image) -> None:
    began = threading.Event()
    count: list[Path] = []
    waited: list[int] = []

    def slow(folder: Path) -> tuple[bytes, Mapping[str, Any]]:
        count.append(folder)
        began.set()
        while not waited:
            threading.Event().wait(0.01)
        return fill(folder)

    first = threading.Thread(target=store.make, args=(image, facts(image), slow))
    first.start()
    began.wait(10)
    other = GoldenStore(store.folder.parent).make(image, facts(image), slow, lambda: waited.append(1))
    first.join(10)
    assert len(count) == 1
    assert store.find(image, facts(image)) == other


@pytest.mark.parametrize(
    ("name", "size"), [("ram", 63 * PAGE), ("state", 4), ("disk.qcow2", 3), ("golden.json", 9)]
)
def test_one_that_was_cut_off_is_not_used(store: GoldenStore, image: Image, name: str, size: int) -> None:
    made = store.make(image, facts(image), fill)
    os.truncate(made.folder / name, size)
    assert store.find(image, facts(image)) is None
    assert not made.folder.exists()


def test_making_a_golden_state_removes_those_of_earlier_versions_of_image_and_emulator(
    store: GoldenStore, image: Image
) -> None:
    earlier = dataclasses.replace(image, digest="f" * 60)
    other = dataclasses.replace(image, name="debian-13", digest="e" * 60)
    old = store.make(earlier, facts(earlier), fill)
    larger = store.make(image, facts(image, shape="larger"), fill)
    before = store.make(image, facts(image, qemu="7.1"), fill)
    foreign = store.make(other, facts(other), fill)
    now = store.make(image, facts(image), fill)
    assert {golden.label for golden in store.listing()} == {larger.label, foreign.label, now.label}
    assert not old.folder.exists() and not before.folder.exists()
    assert store.remove_of(image.digest) == sorted([larger.label, now.label])


def test_a_single_failed_start_does_not_discard_a_golden_state(store: GoldenStore, image: Image) -> None:
    """D7: a busy host is no reason to make it anew for all."""
    made = store.make(image, facts(image), fill)
    for _ in range(STRIKES - 1):
        assert not store.failed(made, refused=False)
    store.served(made)  # another guest began with it
    for _ in range(STRIKES - 1):
        assert not store.failed(made, refused=False)
    assert store.find(image, facts(image)) == made
    assert store.failed(made, refused=False)
    assert store.find(image, facts(image)) is None


def test_what_qemu_refuses_is_no_good_for_anybody(store: GoldenStore, image: Image) -> None:
    made = store.make(image, facts(image), fill)
    assert store.failed(made, refused=True)
    assert not made.folder.exists()


def test_one_that_guests_run_from_is_not_taken_away(store: GoldenStore, image: Image) -> None:
    """Their disks are over its disk, which another QEMU process may have to open by its name."""
    made = store.make(image, facts(image), fill)
    with GoldenStore(store.folder.parent).in_use(made):
        assert not store.failed(made, refused=True)
        assert not store.remove(made.folder)
        assert store.remove_of(image.digest) == []
        assert store.find(image, facts(image)) == made
    assert store.remove_of(image.digest) == [made.label]


def test_the_overlay_is_over_the_golden_disk(store: GoldenStore, image: Image, tmp_path: Path) -> None:
    made = store.make(image, facts(image), fill)
    path = made.overlay(tmp_path / "disk.qcow2")
    assert str(made.folder / "disk.qcow2").encode() in path.read_bytes()[:PAGE]


@settings(max_examples=30)
@given(st.lists(st.sampled_from([None, 0, 7]), min_size=1, max_size=600), st.booleans())
def test_ram_is_the_same_and_no_larger(pages: list[int | None], tail: bool) -> None:
    """None: a hole, 0: a page of zeros that is there, 7: one that is not zero."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/dev/shm" if tail else None) as folder:
        source, kept, copy = (Path(folder) / name for name in ("source", "kept", "copy"))
        with source.open("wb") as file:
            file.truncate(len(pages) * PAGE)
            for index, byte in enumerate(pages):
                if byte is not None:
                    file.seek(index * PAGE)
                    file.write(bytes([byte]) * PAGE)
        compact_ram(source, kept)
        kept.rename(Path(folder) / "ram")
        Golden(Path(folder), "", len(pages) * PAGE, 0, "", {}, {}).copy_ram(copy)
        assert copy.read_bytes() == source.read_bytes()
        if tail:  # tmpfs tells by the page
            assert copy.stat().st_blocks * 512 == PAGE * sum(byte == 7 for byte in pages)


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3)),
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3)),
)
def test_the_key_is_the_facts(one: dict[str, int], other: dict[str, int]) -> None:
    assert (key(one) == key(other)) == (one == other)


# -- who is told -------------------------------------------------------------------------------------


def test_a_seed_is_read_back() -> None:
    seed = make_seed(
        name="web-0", host_key=b"secret", host_key_public="ssh-ed25519 AAAA", authorized_keys=["k"]
    )
    files = contents(seed)
    assert files["/etc/hostname"].content == b"web-0\n"
    assert files["/etc/ssh/ssh_host_ed25519_key"].content == b"secret"
    assert files["/etc/ssh/ssh_host_ed25519_key"].mode == 0o600


def test_no_two_identities_share_what_has_to_be_new() -> None:
    one, other = (Identity("a", "u", "", "", {}) for _ in range(2))
    assert one.boot_id != other.boot_id
    assert one.random != other.random
    assert "random" not in repr(one)


class Guest(threading.Thread):
    """The other end of a channel: answers each line by `said`, in which None is silence."""

    def __init__(self, path: Path, said: dict[bytes, bytes | None]) -> None:
        super().__init__(daemon=True)
        self.heard: list[bytes] = []
        self._said = said
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(1)
        self.start()

    def run(self) -> None:
        peer, _ = self._socket.accept()
        for line in peer.makefile("rb"):
            self.heard.append(line)
            if (answer := self._said[line.split()[1]]) is not None:
                peer.sendall(answer)


GOOD: dict[bytes, bytes | None] = {b"time": b"G time 5\n", b"be": b'G is {"mac": "m"}\n'}


def orders(path: Path, within_ns: int = 10**10) -> CloneClient:
    clock = HostClock()
    return CloneClient("web-0", path, clock, clock.now().raw_ns + within_ns, lambda: None)


def test_the_clock_is_set_before_and_after_and_the_order_is_one_line(tmp_path: Path) -> None:
    guest = Guest(tmp_path / "s", GOOD)
    with orders(tmp_path / "s") as report:
        became = report.personalise(Identity("web-0", "u", "10.0.2.15/24", "", {"/etc/x": (b"\n\0", 0o444)}))
    assert became.mac == "m"
    assert 0 < became.clock_ns < 10**10
    assert [line.split()[:2] for line in guest.heard] == [[b"g", b"time"], [b"g", b"be"], [b"g", b"time"]]
    order = json.loads(guest.heard[1].split(b" ", 2)[2])
    assert order["files"] == {"/etc/x": [0o444, "CgA="]}
    assert order["network"] == {"address": "10.0.2.15/24", "gateway": ""}


@pytest.mark.parametrize(
    ("answer", "why"), [(b"E no such card\n", "no such card"), (None, "does not answer")]
)
def test_a_guest_that_cannot_says_why(tmp_path: Path, answer: bytes | None, why: str) -> None:
    Guest(tmp_path / "s", {**GOOD, b"be": answer})
    with orders(tmp_path / "s", 10**9) as report, pytest.raises(GuestError, match=why):
        report.personalise(Identity("web-0", "u", "", "", {}))
