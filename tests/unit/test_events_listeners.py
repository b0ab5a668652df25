"""The addresses, sets and metadata that `freezelab events serve` is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.core.scheduled.instance import find, metadata
from lab.errors import UsageError
from lab.session.kept_guests import KeptGuest
from lab.session.listeners import Wanted, instances_of, listeners_of


@pytest.mark.parametrize(
    ("listen", "wanted", "said"),
    [
        (["8169"], Wanted(), "not an address"),
        (["127.0.0.1:port"], Wanted(), "not an address"),
        (["127.0.0.1:99999"], Wanted(), "not an address"),
        ([":80"], Wanted(), "not an address"),
        (["127.0.0.1:80=../x"], Wanted(), "not a name for a guest"),
        (["127.0.0.1:80"], Wanted(["web"]), "invalid"),
        (["127.0.0.1:80"], Wanted(["web="]), "invalid"),
        (["127.0.0.1:80"], Wanted(["=web-0"]), "not a name"),
        (["127.0.0.1:80"], Wanted(["a=web-0", "b=web-0"]), "in two sets"),
        (["127.0.0.1:80"], Wanted(["a=web-0"], ["b=web-0"]), "in two sets"),
        (["127.0.0.1:80"], Wanted(["a=web-0"], ["a=web-1"]), "two sets named a"),
        (["127.0.0.1:80"], Wanted(names=["web-0"]), "invalid"),
        (["127.0.0.1:80"], Wanted(names=["web-0=_x"]), "invalid"),
        (["127.0.0.1:80"], Wanted(names=["web-1=x"]), "no guest 'web-1'"),
        (["127.0.0.1:80"], Wanted(scale_sets=["a=web-0"], names=["web-0=x"]), "in a scale set"),
        (["127.0.0.1:80", "127.0.0.1:81"], Wanted(names=["web-0=web-1"]), "two guests are named web-1"),
        (["127.0.0.1:80"], Wanted(instance=["compute/zone"]), "invalid"),
        (["127.0.0.1:80"], Wanted(instance=["compute/zone/x=1"]), "no such field"),
        (["127.0.0.1:80"], Wanted(instance=["compute/name=x"]), "by compute_name"),
    ],
)
def test_doors_and_sets_that_make_no_sense(listen: Sequence[str], wanted: Wanted, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        instances_of([guest for *_, guest in listeners_of(listen)], [], wanted)


def test_doors_and_sets() -> None:
    doors = listeners_of(["127.0.0.1:1", "[::1]:2=web-1", "127.0.0.1:3", "10.0.0.1:4=web-1"])
    assert doors == [
        ("127.0.0.1", 1, "web-0"),
        ("::1", 2, "web-1"),
        ("127.0.0.1", 3, "web-2"),
        ("10.0.0.1", 4, "web-1"),
    ]
    wanted = Wanted(["web=web-1,x"], ["vm=a,b"], ["x=prod_x"], ["compute/zone=1", "compute/tags/a=b=c"])
    instances = instances_of([guest for *_, guest in doors], [], wanted)
    assert [(one.guest, one.name, one.availability_set, one.scale_set) for one in instances] == [
        ("web-0", "web-0", "", False),
        ("web-1", "web-1", "web", False),
        ("web-2", "web-2", "", False),
        ("x", "prod_x", "web", False),
        ("a", "vm_0", "vm", True),
        ("b", "vm_1", "vm", True),
    ]
    given = (("compute", "zone"), "1"), (("compute", "tags", "a"), "b=c")
    assert {one.given for one in instances if not one.scale_set} == {given}
    where = ["compute", "osProfile", "computerName"]
    hosts = [find(metadata(one), where) for one in instances]
    assert hosts == ["web-0", "web-1", "web-2", "x", "vm000000", "vm000001"]
    [own, _] = instances_of([], [], Wanted(scale_sets=["vm=a,b"], instance=["/".join(where) + "=mine"]))
    assert find(metadata(own), where) == "mine"
    assert len({one.address for one in instances}) == len({one.mac for one in instances}) == len(instances)


def kept_guest(folder: Path, **more: str) -> KeptGuest:
    return KeptGuest(
        name="web-0", run="r", domain="d", uuid="u", image="i", memory_bytes=512 << 20, vcpus=2,
        resync="none", since="", host="127.0.0.1", port=22, user="root", key=str(folder / "key"),
        host_key="", known_hosts="", console="", sockets=(), accelerator="tcg", **more,
    )  # fmt: skip


def test_a_kept_guest_is_told_of_its_own_machine(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAA freezelab\n")
    guest = kept_guest(tmp_path, machine_uuid="5c08b38e-4d57-4c23-ac45-aca61037f084", mac="52:54:00:01:02:03")
    (about,) = instances_of([], [guest], Wanted(["web=web-0"]))
    assert (about.vm_id, about.mac) == (guest.machine_uuid, guest.mac)
    assert (about.address, about.prefix, about.size) == ("10.0.2.15", 24, "lab_2vcpu_512mib")
    assert (about.public_key, about.availability_set) == ("ssh-ed25519 AAAA freezelab", "web")
    with pytest.raises(UsageError, match="started by an older freezelab"):
        instances_of([], [kept_guest(tmp_path)], Wanted())
