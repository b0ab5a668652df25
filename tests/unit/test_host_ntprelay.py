"""The relay that spoils a real NTP server's answers for a while."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.core.clock import Interval, Stamp
from lab.core.mechanism import ResyncMechanism
from lab.core.plan import TimeFault, TimeFaultKind
from lab.core.timesync import rules
from lab.core.timesync_setup import Setup
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.host import chronyd, sntp
from lab.host.chronyd import Chronyd
from lab.host.ntprelay import NtpRelay
from lab.process.clock import HostClock

CLOCK = HostClock()
LATE = TimeFault(TimeFaultKind.LATE, NS_PER_S, 300 * NS_PER_MS)
SILENT = TimeFault(TimeFaultKind.SILENT, NS_PER_S)
UNSYNCHRONISED = TimeFault(TimeFaultKind.UNSYNCHRONISED, NS_PER_S)


@pytest.fixture(scope="module")
def server(chronyd_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chronyd]:
    with Chronyd(chronyd_program, tmp_path_factory.mktemp("chronyd"), CLOCK) as one:
        yield one


def relay(server: Chronyd, fault: TimeFault) -> NtpRelay:
    return NtpRelay((server.address, server.port), fault, CLOCK)


def ask(one: NtpRelay, timeout_s: float = 5) -> sntp.SntpAnswer:
    return sntp.query(one.address, one.port, CLOCK, timeout_s)


def test_the_relay_answers_as_its_server_before_the_fault(server: Chronyd) -> None:
    with relay(server, SILENT) as one:
        for _ in range(3):
            answer = ask(one)
            assert answer.stratum == chronyd.STRATUM
            assert 0 in answer.offset.widened(NS_PER_MS)
        assert one.spoilt == 0


class SetClock:
    """A clock that is set by hand."""

    raw_ns = 100 * NS_PER_S

    def now(self) -> Stamp:
        return Stamp(self.raw_ns, self.raw_ns)

    def sleep_until(self, raw_ns: int) -> None:
        raise NotImplementedError


def test_the_relay_is_silent_until_the_fault_is_over(server: Chronyd) -> None:
    clock = SetClock()
    with NtpRelay((server.address, server.port), SILENT, clock) as one:
        one.begin()
        clock.raw_ns += 3600 * NS_PER_S
        with pytest.raises(TimeoutError):
            ask(one, 0.5)
        one.end_in(2 * NS_PER_S)
        clock.raw_ns += 2 * NS_PER_S - 1
        with pytest.raises(TimeoutError):
            ask(one, 0.5)
        clock.raw_ns += 1
        assert ask(one).stratum == chronyd.STRATUM


def test_it_has_no_time_to_give(server: Chronyd) -> None:
    with relay(server, UNSYNCHRONISED) as one:
        one.begin()
        with pytest.raises(ValueError, match="not synchronised"):
            ask(one)
        one.end_in(0)
        assert ask(one).stratum == chronyd.STRATUM


def test_the_relay_is_late_and_keeps_the_answers_of_its_clients_apart(server: Chronyd) -> None:
    with relay(server, LATE) as one:
        one.begin()
        found: list[tuple[float, sntp.SntpAnswer]] = []

        def client() -> None:
            began = time.monotonic()
            found.append((ask(one), time.monotonic() - began)[::-1])

        threads = [threading.Thread(target=client) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        for took_s, answer in found:
            assert took_s >= 0.3
            # Half of it is what a client takes for the server's offset.
            assert answer.offset.low_ns <= -300 * NS_PER_MS
            assert 0 in answer.offset.widened(NS_PER_MS)
        assert one.spoilt == 8


def test_noise_does_not_end_it(server: Chronyd) -> None:
    with relay(server, UNSYNCHRONISED) as one, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noisy:
        one.begin()
        for packet in (b"", b"x", b"\x23" * 47, b"\x23" * 48, b"\0" * 2000, b"\xff" * 1400):
            noisy.sendto(packet, (one.address, one.port))
        one.end_in(0)
        assert ask(one).stratum == chronyd.STRATUM


def test_a_server_that_is_gone_does_not_end_it(server: Chronyd) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        place = nobody.getsockname()
    with NtpRelay(place, SILENT, CLOCK) as one:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                ask(one, 0.1)
    assert not any(thread.name == "ntp-relay" for thread in threading.enumerate())


def test_nothing_is_forecast_of_a_server_at_fault() -> None:
    pause = Interval(5 * NS_PER_S, 5 * NS_PER_S)
    for mechanism in ResyncMechanism:
        fault = LATE.text if mechanism.uses_ntp else ""
        setup = Setup(mechanism, config=mechanism.config(), server_fault=fault)
        said = rules.forecast(setup, pause, True, 20 * NS_PER_S)
        if mechanism.uses_ntp:
            assert said.text == "open: the time server is late by 300 ms for 1 s after the resume"
            assert said.repaired is None
        else:
            assert "time server is" not in said.text
