"""A lost channel on a real guest: what is had again, what is kept, and how long it is tried."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab.core.units import NS_PER_S
from lab.errors import GuestError
from lab.guest import probe as module
from lab.guest.probe import GuestProbe
from lab.guest.ssh import SSH, Address
from lab.image.identity import make_key
from tests.guest.conftest import Lab
from tests.guest.relay import Relay


@pytest.fixture
def relay(lab: Lab) -> Iterator[Relay]:
    made = Relay(lab.probe.ssh.address.port)
    yield made
    made.cut()


@pytest.fixture
def address(lab: Lab, relay: Relay) -> Address:
    return dataclasses.replace(lab.probe.ssh.address, port=relay.port)


@pytest.fixture
def probe(lab: Lab, address: Address) -> Iterator[GuestProbe]:
    with GuestProbe("web-0", lambda: SSH.connect(address, lab.clock, 60)) as opened:
        yield opened


def pid(probe: GuestProbe) -> int:
    """The payload that a probe talks to, from the path by which it is found again."""
    return int(probe._way_back.split("/")[2])


def test_what_the_sampler_knows_outlives_the_channel(lab: Lab, probe: GuestProbe, relay: Relay) -> None:
    probe.start_cycle()
    first = probe.samples()
    time.sleep(0.1)
    relay.cut()
    threading.Timer(0.5, relay.back).start()
    assert probe.read().round_trip_ns > 0
    later, facts = probe.samples(), probe.facts()
    assert (facts.reconnects, facts.restarts) == (1, 0)
    assert later.first_raw_ns == first.first_raw_ns
    assert later.count > first.count
    time.sleep(0.2)
    numbers = [beat.sequence for beat in probe.heartbeats()]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] - numbers[0] + 1 > len(numbers)  # those of the time without a channel are missing


def test_it_is_lost_again_and_again(lab: Lab, probe: GuestProbe, relay: Relay) -> None:
    probe.start_cycle()
    first = probe.samples()
    for number in range(5):
        relay.cut()
        relay.back()
        assert probe.facts().reconnects == number + 1
    assert probe.samples().first_raw_ns == first.first_raw_ns
    assert probe.restarts == 0


def test_other_commands_have_the_connection_again_too(probe: GuestProbe, relay: Relay) -> None:
    receiver = probe._receiver
    relay.cut()
    receiver.join(10)
    relay.back()
    assert probe.ssh.check("echo here") == "here\n"
    assert probe.reconnects == 1


def test_a_payload_that_was_killed_is_started_anew_and_told(lab: Lab, probe: GuestProbe) -> None:
    probe.start_cycle()
    before = probe.samples()
    lab.probe.ssh.check(f"kill -9 {pid(probe)}")
    assert probe.read().round_trip_ns > 0
    assert (probe.reconnects, probe.restarts) == (1, 1)
    assert probe.samples().first_raw_ns > before.last_raw_ns


def test_a_closed_probe_leaves_nothing_in_the_guest(
    lab: Lab, address: Address, eventually: Callable[[Callable[[], Any], float], Any]
) -> None:
    with GuestProbe("web-0", lambda: SSH.connect(address, lab.clock, 60)) as probe:
        number = pid(probe)
        lab.probe.ssh.check(f"test -d /proc/{number}")
    # Long before a payload without a host would end by itself.
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
    probe.restart(lab.clock.now().raw_ns + 200 * NS_PER_S)
    while (after := probe.facts()).boot_id == before.boot_id:  # it took a moment to go down
        probe.restart(lab.clock.now().raw_ns + 200 * NS_PER_S)
    assert after.reconnects == before.reconnects
    assert probe.read().round_trip_ns > 0


def test_a_guest_that_does_not_come_back_is_given_up(lab: Lab, address: Address, relay: Relay) -> None:
    with GuestProbe("web-0", lambda: SSH.connect(address, lab.clock, 60)) as probe:
        relay.cut()
        with pytest.raises(GuestError):
            probe.restart(lab.clock.now().raw_ns + NS_PER_S)
