"""Taps for real, as root, in a network namespace that the test makes: nothing of the host's is touched."""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.errors import MachineError
from lab.host import taps
from lab.host.taps import Tap
from lab.process import runner

CLONE_NEWNET = 0x40000000
CAN = os.geteuid() == 0 and taps.DEVICE.exists()
needs_root = pytest.mark.skipif(not CAN, reason="needs root and /dev/net/tun")
NOBODY = 65534


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=20).stdout


def _enter(path: str) -> None:
    with Path(path).open("rb") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


@pytest.fixture
def namespace() -> Iterator[str]:
    """This thread, and what it starts, in a network namespace of its own with the bridge br0."""
    name = f"fl-test-{secrets.token_hex(4)}"
    ip("netns", "add", name)
    with Path("/proc/thread-self/ns/net").open("rb") as home:
        try:
            _enter(f"/run/netns/{name}")
            ip("link", "add", "br0", "type", "bridge")
            ip("link", "set", "br0", "up")
            yield name
        finally:
            ctypes.CDLL(None).setns(home.fileno(), CLONE_NEWNET)
            ip("netns", "delete", name)


def links() -> dict[str, dict[str, object]]:
    return {link["ifname"]: link for link in json.loads(ip("-details", "-json", "link", "show"))}


def test_names_are_short_and_differ() -> None:
    homes = [Path("/a"), Path("/b")]
    names = {taps.tap_name(home, f"run-{n}/web-0/{n}") for home in homes for n in range(5000)}
    assert len(names) == 10_000
    assert all(len(name) <= 15 and name.startswith("fl") for name in names)


@needs_root
def test_a_tap_is_on_the_bridge_and_up_and_gone_after(namespace: str, tmp_path: Path) -> None:
    before = set(links())
    with Tap.make("br0", "run-1/web-0/0", tmp_path) as tap:
        link = links()[tap.name]
        assert link["master"] == "br0"
        assert "UP" in link["flags"]  # type: ignore[operator]
        assert link["inet6_addr_gen_mode"] == "none"
        assert taps.leftovers(tmp_path) == [tap]
    assert set(links()) == before


@needs_root
def test_two_taps_of_one_guest_stand_side_by_side(namespace: str, tmp_path: Path) -> None:
    with Tap.make("br0", "run/web-0/0", tmp_path) as one, Tap.make("br0", "run/web-0/1", tmp_path) as other:
        assert one.name != other.name
        assert taps.leftovers(tmp_path) == [one, other]


@needs_root
def test_a_tap_is_removed_after_a_failure_too(namespace: str, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Tap.make("br0", "run/web-0", tmp_path):
        raise ZeroDivisionError
    assert taps.leftovers(tmp_path) == []


@needs_root
def test_one_that_is_gone_already_is_no_failure(namespace: str, tmp_path: Path) -> None:
    with Tap.make("br0", "run/web-0", tmp_path) as tap:
        ip("link", "delete", "dev", tap.name)


@needs_root
def test_the_same_one_twice_is_refused_and_the_first_left_alone(namespace: str, tmp_path: Path) -> None:
    with Tap.make("br0", "run/web-0", tmp_path) as tap:
        with pytest.raises(MachineError, match="busy") as caught, Tap.make("br0", "run/web-0", tmp_path):
            pass
        assert "recover" in caught.value.hint
        assert tap.name in links()


@needs_root
def test_what_a_killed_run_left_is_removed_and_nothing_else(namespace: str, tmp_path: Path) -> None:
    ours, others = tmp_path / "ours", tmp_path / "others"
    # Not closed: as after a kill -9.
    left = Tap.make("br0", "run/web-0", ours)
    tap = left.__enter__()
    ip("tuntap", "add", "dev", "flsomebody", "mode", "tap")
    ip("link", "add", "flbridge", "type", "bridge")
    ip("link", "set", "dev", "flbridge", "alias", f"{taps._mark(ours)}run/web-0")  # not even a tap
    with Tap.make("br0", "run/web-0", others) as foreign:
        assert taps.remove_all(ours) == [tap]
        assert {"flsomebody", "flbridge", foreign.name, "br0"} <= set(links())
        assert tap.name not in links()
        assert taps.remove_all(ours) == []
    left.__exit__(None, None, None)


@needs_root
def test_qemu_can_open_it(namespace: str, tmp_path: Path) -> None:
    """As libvirt has it do, and with the offloads that change the tap's flags."""
    with Tap.make("br0", "run/web-0", tmp_path) as tap:
        done = subprocess.run(
            [
                *("qemu-system-x86_64", "-machine", "none", "-display", "none", "-nodefaults"),
                *("-netdev", f"tap,id=n,ifname={tap.name},script=no,downscript=no,vnet_hdr=on"),
                *("-monitor", "stdio"),
            ],
            input="info network\nquit\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert f"ifname={tap.name}" in done.stdout
        assert tap.name in links()  # it is persistent


@needs_root
def test_a_bridge_that_is_not_there_is_named(namespace: str, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="no bridge 'br7'") as caught, Tap.make("br7", "x", tmp_path):
        pass
    assert "ip link add br7 type bridge" in caught.value.hint
    assert taps.leftovers(tmp_path) == []


@needs_root
def test_what_is_no_bridge_is_refused(namespace: str, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="'lo' is not a bridge"), Tap.make("lo", "x", tmp_path):
        pass


@needs_root
def test_a_tap_without_permission_is_refused_with_that_reason(namespace: str, tmp_path: Path) -> None:
    """As another user, in a process of its own."""
    attempt = (
        "import sys; sys.path[:0] = sys.argv[1].split(':')\n"
        "from pathlib import Path; from lab.errors import MachineError; from lab.host.taps import Tap\n"
        "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n"
        "    with Tap.make('br0', 'x', Path('/tmp/fl-x')): pass\n"
        "except MachineError as error: print(error)\n"
    )
    argv = [sys.executable, "-c", attempt, ":".join(filter(None, sys.path))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert "need root" in done.stdout


def test_a_tap_without_the_program_ip_is_refused_with_that_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(runner, "_SBIN", ())
    with pytest.raises(MachineError, match="no such program") as caught, Tap.make("br0", "x", tmp_path):
        pass
    assert "iproute2" in caught.value.hint
    assert taps.leftovers(tmp_path) == []


def test_a_tap_without_dev_net_tun_is_refused_with_that_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(taps, "DEVICE", tmp_path / "tun")
    with pytest.raises(MachineError, match="no tap can be created") as caught, Tap.make("br0", "x", tmp_path):
        pass
    assert caught.value.hint == "modprobe tun"
