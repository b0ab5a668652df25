"""The bridge of the lab's own network without guests: a real one, with sockets where QEMU would be."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.core.network import HOST, AddressMove, MoveCause
from lab.errors import MachineError
from lab.host.network.lab_network import LabNetwork
from lab.host.network.moves import AddressMoves, cause_of, raw_ns
from tests.unit.network_bench import EVERYBODY, MACS, Bench, Qemu, settle, short_folder

IPS = {"a": "10.77.0.10", "b": "10.77.0.11"}
VIP = "10.77.0.100"


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


@contextmanager
def started(folder: Path, *, bridge: bool) -> Iterator[Bench]:
    made = Bench(folder, bridge=bridge)
    try:
        made.network.start()
    except MachineError as error:
        pytest.skip(str(error))
    try:
        if made.network.no_host:
            pytest.skip(made.network.no_host)
        yield made
    finally:
        made.network.close()


@pytest.fixture
def bench(folder: Path) -> Iterator[Bench]:
    with started(folder, bridge=True) as made:
        yield made


def arp(mac: bytes, sender: str, target: str, operation: int = 1) -> bytes:
    """An ARP packet, without the frame's addresses."""
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return b"\x08\x06" + head + mac + socket.inet_aton(sender) + EVERYBODY + socket.inet_aton(target)


def rarp(mac: bytes) -> bytes:
    """QEMU's announcement (net/announce.c)."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 3) + (mac + bytes(4)) * 2
    return b"\x80\x35" + body + bytes(18)


def moves_of(network: LabNetwork, count: int) -> list[AddressMove]:
    """That many moves, within 5 s."""
    found: list[AddressMove] = []
    end = time.monotonic() + 5
    while len(found) < count and time.monotonic() < end:
        found += network.moves()
        time.sleep(0.01)
    return found


def ask_from_the_host(bench: Bench, ip: str, of: Qemu, mac: bytes) -> None:
    """The host sends a packet to an address, and `of` says where it is."""
    ask = f"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ({ip!r}, 9))"
    subprocess.run(bench.network.command([sys.executable, "-c", ask]), check=True)
    while (content := of.receive())[:2] != b"\x08\x06" or content[26:30] != socket.inet_aton(ip):
        pass
    of.send(content[10:16], arp(mac, ip, "10.77.0.1", 2))
    while of.receive()[24:26] != struct.pack("!H", 9):  # UDP's port 9
        pass


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (rarp(MACS["b"]), MoveCause.ANNOUNCEMENT),
        (arp(MACS["b"], IPS["b"], IPS["b"]), MoveCause.GRATUITOUS_ARP),
        (arp(MACS["b"], IPS["b"], IPS["a"]), MoveCause.ARP),
        (b"\x88\xb5" + bytes(60), MoveCause.TRAFFIC),
    ],
    ids=["announcement", "gratuitous-arp", "arp", "traffic"],
)
def test_a_guest_in_another_process_is_found_on_another_port(
    bench: Bench, content: bytes, cause: MoveCause
) -> None:
    a, old = bench.qemu("a"), bench.qemu("b")
    settle(bench, (a, old))
    assert bench.network.moves() == []
    new = bench.qemu("b", bench.folder / "q1.next")
    bench.network.thaw("b", new.path)
    a.send(MACS["b"], b"before")
    assert old.receive() == b"before"  # the bridge does not know yet
    began = raw_ns()
    new.send(EVERYBODY, content)
    assert a.receive() == content
    (move,) = moves_of(bench.network, 1)
    assert (move.address, move.before, move.after) == ("52:54:01:4d:00:0b", "b port 1", "b port 2")
    assert move.cause is cause
    assert move.sent_raw_ns is not None
    assert began <= move.sent_raw_ns <= move.at_raw_ns <= raw_ns()
    a.send(MACS["b"], b"after")
    while (got := new.receive()) != b"after":
        assert got != b"before"


def test_frames_that_wait_for_a_process_that_ends_are_lost(bench: Bench) -> None:
    a, old = bench.qemu("a"), bench.qemu("b")
    settle(bench, (a, old))
    for number in range(300):  # more than a socket's queue
        a.send(MACS["b"], b"%04d" % number)
    time.sleep(0.2)
    new = bench.qemu("b", bench.folder / "q1.next")
    new.send(EVERYBODY, rarp(MACS["b"]))
    assert len(moves_of(bench.network, 1)) == 1
    old.socket.close()
    a.send(EVERYBODY, b"hello")
    assert new.receive() == b"hello"
    assert new.nothing_within(0.2)
    counts = bench.network.counts()["b"]
    assert 200 < counts.absent <= 300


def test_a_frozen_guest_gets_what_its_tap_held(bench: Bench) -> None:
    a, b = bench.qemu("a"), bench.qemu("b")
    settle(bench, (a, b))
    for number in range(1500):
        a.send(MACS["b"], b"%04d" % number)
        if number % 50 == 0:
            time.sleep(0.005)
    time.sleep(0.3)
    assert 400 <= bench.network.counts()["b"].overflowed <= 510  # a tap holds 1000
    assert [b.receive() for _ in range(990)] == [b"%04d" % number for number in range(990)]


@pytest.mark.parametrize("bridge", [True, False], ids=["bridge", "switch"])
def test_an_ip_address_that_another_guest_takes(folder: Path, bridge: bool) -> None:
    with started(folder, bridge=bridge) as bench:
        a, b = bench.qemu("a"), bench.qemu("b")
        settle(bench, (a, b))
        ask_from_the_host(bench, VIP, a, MACS["a"])
        assert bench.network.moves() == []
        b.send(EVERYBODY, arp(MACS["b"], VIP, VIP))
        (move,) = moves_of(bench.network, 1)
        assert (move.address, move.before, move.after) == (VIP, "52:54:01:4d:00:0a", "52:54:01:4d:00:0b")
        assert move.cause is MoveCause.GRATUITOUS_ARP
        assert move.sent_raw_ns is not None and move.sent_raw_ns <= move.at_raw_ns
        assert bench.network.counts()[HOST].sent > 0


def test_a_guest_that_invents_addresses_and_one_that_lies(bench: Bench) -> None:
    a, b = bench.qemu("a"), bench.qemu("b")
    settle(bench, (a, b))
    for number in range(300):
        a.mac = b"\x02\x00" + struct.pack("!I", number)
        a.send(EVERYBODY, b"\x88\xb5flood")
        assert b.receive() == b"\x88\xb5flood"
    assert bench.network.moves() == []
    a.mac = MACS["b"]
    a.send(EVERYBODY, b"\x88\xb5lie")
    (move,) = moves_of(bench.network, 1)
    assert (move.before, move.after, move.cause) == ("b port 1", "a port 1", MoveCause.TRAFFIC)


def test_short_frames_are_no_addresses() -> None:
    moves = AddressMoves()
    try:
        for length in range(60):
            frame = (EVERYBODY + MACS["a"] + b"\x08\x06" + bytes(60))[:length]
            moves.sent(frame, 1)
            cause_of(frame)
        moves.read()
        assert moves.take(9) == []
    finally:
        moves.close()


def test_where_no_namespace_is_allowed_there_is_no_bridge_and_plan_says_so(folder: Path) -> None:
    program = """
        import sys
        from pathlib import Path
        from lab.errors import MachineError
        from lab.playbook import parse
        from lab.session.plan_checks import obstacles
        from tests.unit.network_bench import Bench
        network = Bench(Path(sys.argv[1]), bridge=True).network
        try:
            network.start()
        except MachineError as error:
            print(error.what, error.hint, network.pid)
        missing = obstacles(parse(sys.argv[2].encode(), "p.yaml"))
        print(sum("has no bridge" in str(one) for one in missing))
    """
    text = "{name: a, resync: agent, cycle: {patch: {hold: 5s}}, network: {kind: lab, bridge: true}}"
    as_root = ["unshare", "--user", "--map-root-user", "/bin/sh", "-c"]
    if subprocess.run([*as_root, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    limited = 'echo 0 >/proc/sys/user/max_net_namespaces && exec "$0" -c "$@"'
    command = [*as_root, limited, sys.executable, textwrap.dedent(program), str(folder), text]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    said, found = done.stdout.splitlines()
    assert said.startswith("the lab's network has no bridge: unshare: No space left on device it")
    assert said.endswith("/dev/net/tun None")
    assert found == "1"
