"""The lab's own network with real guests: they and the host see each other, and TCP connections live through
every freeze."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.controller import Controller, CycleGuest
from lab.core.network import (
    HOST,
    UNLIMITED,
    MoveCause,
    NetworkLimits,
    NetworkPlace,
    NetworkSpec,
    guest_address,
)
from lab.core.plan import CycleSpec, FreezeMethod, GuestSpec, HoldPatch, ResyncMechanism
from lab.core.units import NS_PER_S
from lab.guest.ssh import SSH
from lab.host import patches
from lab.host.network import LabNetwork
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.ports import NullView
from lab.process.clock import HostClock
from lab.record.journal import NullJournal
from lab.session.guests import Guests
from tests.guest.conftest import no_shield
from tests.guest.without_a_run import settings_for
from tests.regimes import slow_host

HOLD_S = 2.0

ECHO = """
import socket, threading
def serve(one):
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := one.recv(9999):
        one.sendall(data)
served = socket.create_server(("", 7), backlog=9)
while True:
    threading.Thread(target=serve, args=(served.accept()[0],), daemon=True).start()
"""

CLIENT = """
import json, os, socket, sys, threading, time
host, stop = sys.argv[1:]
connection = socket.create_connection((host, 7), 10)
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
connection.settimeout(60)
print("connected", flush=True)
sent, longest = 0, 0.0
def send():
    global sent
    while not os.path.exists(stop):
        connection.sendall(b"%08d" % sent)
        sent += 1
        time.sleep(0.02)
    connection.shutdown(socket.SHUT_WR)
threading.Thread(target=send, daemon=True).start()
data, last = b"", time.monotonic()
while part := connection.recv(9999):
    now = time.monotonic()
    longest, last, data = max(longest, now - last), now, data + part
right = data == b"".join(b"%08d" % number for number in range(sent))
print(json.dumps({"sent": sent, "right": right, "longest_s": longest}), flush=True)
"""


@dataclass
class Pair:
    """Two running guests in a network, called by two letters."""

    hypervisor: LibvirtHypervisor
    guests: Guests
    subjects: dict[str, CycleGuest]
    clock: HostClock
    names: str

    @property
    def network(self) -> LabNetwork:
        assert self.guests.network is not None
        return self.guests.network

    def ssh(self, name: str) -> SSH:
        return self.guests.probes[name].ssh

    def freeze(self, name: str, method: FreezeMethod) -> None:
        """A cycle of one guest, by the controller."""
        hold = HoldPatch(round(HOLD_S * NS_PER_S))
        cycle = CycleSpec(method, hold, settle_ns=0, before_ns=NS_PER_S, watch_ns=2 * NS_PER_S)
        controller = Controller(self.clock, self.hypervisor, NullJournal(), NullView(), no_shield)
        controller.run_cycle(
            0, {name: self.subjects[name]}, cycle, patches.make(hold, self.clock), frozen=True
        )


@contextmanager
def pair_of(home: Path, names: str, limits: NetworkLimits = UNLIMITED, **settings: Any) -> Iterator[Pair]:
    clock = HostClock()
    specs = [GuestSpec(name, lab=NetworkPlace(guest_address(n), limits)) for n, name in enumerate(names)]
    settings = {"golden": True, "network": NetworkSpec(limits, seed=1), **settings}
    with (
        settings_for(home, "network", specs, ResyncMechanism.NONE, clock, **settings) as (
            hypervisor,
            made,
            plan,
        ),
        Guests(hypervisor, made, clock, NullView(), NullJournal()) as guests,
    ):
        pair = Pair(hypervisor, guests, guests.up(plan.parts[0]), clock, names)
        for name in names:
            pair.ssh(name).check(f"nohup python3 -c {shlex.quote(ECHO)} >/dev/null 2>&1 </dev/null &")
            pair.ssh(name).check("until (: </dev/tcp/127.0.0.1/7) 2>/dev/null; do sleep 0.1; done")
        yield pair


@pytest.fixture(scope="module")
def pair(home: Path) -> Iterator[Pair]:
    with pair_of(home, "ab") as made:
        yield made


@pytest.fixture(scope="module")
def shared_pair(home: Path) -> Iterator[Pair]:
    """The same with their RAM in files, which another QEMU can take over."""
    with pair_of(home, "cd", shared_memory=True) as made:
        yield made


@contextmanager
def clients(pair: Pair) -> Iterator[list[dict[str, Any]]]:
    """A client of the second guest on the host, and one on the first, each with a connection: how they fared,
    at the end. They go on until the context is left: a busy host may begin a freeze late."""
    first, second = tuple(pair.names)
    inside = f"python3 -c {shlex.quote(CLIENT)} {second} /root/stop </dev/null"
    ends: list[dict[str, Any]] = []
    with ExitStack() as stack:
        stop = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "stop"
        command = [sys.executable, "-c", CLIENT, pair.network.address(second), str(stop)]
        outer = subprocess.Popen(pair.network.command(command), stdout=subprocess.PIPE, text=True)
        stack.callback(outer.wait)
        stack.callback(outer.kill)
        pair.ssh(first).check(f"rm -f /root/stop; nohup {inside} >/root/client 2>&1 &")
        pair.ssh(first).check("until grep -q connected /root/client; do sleep 0.1; done")
        assert outer.stdout is not None and outer.stdout.readline() == "connected\n"
        yield ends
        stop.touch()
        pair.ssh(first).check("touch /root/stop")
        ends.append(json.loads(outer.communicate(timeout=90)[0]))
        pair.ssh(first).check("until grep -q right /root/client; do sleep 0.2; done", 90)
        ends.append(json.loads(pair.ssh(first).check("grep right /root/client")))


def test_guests_and_the_host_know_each_other_by_name(pair: Pair) -> None:
    names = {HOST: "10.77.0.1", "a": "10.77.0.10", "b": "10.77.0.11"}
    assert pair.network.names == names
    for name in "ab":
        for other, ip in names.items():
            assert pair.ssh(name).check(f"getent ahostsv4 {other}").split()[0] in (ip, "127.0.1.1")
        card = pair.ssh(name).check("ip -brief address show eth1")
        assert f"{names[name]}/24" in card
    assert pair.ssh("a").check("exec 3<>/dev/tcp/b/7; echo hello >&3; head -1 <&3").strip() == "hello"


def frozen_under_clients(pair: Pair, method: FreezeMethod) -> None:
    second = pair.names[1]
    before = pair.ssh(second).check("ip -brief address show eth1").split()[2]
    with clients(pair) as ends:
        pair.freeze(second, method)
    assert [end["right"] for end in ends] == [True, True], ends
    late_s = 1.0 if slow_host() else 0.3  # the last echo before the freeze may be read late
    for end in ends:
        assert end["longest_s"] > HOLD_S - late_s  # it was frozen, for them
    assert pair.ssh(second).check("ip -brief address show eth1").split()[2] == before


@pytest.mark.parametrize(
    "method", [FreezeMethod.SUSPEND, FreezeMethod.SIGSTOP, FreezeMethod.SAVE_RESTORE], ids=str
)
def test_connections_live_through_a_freeze(pair: Pair, method: FreezeMethod) -> None:
    frozen_under_clients(pair, method)
    assert pair.network.counts()["b"].overflowed == 0


def test_connections_live_through_two_exchanges_of_the_hypervisor(shared_pair: Pair) -> None:
    """The second one comes back to a path that has been there before."""
    for _ in range(2):
        frozen_under_clients(shared_pair, FreezeMethod.IN_PLACE)


def test_on_a_bridge_an_exchange_moves_the_address_to_another_port(home: Path) -> None:
    """What came during the freeze is lost, and TCP sends it again."""
    with pair_of(home, "gh", shared_memory=True, network=NetworkSpec(bridge=True)) as pair:
        assert pair.network.moves() == []
        frozen_under_clients(pair, FreezeMethod.IN_PLACE)
        (move,) = pair.network.moves()
        assert (move.before, move.after) == ("h port 1", "h port 2")
        assert move.address == NetworkPlace(guest_address(1)).mac
        assert move.cause is not MoveCause.UNKNOWN
        assert pair.network.counts()["h"].absent > 0
        frozen_under_clients(pair, FreezeMethod.SUSPEND)
        assert pair.network.moves() == []


def test_a_cold_guest_with_a_slow_link_and_nothing_left(home: Path) -> None:
    """Booted, not cloned; without a queue, so what is sent to it while it is frozen is lost. It comes back
    from its own sleep, and from a reboot."""
    limits = NetworkLimits(delay_ns=NS_PER_S // 10, queue=0)
    before = set((home / "agents").glob("*"))
    with pair_of(home, "ef", limits, golden=False, guest_sleep=True) as pair:
        pid = pair.network.pid
        ask = """
            import socket, time
            began = time.monotonic()
            socket.create_connection(("10.77.0.11", 7)).close()
            print(time.monotonic() - began)
        """
        command = pair.network.command([sys.executable, "-c", textwrap.dedent(ask)])
        took = [float(subprocess.check_output(command, text=True)) for _ in range(2)]
        assert min(took) >= 0.2
        with clients(pair) as ends:
            pair.freeze("f", FreezeMethod.SUSPEND)
        assert [end["right"] for end in ends] == [True, True], ends
        assert pair.network.counts()["f"].overflowed > 0
        # Its own sleep: QEMU's machine is another one then, with another bus.
        frozen_under_clients(pair, FreezeMethod.GUEST_SLEEP)
        # A reboot: it has to join again.
        pair.freeze("f", FreezeMethod.REBOOT)
        assert "10.77.0.11/24" in pair.ssh("f").check("ip -brief address show eth1")
        assert pair.ssh("e").check("getent hosts f").split()[0] == "10.77.0.11"
        assert pair.ssh("f").check("exec 3<>/dev/tcp/e/7; echo hello >&3; head -1 <&3").strip() == "hello"
    assert pid is not None and not psutil.pid_exists(pid)
    assert set((home / "agents").glob("*")) <= before
