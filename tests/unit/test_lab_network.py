"""The lab's own network without guests: the switch's process, with sockets where QEMU would be."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lab.core.network import HOST, NetworkLimits, NetworkPlace, guest_address
from lab.errors import MachineError
from lab.host.network import LabNetwork
from tests.unit.network_bench import EVERYBODY, MACS, Bench, settle, short_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


@pytest.fixture
def bench(folder: Path) -> Iterator[Bench]:
    made = Bench(folder, NetworkLimits())
    with made.network:
        yield made


def host_place(network: LabNetwork) -> None:
    if network.no_host:
        pytest.skip(f"no network namespace here: {network.no_host}")


def test_guests_see_each_other(bench: Bench) -> None:
    a, b = bench.qemu("a"), bench.qemu("b")
    settle(bench, (a, b))
    a.send(MACS["b"], b"x" * 1400)
    assert b.receive() == b"x" * 1400
    counts = bench.network.counts()
    assert counts["a"].sent == 2 and counts["b"].received >= 2
    assert bench.network.names == {HOST: "10.77.0.1", "a": "10.77.0.10", "b": "10.77.0.11"}


def test_a_frozen_guests_frames_go_to_its_successor(bench: Bench) -> None:
    """Also those that came before the successor has announced itself."""
    a, old = bench.qemu("a"), bench.qemu("b")
    settle(bench, (a, old))
    bench.network.freeze("b")
    for number in range(30):
        a.send(MACS["b"], b"%d" % number)
    new = bench.qemu("b", bench.folder / "q1.next")
    assert old.nothing_within(0.2)
    bench.network.thaw("b", new.path)
    assert [new.receive() for _ in range(30)] == [b"%d" % number for number in range(30)]
    assert old.nothing_within(0.1)
    # And when it goes back, by its frames alone.
    old.send(EVERYBODY, b"back")
    assert a.receive() == b"back"
    a.send(MACS["b"], b"again")
    assert old.receive() == b"again"


def test_a_successor_that_ends_gives_the_address_back(bench: Bench) -> None:
    a, old = bench.qemu("a"), bench.qemu("b")
    settle(bench, (a, old))
    new = bench.qemu("b", bench.folder / "q1.next")
    new.send(EVERYBODY, b"announced")
    assert a.receive() == b"announced"
    new.socket.close()
    a.send(MACS["b"], b"x")
    assert old.receive() == b"x"


def test_frames_wait_for_a_process_that_is_started_again(bench: Bench) -> None:
    """save-restore has the same path in a new process; the frames are there when it is."""
    a, b = bench.qemu("a"), bench.qemu("b")
    settle(bench, (a, b))
    b.socket.close()
    for number in range(5):
        a.send(MACS["b"], b"%d" % number)
    time.sleep(0.1)
    again = bench.qemu("b")
    assert [again.receive() for _ in range(5)] == [b"%d" % number for number in range(5)]


def test_a_process_that_takes_nothing_gets_all_later(bench: Bench) -> None:
    """As under SIGSTOP from elsewhere: the kernel's queue is short (net.unix.max_dgram_qlen), ours is not."""
    a, b = bench.qemu("a"), bench.qemu("b")
    settle(bench, (a, b))
    for number in range(300):
        a.send(MACS["b"], b"%d" % number)
    time.sleep(0.2)
    assert [b.receive() for _ in range(300)] == [b"%d" % number for number in range(300)]


def test_a_delay_is_kept_to_the_millisecond(folder: Path) -> None:
    bench = Bench(folder, NetworkLimits(delay_ns=30_000_000))
    with bench.network:
        a, b = bench.qemu("a"), bench.qemu("b")
        settle(bench, (a, b))
        took = []
        for _ in range(20):
            began = time.monotonic()
            a.send(MACS["b"], b"x")
            b.receive()
            took.append(time.monotonic() - began)
        assert min(took) >= 0.03
        assert sorted(took)[10] < 0.04


def test_a_program_of_the_host_has_an_address_of_its_own(bench: Bench) -> None:
    network = bench.network
    host_place(network)
    here = str(Path("/proc/self/ns/net").readlink())
    program = [sys.executable, "-c", "import os; print(os.readlink('/proc/self/ns/net'))"]
    done = subprocess.run(network.command(program), capture_output=True, text=True, check=True)
    assert done.stdout.strip() not in ("", here)
    ask = "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('10.77.0.11', 9))"
    b = bench.qemu("b")
    subprocess.run(network.command([sys.executable, "-c", ask]), check=True)
    while (content := b.receive())[:2] != b"\x08\x06":  # ARP: who has 10.77.0.11?
        pass
    assert content[26:30] == socket.inet_aton("10.77.0.11")


def test_nothing_is_left(folder: Path) -> None:
    bench = Bench(folder, NetworkLimits())
    with bench.network as network:
        pid = network.pid
        assert pid is not None and psutil.pid_exists(pid)
        assert bench.guests["a"].ours.exists()
    assert not psutil.pid_exists(pid)
    assert not list(folder.iterdir())
    assert not network.alive


def test_a_killed_controller_takes_the_switch_along(folder: Path) -> None:
    program = f"""
        import sys, time
        from pathlib import Path
        from tests.unit.network_bench import Bench, NetworkLimits
        bench = Bench(Path({str(folder)!r}), NetworkLimits())
        bench.network.start()
        print(bench.network.pid, flush=True)
        time.sleep(60)
    """
    controller = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    )
    with ExitStack() as stack:
        stack.callback(controller.wait)
        stack.callback(controller.kill)
        assert controller.stdout is not None
        switch = psutil.Process(int(controller.stdout.readline()))
        controller.send_signal(signal.SIGKILL)
        switch.wait(5)
    assert not [path for path in folder.iterdir() if path.name.startswith("s")]


def test_a_dead_switch_is_said_in_a_line(bench: Bench) -> None:
    network = bench.network
    assert network.pid is not None
    os.kill(network.pid, signal.SIGKILL)
    end = time.monotonic() + 5
    while network.alive and time.monotonic() < end:
        time.sleep(0.01)
    with pytest.raises(MachineError, match="the switch of the lab's network has ended with status -9"):
        network.check()
    with pytest.raises(MachineError, match="has ended"):
        network.command(["true"])
    with pytest.raises(MachineError):
        network.counts()


def test_a_switch_that_hangs_holds_up_no_resume(bench: Bench) -> None:
    network = bench.network
    assert network.pid is not None
    os.kill(network.pid, signal.SIGSTOP)
    failures: list[MachineError] = []

    def ask() -> None:
        try:
            network.counts()
        except MachineError as error:
            failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        began = time.monotonic()
        for _ in range(1000):
            network.freeze("b")
            network.thaw("b", bench.guests["b"].its)
        assert time.monotonic() - began < 1
    finally:
        asking.join()
        os.kill(network.pid, signal.SIGCONT)
    (failure,) = failures
    assert "the switch of the lab's network does not answer" in failure.what
    assert network.counts()["b"].sent == 0  # and not the answer of before


def test_without_a_namespace_it_is_said_what_to_do(bench: Bench) -> None:
    bench.network.no_host = "unshare: Operation not permitted"
    with pytest.raises(MachineError, match="the host has no place in the lab's network: unshare") as caught:
        bench.network.command(["true"])
    assert "run as root, or allow unprivileged user namespaces" in caught.value.hint
    assert bench.network.address("a") == "10.77.0.10"


def test_places_have_addresses_of_their_own() -> None:
    places = [NetworkPlace(guest_address(number)) for number in range(64)]
    assert places[0].address == "10.77.0.10/24"
    assert len({place.ip for place in places}) == len({place.mac for place in places}) == 64
    assert places[0].mac == "52:54:01:4d:00:0a"
    assert replace(places[0], address="10.77.0.255/24").mac == "52:54:01:4d:00:ff"
