"""Cross-timestamps by ptp_kvm: what they add to a reading, and what the program in the guest hands out. That
intervals contain the truth with them is tests/unit/test_core_simulation.py's."""

from __future__ import annotations

import errno
import fcntl
import os
from dataclasses import replace
from pathlib import Path

import pytest

from lab.core.clock import PHI_PPM, GuestClock, Stamp
from lab.core.cross_timestamps import cross_timestamps
from lab.core.offsets import Rate, real_samples, samples
from lab.core.timeline import CrossTimestamp, Reading
from lab.guest import probe_protocol
from lab.guest.inside import host_clock
from lab.guest.inside.clocks import RAW
from tests.unit.simulation import MS, S

AGO = 1_700_000_000 * S


def crossed(host_ns: int, guest_raw_ns: int, about_ns: int = 0) -> Reading:
    """An exchange of 10 ms with a cross-timestamp. The host's REALTIME is AGO ahead of its MONOTONIC_RAW, the
    guest's MONOTONIC_RAW is 7 s behind the host's."""
    t1, t4 = 10 * S, 10 * S + 10 * MS
    clocks = dict.fromkeys(GuestClock, t1 + 5 * MS - 7 * S)
    cross = CrossTimestamp(AGO + host_ns, guest_raw_ns, guest_raw_ns + about_ns)
    return Reading(Stamp(t1, t1 + AGO), clocks, clocks, Stamp(t4, t4 + AGO), cross=cross)


def test_a_cross_timestamp_narrows_an_exchange_to_the_hosts_own_stamps() -> None:
    reading = crossed(10 * S + 5 * MS, 3 * S + 5 * MS)
    alone = reading.offset(GuestClock.RAW)
    assert alone.half_width_ns == 5 * MS
    (found,) = samples([reading], GuestClock.RAW)
    assert -7 * S in found.offset
    assert found.offset.half_width_ns < 10_000
    # Linux with the clocksource tsc reads the host's clock between two readings of the guest's.
    (wider,) = samples([crossed(10 * S + 5 * MS, 3 * S + 4 * MS, 2 * MS)],
                       GuestClock.RAW)  # fmt: skip
    assert -7 * S in wider.offset
    assert MS < wider.offset.half_width_ns < 2 * MS


def test_a_cross_timestamp_of_another_clock_is_a_problem_and_is_not_used() -> None:
    right = crossed(10 * S + 5 * MS, 3 * S + 5 * MS)
    wrong = crossed(11 * S, 3 * S + 5 * MS)
    assert samples([wrong], GuestClock.RAW)[0].offset == wrong.offset(GuestClock.RAW)
    rate = Rate.within(PHI_PPM)
    for readings, problem in (([right, right], False), ([right, wrong], True)):
        offsets = real_samples(readings, samples(readings, GuestClock.RAW))
        found = cross_timestamps([(readings, rate)], offsets)
        assert found is not None
        assert found.readings == 2
        assert bool(found.problem) is problem
        assert found.alone_ns > 4 * MS
    assert cross_timestamps([([replace(right, cross=None)], rate)], offsets) is None


def test_the_answer_of_a_guest_without_ptp_kvm_has_no_words_of_it() -> None:
    host = host_clock.HostRealtime()
    host.look()
    assert host.file < 0
    assert host.words() == b""


@pytest.mark.parametrize("refused", [None, errno.ENODEV], ids=["kvm-clock", "tsc"])
def test_the_words_of_a_device_are_read_by_the_host(
    refused: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By its cross-timestamp, or by its clock between two readings where Linux refuses that."""
    (tmp_path / "ptp0").mkdir()
    (tmp_path / "ptp0/clock_name").write_text("KVM virtual PTP\n")
    monkeypatch.setattr(host_clock, "CLOCKS", str(tmp_path))
    host = host_clock.HostRealtime()
    monkeypatch.setattr(os, "open", lambda path, _flags: {"/dev/ptp0": 5}[path])
    host.look()
    assert host.file == 5

    def ioctl(file: int, request: int, data: bytes) -> bytes:
        assert (file, request, len(data)) == (5, (3 << 30) | (64 << 16) | (ord("=") << 8) | 8, 64)
        if refused is not None:
            raise OSError(refused, "")
        return host_clock.OFFSETS.pack(1700000000, 25, 1600000000, 7, 12, 34)

    clocks = {-45: [170 * S], RAW: [12 * S, 12 * S + 9]}
    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    monkeypatch.setattr(host_clock, "gettime", lambda clock: clocks[clock].pop(0))

    def exchange(line: bytes, letter: bytes, echo: bytes) -> tuple[Stamp, Stamp, bytes]:
        return Stamp(1, 2), Stamp(3, 4), b"1 2 3 4 5 6 7 8" + host.words() + b" +"

    reading = probe_protocol.reading(exchange, b"n", 1, "serial", lambda: b"5 -6 0 7")
    at = (1700000000 * S + 25, 12 * S + 34, 12 * S + 34)
    assert reading.cross == CrossTimestamp(*(at if refused is None else (170 * S, 12 * S, 12 * S + 9)))
    assert reading.packet_stamps is not None
