"""A lost channel on a real guest: what is had again, what is kept, and how long it is tried."""

from __future__ import annotations

import dataclasses
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from lab.core.clock import GuestClock, Interval
from lab.core.offsets import Rate, offset_at, samples
from lab.core.timeline import Reading, SamplerReport
from lab.core.units import NS_PER_S
from lab.errors import GuestError, GuestGone
from lab.guest import probe as module
from lab.guest.address import Address
from lab.guest.probe import GuestProbe
from lab.guest.ssh import SSH
from lab.image.identity import make_key
from tests.guest.conftest import Lab
from tests.guest.relay import Relay
from tests.regimes import slow_host


@pytest.fixture
def relay(lab: Lab) -> Iterator[Relay]:
    made = Relay(lab.address.port)
    yield made
    made.cut()


@pytest.fixture
def address(lab: Lab, relay: Relay) -> Address:
    return dataclasses.replace(lab.address, port=relay.port)


@pytest.fixture
def probe(lab: Lab, address: Address) -> Iterator[GuestProbe]:
    with GuestProbe("web-0", lambda: SSH.connect(address, lab.clock, 60)) as opened:
        yield opened


def pid(probe: GuestProbe) -> int:
    """The program that a probe talks to, from the path by which it is found again."""
    return int(probe._way_back.split("/")[2])


def sampled(probe: GuestProbe) -> SamplerReport:
    report = probe.samples()
    assert report is not None
    return report


def agreed(readings: list[Reading]) -> Interval | None:
    """The offset of MONOTONIC_RAW that all readings allow; None when they contradict each other."""
    return offset_at(samples(readings, GuestClock.RAW), readings[-1].t4.raw_ns, rate=Rate.within(100.0))


def test_the_kernels_stamps_are_told_and_narrow_a_reading(lab: Lab) -> None:
    readings = [r for _ in range(40) if (r := lab.probe.read()).channel == "ssh"]
    seen = [
        r
        for r in readings
        if r.packet_stamps and None not in (r.packet_stamps.arrived_real_ns, r.packet_stamps.left_real_ns)
    ]
    assert len(seen) > len(readings) / 2
    bare = [replace(r, packet_stamps=None) for r in seen]
    with_stamps, without = agreed(seen), agreed(bare)
    assert with_stamps is not None and without is not None and with_stamps.meets(without)
    assert with_stamps.half_width_ns < (0.75 if slow_host() else 0.5) * without.half_width_ns


class SlowRelay(Relay):
    """Cuts what passes into pieces, and keeps each for a while; another while in each direction."""

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        slow = random.Random(source.fileno())
        with suppress(OSError):
            while data := source.recv(65536):
                while data:
                    size = slow.randrange(1, len(data) + 1)
                    time.sleep(slow.choice((0, slow.uniform(0, 0.01), 0.001)))
                    sink.sendall(data[:size])
                    data = data[size:]
            sink.shutdown(socket.SHUT_WR)


def test_a_slow_and_lopsided_path_makes_readings_wider_and_never_wrong(lab: Lab) -> None:
    straight = [lab.probe.read() for _ in range(20)]
    relay = SlowRelay(lab.address.port)
    address = dataclasses.replace(lab.address, port=relay.port)
    try:
        with GuestProbe("web-0", lambda: SSH.connect(address, lab.clock, 60)) as probe:
            crooked = [probe.read() for _ in range(30)]
    finally:
        relay.cut()
    assert sum(r.packet_stamps is not None and r.packet_stamps.left_real_ns is not None for r in crooked) > 5
    assert agreed(crooked) is not None
    assert agreed(straight + crooked) is not None


def test_a_guest_whose_network_is_cut_is_read_over_the_serial_channel(lab: Lab) -> None:
    probe, context = lab.probe, lab.hypervisor._context

    def link(up: bool) -> None:
        context.qmp(context.domain("web-0")[0], "web-0", "set_link", name="labnet0", up=up)

    probe.start_cycle()
    readings = [probe.read() for _ in range(6)]
    link(False)
    try:
        cut = [probe.read() for _ in range(6)]
        assert sampled(probe).count > 0
        assert probe.facts().boot_id
    finally:
        link(True)
    assert {r.channel for r in readings} == {"ssh", "serial"}
    assert {r.channel for r in cut} == {"serial"}
    assert agreed(readings + cut) is not None
    assert probe.ssh.check("echo back") == "back\n"


def test_what_the_sampler_knows_outlives_the_channel(lab: Lab, probe: GuestProbe, relay: Relay) -> None:
    probe.start_cycle()
    first = sampled(probe)
    time.sleep(0.1)
    relay.cut()
    threading.Timer(0.5, relay.back).start()
    assert probe.read().round_trip_ns > 0
    later, facts = sampled(probe), probe.facts()
    assert (facts.reconnects, facts.restarts) == (1, 0)
    assert later.first_raw_ns == first.first_raw_ns
    assert later.count > first.count
    time.sleep(0.2)
    numbers = [beat.sequence for beat in probe.heartbeats()]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] - numbers[0] + 1 > len(numbers)  # those of the time without a channel are missing


def test_it_is_lost_again_and_again(lab: Lab, probe: GuestProbe, relay: Relay) -> None:
    probe.start_cycle()
    first = sampled(probe)
    for number in range(5):
        relay.cut()
        relay.back()
        assert probe.facts().reconnects == number + 1
    assert sampled(probe).first_raw_ns == first.first_raw_ns
    assert probe.restarts == 0


def test_other_commands_have_the_connection_again_too(probe: GuestProbe, relay: Relay) -> None:
    channel = probe._channel
    assert channel is not None
    relay.cut()
    channel._reader.join(10)
    relay.back()
    assert probe.ssh.check("echo here") == "here\n"
    assert probe.reconnects == 1


def test_a_program_that_was_killed_is_started_anew_and_told(lab: Lab, probe: GuestProbe) -> None:
    probe.start_cycle()
    before = sampled(probe)
    lab.probe.ssh.check(f"kill -9 {pid(probe)}")
    assert probe.read().round_trip_ns > 0
    assert (probe.reconnects, probe.restarts) == (1, 1)
    assert sampled(probe).first_raw_ns > before.last_raw_ns


def test_a_closed_probe_leaves_nothing_in_the_guest(
    lab: Lab, address: Address, eventually: Callable[[Callable[[], Any], float], Any]
) -> None:
    with GuestProbe("web-0", lambda: SSH.connect(address, lab.clock, 60)) as probe:
        number = pid(probe)
        lab.probe.ssh.check(f"test -d /proc/{number}")
    # Long before a program without a host would end by itself.
    assert eventually(lambda: lab.probe.ssh.run(f"test -d /proc/{number}").status == 1, 20)


def test_a_port_that_stays_away_is_given_up(
    probe: GuestProbe, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REGAIN_S", 1.0)
    relay.cut()
    with pytest.raises(GuestError):
        probe.read()
    relay.back()
    assert probe.read().round_trip_ns > 0  # and had again when it is asked for later


def test_somebody_else_on_the_port_is_not_tried_again(
    lab: Lab, address: Address, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    with GuestProbe("web-0", lambda: SSH.connect(address, lab.clock, 60)) as probe:
        other = dataclasses.replace(address, host_key=make_key("x")[1])
        monkeypatch.setattr(probe, "_again", lambda timeout_s: SSH.connect(other, lab.clock, timeout_s))
        monkeypatch.setattr(module, "REGAIN_S", 10_000.0)
        relay.cut()
        relay.back()
        with pytest.raises(GuestError, match="another host key"):
            probe.read()


def test_kernel_lines_are_kept_until_the_next_cycle(lab: Lab, probe: GuestProbe) -> None:
    probe.start_cycle()
    lab.probe.ssh.check("echo 'freezelab test: clocksource' >/dev/kmsg")
    for _ in range(2):
        assert any("freezelab test" in line for line in probe.facts().kernel_lines or ())
    probe.start_cycle()
    assert probe.facts().kernel_lines == ()


def test_a_probe_is_started_anew_in_a_rebooted_guest(lab: Lab) -> None:
    """The last one here: the guest is not in time after it."""
    probe = lab.probe
    before = probe.facts()
    probe.ssh.channel("echo b >/proc/sysrq-trigger")
    after, told = before, []
    while after.boot_id == before.boot_id:  # it takes a moment to go down
        try:
            probe.restart(lab.clock.now().raw_ns + 200 * NS_PER_S)
            after = probe.facts()
        except GuestGone as gone:  # by libvirt's word, to whoever waits for it in that moment
            told.append(gone.what)
    assert set(told) <= {"rebooted by itself"}
    assert after.reconnects == before.reconnects
    assert probe.read().round_trip_ns > 0


def test_a_guest_that_does_not_come_back_is_given_up(lab: Lab, address: Address, relay: Relay) -> None:
    with GuestProbe("web-0", lambda: SSH.connect(address, lab.clock, 60)) as probe:
        relay.cut()
        with pytest.raises(GuestError):
            probe.restart(lab.clock.now().raw_ns + NS_PER_S)
