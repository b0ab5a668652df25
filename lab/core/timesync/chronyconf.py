"""The directives of a chrony.conf that determine the correction after a pause (chrony.conf(5), versions 4.3
to 4.9).

Directives are not case-sensitive, and the last one of a kind counts; lines that begin with ! ; # or % are
comments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

from lab.core.timesync.texts import real, words

COMMENTS = "!;#%"
SOURCES = ("server", "pool", "peer")
ELSEWHERE = ("include", "confdir", "sourcedir")

POLL, REFCLOCK_POLL = (6, 10), 4
"""Defaults of minpoll and maxpoll of a server and of poll of a reference clock; powers of two in seconds."""

READINGS = 64
"""The default of a reference clock's filter."""

LEAST_POLL, MOST_POLL = -7, 24
MIN_SAMPLES, MAX_SAMPLES = 6, 64
MAX_SLEW_PPM = Fraction(250_000, 3)
"""The default of maxslewrate: 83333.333 ppm."""


@dataclass(frozen=True)
class Source:
    """A server or a reference clock. minpoll, maxpoll: powers of two in seconds, of one sample each. samples:
    the least number for its statistics. offline: it is not polled until chronyc sets it online. readings: the
    largest number of a reference clock's readings in one sample. offset_s: added to each."""

    kind: str
    address: str
    minpoll: int
    maxpoll: int
    samples: int = MIN_SAMPLES
    offline: bool = False
    readings: int = 1
    offset_s: Fraction = Fraction(0)

    @property
    def is_rtc(self) -> bool:
        return self.kind == "refclock" and self.address.startswith("RTC ")


@dataclass(frozen=True)
class Makestep:
    """The directive makestep: offsets beyond `threshold_s` are stepped in the first `limit` updates of the
    clock; always when negative."""

    threshold_s: Fraction
    limit: int


@dataclass(frozen=True)
class Maxchange:
    """The directive maxchange: offsets beyond `offset_s` are ignored `ignore` times (always when negative),
    then chronyd ends; the first `start` updates are exempt."""

    offset_s: Fraction
    start: int
    ignore: int


@dataclass(frozen=True)
class ChronyConf:
    """The relevant directives. elsewhere: other files have more of the configuration."""

    sources: tuple[Source, ...] = ()
    makestep: Makestep | None = None
    maxchange: Maxchange | None = None
    max_slew_ppm: Fraction = MAX_SLEW_PPM
    elsewhere: bool = False


def _options(given: Sequence[str]) -> dict[str, int]:
    """Each option with a whole number as its value."""
    found = {}
    for name, value in pairwise(given):
        try:
            found[name.lower()] = int(value)
        except ValueError:
            continue
    return found


def _log2_up(count: int) -> int:
    return max(0, count - 1).bit_length()


def _server(kind: str, rest: Sequence[str], fewest: int, most: int) -> Source | None:
    """`filter N` makes one sample of N polls. A maxpoll below minpoll is raised to it (ntp_core.c,
    NCR_CreateInstance); polls below 2^0 s are for round trips below 10 ms only."""
    if not rest:
        return None
    given = _options(rest[1:])
    low = given.get("minpoll", POLL[0])
    if not LEAST_POLL <= low <= MOST_POLL:
        low = POLL[0]
    high = given.get("maxpoll", POLL[1])
    if not LEAST_POLL <= high <= MOST_POLL:
        high = POLL[1]
    wait = _log2_up(given.get("filter", 1))
    samples = min(given.get("minsamples", fewest), given.get("maxsamples", most))
    offline = "offline" in (word.lower() for word in rest[1:])
    return Source(kind, rest[0], low + wait, max(low, high) + wait, max(1, samples), offline)


def _refclock(rest: Sequence[str], fewest: int, most: int) -> Source | None:
    if len(rest) < 2:
        return None
    given = _options(rest[2:])
    poll = given.get("poll", REFCLOCK_POLL)
    samples = min(given.get("minsamples", fewest), given.get("maxsamples", most))
    each_poll = 1 << min(max(0, poll - given.get("dpoll", 0)), MOST_POLL)
    readings = min(max(1, given.get("filter", READINGS)), each_poll)
    offsets = [real(value) for name, value in pairwise(rest[2:]) if name.lower() == "offset"]
    offset_s = (offsets[-1] if offsets else None) or Fraction(0)
    address = f"{rest[0].upper()} {rest[1]}"
    return Source("refclock", address, poll, poll, max(1, samples), readings=readings, offset_s=offset_s)


def parse(config: str) -> ChronyConf:
    """The directives as chronyd would apply them; a line that it would refuse is left out."""
    lines = words(config, COMMENTS)
    common = {line[0].lower(): _options(line) for line in lines}
    # Zero stands for the default (conf.c).
    fewest = common.get("minsamples", {}).get("minsamples", 0) or MIN_SAMPLES
    most = common.get("maxsamples", {}).get("maxsamples", 0) or MAX_SAMPLES
    made = ChronyConf()
    for name, *rest in lines:
        directive, numbers = name.lower(), [real(word) for word in rest]
        if directive in SOURCES or directive == "refclock":
            one = (
                _refclock(rest, fewest, most)
                if directive == "refclock"
                else _server(directive, rest, fewest, most)
            )
            made = replace(made, sources=(*made.sources, one) if one else made.sources)
        elif directive in ELSEWHERE:
            made = replace(made, elsewhere=True)
        elif directive == "makestep" and len(numbers) == 2:
            threshold, limit = numbers
            if threshold is not None and limit is not None:
                made = replace(made, makestep=Makestep(threshold, int(limit)))
        elif directive == "maxchange" and len(numbers) == 3:
            offset, start, ignore = numbers
            if offset is not None and start is not None and ignore is not None:
                made = replace(made, maxchange=Maxchange(offset, int(start), int(ignore)))
        elif directive == "maxslewrate" and len(numbers) == 1 and numbers[0] is not None:
            made = replace(made, max_slew_ppm=numbers[0])
    return made
