"""Packed readings and heartbeats are the values that were packed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.core.clock import GuestClock, Stamp
from lab.core.packed import PackedHeartbeats, PackedReadings
from lab.core.timeline import CrossTimestamp, Heartbeat, PacketStamps, Reading
from lab.record.journal import read_history
from lab.record.run import judge
from tests.unit.real_histories import unpacked

LARGEST = 2**63 - 1
NUMBERS = (1, -2, 3, 4, 5, 6, -7, 8, 9, LARGEST, -LARGEST, 12, 1)
ROWS = [
    ((*NUMBERS, *PackedReadings.NO_PACKETS, *PackedReadings.NO_CROSS), "ssh"),
    ((*NUMBERS, None, 20, 21, 22, *PackedReadings.NO_CROSS), "serial"),
    ((*NUMBERS, 19, 20, None, 22, 23, -24, 25), "carrier pigeon"),
]


def reading(stamps: PacketStamps | None, channel: str, cross: CrossTimestamp | None = None) -> Reading:
    t2 = {GuestClock.REAL: 3, GuestClock.MONO: 4, GuestClock.BOOT: 5, GuestClock.RAW: 6}
    t3 = {GuestClock.REAL: -7, GuestClock.MONO: 8, GuestClock.BOOT: 9, GuestClock.RAW: LARGEST}
    return Reading(Stamp(1, -2), t2, t3, Stamp(-LARGEST, 12), 1, stamps, channel, cross)


READINGS = (
    reading(None, "ssh"),
    reading(PacketStamps(None, 20, 21, 22), "serial"),
    reading(PacketStamps(19, 20, None, 22), "carrier pigeon", CrossTimestamp(23, -24, 25)),
)


def test_readings_are_those_that_were_packed() -> None:
    packed = PackedReadings.of(ROWS)
    assert tuple(packed) == READINGS
    assert packed == READINGS
    assert packed == list(READINGS)
    assert packed != READINGS[:2]
    assert packed != READINGS[::-1]
    assert packed[-1] == READINGS[-1]
    assert packed[1:] == READINGS[1:]
    with pytest.raises(IndexError):
        packed[3]


def test_joined_readings_are_packed_when_all_of_them_are() -> None:
    packed = PackedReadings.of(ROWS)
    both = PackedReadings.joined([packed, packed])
    assert isinstance(both, PackedReadings)
    assert both == READINGS * 2
    assert PackedReadings.joined([packed, READINGS]) == READINGS * 2
    assert packed == READINGS


def test_heartbeats_are_those_that_were_packed() -> None:
    beats = Heartbeat(1, 2, Stamp(3, 4)), Heartbeat(2, 5, Stamp(6, LARGEST))
    assert PackedHeartbeats([(1, 2, 3, 4), (2, 5, 6, LARGEST)]) == beats


def test_a_judged_run_has_no_reading_unpacked(tmp_path: Path) -> None:
    for result in judge(read_history(unpacked("rollout", tmp_path)))[1]:
        assert isinstance(result.observation.readings, PackedReadings)
        assert isinstance(result.observation.beats, PackedHeartbeats)
