"""A player's view of a live HLS stream: its playlist, what it has loaded, and what it has played. No I/O, and
times are given, so that it can be checked by itself. Times are in nanoseconds, on one clock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Segment:
    """number: its media sequence number."""

    number: int
    length_ns: int
    uri: str


def segments(playlist: str) -> list[Segment]:
    """The segments of a media playlist (RFC 8216, 4.3). ValueError when it is none."""
    lines = [line.strip() for line in playlist.splitlines()]
    if not lines or lines[0] != "#EXTM3U":
        raise ValueError("no playlist")
    number, length, found = 0, 0, []
    for line in lines:
        if line.startswith("#EXT-X-MEDIA-SEQUENCE:"):
            number = int(line.partition(":")[2])
        elif line.startswith("#EXTINF:"):
            length = round(float(line.partition(":")[2].split(",")[0]) * 1e9)
        elif line and not line.startswith("#"):
            found.append(Segment(number, length, line))
            number += 1
    return found


class Viewer:
    """Plays from the moment at which it has loaded `buffer` segments; after a stall, from the next one.

    wanted: what it loads next. Its callers load that, and call loaded().
    """

    def __init__(self, buffer: int) -> None:
        self._buffer = buffer
        self._next: int | None = None
        self._loaded_ns, self._played_ns, self._count = 0, 0, 0
        self._at = 0
        self.playing, self.stalls, self.skipped = False, 0, 0

    @property
    def started(self) -> bool:
        """It has begun to play."""
        return self.playing or self.stalls > 0

    @property
    def buffered_ns(self) -> int:
        return self._loaded_ns - self._played_ns

    def wanted(self, listed: list[Segment]) -> Segment | None:
        """The next segment to load, of those listed; None: there is none yet. At first that is the one
        `buffer` segments before the end."""
        if not listed:
            return None
        if self._next is None:
            self._next = listed[max(0, len(listed) - self._buffer)].number
        if self._next < listed[0].number:
            self.skipped += listed[0].number - self._next
            self._next = listed[0].number
        return next((one for one in listed if one.number == self._next), None)

    def loaded(self, segment: Segment, now_ns: int) -> None:
        """A segment is there."""
        if segment.number != self._next:
            return
        self.advance(now_ns)
        self._next = segment.number + 1
        self._loaded_ns += segment.length_ns
        self._count += 1
        if not self.playing and (self.stalls or self._count >= self._buffer):
            self.playing, self._at = True, now_ns

    def advance(self, now_ns: int) -> int | None:
        """Play until now. Returns when it came to a standstill, if it did."""
        if not self.playing:
            return None
        left = self.buffered_ns
        if now_ns - self._at < left:
            self._played_ns += now_ns - self._at
            self._at = now_ns
            return None
        self._played_ns = self._loaded_ns
        self.playing, self.stalls = False, self.stalls + 1
        return self._at + left
