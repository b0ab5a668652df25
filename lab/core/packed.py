"""Readings and heartbeats as rows of integers: a fifth of the memory of the values, which are made when they
are asked for.

A history has tens of thousands of them, and a cycle is judged with its own alone.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar, overload

from lab.core.clock import GuestClock, Stamp
from lab.core.timeline import CrossTimestamp, Heartbeat, PacketStamps, Reading

T = TypeVar("T")

_INT64 = "q"
_NONE = -(2**63)
"""Stands for None. No number of a history is as small (record.events.LARGEST)."""


class Packed(Sequence[T], Generic[T]):
    """A sequence that is equal to every other sequence of equal values. A slice of it is a tuple."""

    __slots__ = ()

    @abstractmethod
    def _value(self, number: int) -> T:
        """The value at this place; 0 <= number < len(self)."""

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        places = range(len(self))[index]
        return self._value(places) if isinstance(places, int) else tuple(map(self._value, places))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(lambda one, two: one == two, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"


class PackedReadings(Packed[Reading]):
    """Readings. A row has t1 raw, real; t2 real, mono, boot, raw; t3 likewise; t4 raw, real; resolution; and
    the packets' stamps (arrived, least apart, left, most apart; least apart is None without any); and the
    cross-timestamp (host's REALTIME, least and most raw; None without one). A clock that was not read is
    None."""

    __slots__ = ("_channels", "_numbers")
    WIDTH = 20
    NO_PACKETS = (None, None, None, None)
    NO_CROSS = (None, None, None)

    def __init__(self, numbers: array[int], channels: list[str]) -> None:
        self._numbers, self._channels = numbers, channels

    @classmethod
    def of(cls, rows: Iterable[tuple[Sequence[int | None], str]]) -> PackedReadings:
        """Pack rows, each with its channel. OverflowError for a number that has more than 64 bits."""
        numbers, channels = array(_INT64), list[str]()
        for row, channel in rows:
            numbers.extend([_NONE if number is None else number for number in row])
            channels.append(sys.intern(channel))
        return cls(numbers, channels)

    @classmethod
    def joined(cls, parts: Iterable[Sequence[Reading]]) -> Sequence[Reading]:
        """All readings of the parts: packed when all of them are."""
        given = list(parts)
        packed = [part for part in given if isinstance(part, PackedReadings)]
        if len(packed) < len(given):
            return tuple(reading for part in given for reading in part)
        numbers, channels = array(_INT64), list[str]()
        for part in packed:
            numbers.extend(part._numbers)
            channels += part._channels
        return cls(numbers, channels)

    def __len__(self) -> int:
        return len(self._channels)

    def _value(self, number: int) -> Reading:
        first = number * self.WIDTH
        raw1, real1, *rest = self._numbers[first : first + self.WIDTH]
        real2, mono2, boot2, raw2, real3, mono3, boot3, raw3, raw4, real4, resolution = rest[:11]
        arrived, least_apart, left, most_apart, host, least_raw, most_raw = rest[11:]
        stamps = None
        if least_apart != _NONE:
            stamps = PacketStamps(_or_none(arrived), least_apart, _or_none(left), most_apart)
        return Reading(
            Stamp(raw1, real1),
            _read(
                {GuestClock.REAL: real2, GuestClock.MONO: mono2, GuestClock.BOOT: boot2, GuestClock.RAW: raw2}
            ),
            _read(
                {GuestClock.REAL: real3, GuestClock.MONO: mono3, GuestClock.BOOT: boot3, GuestClock.RAW: raw3}
            ),
            Stamp(raw4, real4),
            resolution,
            stamps,
            self._channels[number],
            None if host == _NONE else CrossTimestamp(host, least_raw, most_raw),
        )


def _read(clocks: dict[GuestClock, int]) -> dict[GuestClock, int]:
    """The clocks that were read."""
    if _NONE not in clocks.values():
        return clocks
    return {clock: value for clock, value in clocks.items() if value != _NONE}


def _or_none(number: int) -> int | None:
    return None if number == _NONE else number


class PackedHeartbeats(Packed[Heartbeat]):
    """Heartbeats. A row has the number, the guest's MONOTONIC_RAW, and the arrival, raw and real."""

    __slots__ = ("_numbers",)
    WIDTH = 4

    def __init__(self, rows: Iterable[Sequence[int]]) -> None:
        """OverflowError for a number that has more than 64 bits."""
        self._numbers = array(_INT64)
        for row in rows:
            self._numbers.extend(row)

    def __len__(self) -> int:
        return len(self._numbers) // self.WIDTH

    def _value(self, number: int) -> Heartbeat:
        first = number * self.WIDTH
        sequence, sent, raw, real = self._numbers[first : first + self.WIDTH]
        return Heartbeat(sequence, sent, Stamp(raw, real))
