"""The samples of a workload's client, and the reader of the lines that it prints.

A client prints one JSON object a line. Its first line is a hello, and every other one is a sample:

    {"freezelab": 1, "clock": "realtime", "period_ns": 100000000}
    {"seq": 7, "due": …, "sent": …, "done": …, "ok": true, "stamp": …, "by": "db-0"}    a request
    {"seq": 8, "due": …, "sent": …, "done": …, "ok": false, "error": "timed out"}       one that failed
    {"got": 7, "at": …, "by": "consumer"}                                               a delivery
    {"state": {"leader": "db-0", "term": 3}, "sent": …, "done": …, "by": "db-1"}        a look at a state
    {"event": "disconnected", "at": …, "by": "db-0"}                                    a happening
    {"gauge": {"buffer_ns": 4000000000}, "at": …, "by": "player"}                       a measured value
    {"stamped": "log line", "stamp": …, "sent": …, "done": …, "by": "db-0"}             what a guest has dated

Times are integers in nanoseconds of the host's clock that the hello names: realtime (which every shell has),
monotonic or monotonic_raw. They become MONOTONIC_RAW when the line is read, so a line that is read late by
some seconds is off by as much as the host's clock was slewed meanwhile; monotonic_raw has no such error.

A request's `due` is when it was to be sent; without it, it is `sent`. Without `sent` it is `due`, or `done`
where there is none. `done` and `at` are when the line was read, where they are missing. `stamp` is
CLOCK_REALTIME in nanoseconds as the answering guest has written it. A request and a look may share a line.
Numbers go up from request to request and never come twice (judge.py checks it), also if the client restarts.
Gauges may share the line of a request, and are then of its `done`. A gauge's name ends with its unit: _ns,
_bit_s, or none for a number.

`stamped` is what a guest has dated beside its answers, such as a log line or a token, at some time between
`sent` and `done`. `unit_ns` is the unit of its stamp, which is cut off below it; default 1. `until` is, in
the same time as the stamp, from when on it is no longer valid.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from lab.core.clock import Interval, Stamp

PROTOCOL = 1
LONGEST_LINE = 16_384
"""The longest line of a client, in characters."""

LARGEST = 2**63 - 1
MOST_WORD = 120
MOST_KEYS = 32
MOST_KINDS = 16
"""Of what is stamped."""
LARGEST_UNIT_NS = 60_000_000_000

StateValue = str | int | bool | None


class SampleClock(StrEnum):
    """The host's clock of a client's times, by its name in clock_gettime(2)."""

    REALTIME = "realtime"
    MONOTONIC = "monotonic"
    MONOTONIC_RAW = "monotonic_raw"


@dataclass(frozen=True, slots=True)
class Hello:
    """A client's first line. period_ns: between two requests; None: unknown."""

    clock: SampleClock = SampleClock.MONOTONIC_RAW
    period_ns: int | None = None


@dataclass(frozen=True, slots=True)
class WorkloadRequest:
    """A request, answered or not. Times are host MONOTONIC_RAW.

    seq: its number, which no other request of the client has. ok: it was answered, or acknowledged, as
    asked. error: what went wrong, "" when nothing did. by: who answered, "" when unknown. stamp_ns: the
    answering guest's CLOCK_REALTIME; real_minus_raw_ns: the host's REALTIME minus MONOTONIC_RAW at that time.
    """

    seq: int
    due_ns: int
    sent_ns: int
    done_ns: int
    ok: bool
    error: str = ""
    by: str = ""
    stamp_ns: int | None = None
    real_minus_raw_ns: int = 0


@dataclass(frozen=True, slots=True)
class WorkloadDelivery:
    """The request `seq` has arrived at its consumer `by`, at host MONOTONIC_RAW at_ns."""

    seq: int
    at_ns: int
    by: str = ""


@dataclass(frozen=True, slots=True)
class StateLook:
    """The state according to `by`, as it was at some time between sent_ns and done_ns (host MONOTONIC_RAW).
    values: name and value; None: unknown."""

    sent_ns: int
    done_ns: int
    values: Mapping[str, StateValue]
    by: str = ""


@dataclass(frozen=True, slots=True)
class WorkloadEvent:
    """Something has happened, such as a lost connection, at host MONOTONIC_RAW at_ns."""

    name: str
    at_ns: int
    by: str = ""


@dataclass(frozen=True, slots=True)
class GaugeReading:
    """Values that were measured at host MONOTONIC_RAW at_ns, by name."""

    at_ns: int
    values: Mapping[str, int]
    by: str = ""


@dataclass(frozen=True, slots=True)
class WorkloadStamp:
    """What the guest `by` has dated at some time between sent_ns and done_ns (host MONOTONIC_RAW).

    what: its kind, such as a log line. stamp_ns: the guest's CLOCK_REALTIME, as it is written there, cut off
    below unit_ns. until_ns: from when on it is no longer valid, by the same clock; None: it has no end.
    real_minus_raw_ns: the host's REALTIME minus MONOTONIC_RAW at that time.
    """

    what: str
    sent_ns: int
    done_ns: int
    stamp_ns: int
    until_ns: int | None = None
    unit_ns: int = 1
    by: str = ""
    real_minus_raw_ns: int = 0


Sample = WorkloadRequest | WorkloadDelivery | StateLook | WorkloadEvent | GaugeReading | WorkloadStamp


class NotASample(ValueError):
    """A line that is no sample; its text says why, in one line."""


class SampleReader:
    """Reads a client's lines. mono_minus_raw_ns: the host's MONOTONIC minus MONOTONIC_RAW, for clients that
    use MONOTONIC; it changes by at most some parts in a thousand of the time that passes (adjtimex(2)).

    ahead: of a client in a guest: how far the guest's REALTIME, which is its clock, is ahead of the host's.
    """

    def __init__(self) -> None:
        self.hello: Hello | None = None
        self.ahead: Interval | None = None
        self._kinds: set[str] = set()

    def read(self, line: str, at: Stamp, mono_minus_raw_ns: int = 0) -> tuple[Sample, ...]:
        """The samples of a line that was read at `at`; () for the hello. NotASample when it is none."""
        if len(line) > LONGEST_LINE:
            raise NotASample(f"a line of {len(line)} characters; at most {LONGEST_LINE}")
        try:
            given = json.loads(line)
        except (ValueError, RecursionError):
            raise NotASample(f"not JSON: {_plain(line[:60])}") from None
        if not isinstance(given, dict):
            raise NotASample(f"not a JSON object: {_plain(line[:60])}")
        if "freezelab" in given:
            self._greet(given)
            return ()
        if self.hello is None:
            self.hello = Hello()
        found = _SampleLine(given, self.hello.clock, at, mono_minus_raw_ns, self.ahead).samples()
        self._kinds |= {one.what for one in found if isinstance(one, WorkloadStamp)}
        if len(self._kinds) > MOST_KINDS:
            raise NotASample(f"more than {MOST_KINDS} kinds of what is stamped")
        return found

    def _greet(self, given: Mapping[str, object]) -> None:
        if self.hello is not None:
            raise NotASample("the hello is not the first line")
        if given["freezelab"] != PROTOCOL or isinstance(given["freezelab"], bool):
            raise NotASample(f"protocol {_shown(given['freezelab'])} is unknown; known: {PROTOCOL}")
        clock = given.get("clock", SampleClock.MONOTONIC_RAW.value)
        if self.ahead is not None and clock != SampleClock.REALTIME:
            raise NotASample(f"clock {_shown(clock)}: a client in a guest has realtime")
        if clock not in list(SampleClock):
            raise NotASample(f"clock {_shown(clock)} is unknown; known: {', '.join(SampleClock)}")
        period = given.get("period_ns")
        if period is not None and (not _is_int(period) or not 0 < int(str(period)) <= LARGEST):
            raise NotASample(f"period_ns: {_shown(period)} is not a whole number of nanoseconds above 0")
        self.hello = Hello(SampleClock(str(clock)), None if period is None else int(str(period)))


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _plain(text: str) -> str:
    """The text without lone surrogates, which JSON can have and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _shown(value: object) -> str:
    return _plain(repr(value)[:60])


class _SampleLine:
    """One sample line, as it is taken apart."""

    def __init__(
        self,
        given: Mapping[str, object],
        clock: SampleClock,
        at: Stamp,
        mono_minus_raw_ns: int,
        ahead: Interval | None,
    ) -> None:
        self._given, self._at = given, at
        self._early_ns = EARLY_NS
        self._shift = {
            SampleClock.REALTIME: at.real_ns - at.raw_ns,
            SampleClock.MONOTONIC: mono_minus_raw_ns,
            SampleClock.MONOTONIC_RAW: 0,
        }[clock]
        if ahead is not None:
            self._shift += ahead.mid_ns
            self._early_ns += ahead.half_width_ns

    def samples(self) -> tuple[Sample, ...]:
        kinds = [key for key in ("seq", "got", "state", "event", "gauge", "stamped") if key in self._given]
        if not kinds:
            raise NotASample("a sample has seq, got, state, event, gauge or stamped")
        if len(kinds) > 1 and kinds not in (["seq", "state"], ["seq", "gauge"]):
            raise NotASample(f"{kinds[0]} and {kinds[1]} do not go together")
        found: list[Sample] = []
        by = self._word("by")
        if "seq" in kinds:
            found.append(self._request(by))
        if "got" in kinds:
            found.append(WorkloadDelivery(self._number("got"), self._time("at", self._at.raw_ns), by))
        if "state" in kinds:
            found.append(self._look(by))
        if "event" in kinds:
            name = self._word("event")
            if not name:
                raise NotASample("event has no name")
            found.append(WorkloadEvent(name, self._time("at", self._at.raw_ns), by))
        if "gauge" in kinds:
            found.append(self._gauges("done" if "seq" in kinds else "at", by))
        if "stamped" in kinds:
            found.append(self._stamped(by))
        return tuple(found)

    def _request(self, by: str) -> WorkloadRequest:
        seq = self._number("seq")
        done = self._time("done", self._at.raw_ns)
        sent = self._time("sent", self._time("due", done))
        due = self._time("due", sent)
        if not due <= sent <= done:
            raise NotASample(f"seq {seq}: due, sent and done are out of order")
        ok = self._given.get("ok")
        if not isinstance(ok, bool):
            raise NotASample(f"seq {seq}: ok is true or false")
        stamp = self._given.get("stamp")
        if stamp is not None:
            stamp = self._number("stamp")
        return WorkloadRequest(
            seq, due, sent, done, ok, self._word("error"), by, stamp,
            self._at.real_ns - self._at.raw_ns,
        )  # fmt: skip

    def _look(self, by: str) -> StateLook:
        values = self._given["state"]
        if not isinstance(values, dict) or len(values) > MOST_KEYS:
            raise NotASample(f"state is an object of at most {MOST_KEYS} names and values")
        for name, value in values.items():
            short = value is None or isinstance(value, bool | str) or _is_int(value)
            if not short or len(str(name)) > MOST_WORD or len(str(value)) > MOST_WORD:
                raise NotASample(
                    f"state {_plain(name[:40])}: a value is a short text, a whole number or null"
                )
        done = self._time("done", self._at.raw_ns)
        sent = self._time("sent", done)
        if sent > done:
            raise NotASample("a look at the state ends before it begins")
        plain = {_plain(name): _plain(v) if isinstance(v, str) else v for name, v in values.items()}
        return StateLook(sent, done, plain, by)

    def _gauges(self, when: str, by: str) -> GaugeReading:
        values = self._given["gauge"]
        if not isinstance(values, dict) or len(values) > MOST_KEYS:
            raise NotASample(f"gauge is an object of at most {MOST_KEYS} names and numbers")
        for name, value in values.items():
            if not name or len(name) > MOST_WORD or not _is_int(value) or abs(value) > LARGEST:
                raise NotASample(f"gauge {str(name)[:40]}: a value is a whole number")
        return GaugeReading(self._time(when, self._at.raw_ns), values, by)

    def _stamped(self, by: str) -> WorkloadStamp:
        what = self._word("stamped")
        if not what:
            raise NotASample("stamped has no name")
        done = self._time("done", self._at.raw_ns)
        sent = self._time("sent", done)
        if sent > done:
            raise NotASample(f"stamped {what[:40]}: sent and done are out of order")
        stamp, unit = self._number("stamp"), 1
        if self._given.get("unit_ns") is not None:
            unit = self._number("unit_ns")
        if not 0 < unit <= LARGEST_UNIT_NS:
            raise NotASample(f"unit_ns is from 1 to {LARGEST_UNIT_NS}")
        until = self._number("until") if self._given.get("until") is not None else None
        ahead = self._at.real_ns - self._at.raw_ns
        return WorkloadStamp(what, sent, done, stamp, until, unit, by, ahead)

    def _word(self, key: str) -> str:
        value = self._given.get(key, "")
        if not isinstance(value, str):
            raise NotASample(f"{key} is a text")
        return _plain(value[:MOST_WORD])

    def _number(self, key: str) -> int:
        value = self._given.get(key)
        if not _is_int(value) or not 0 <= int(str(value)) <= LARGEST:
            raise NotASample(f"{key} is a whole number from 0")
        return int(str(value))

    def _time(self, key: str, otherwise: int) -> int:
        """A time as MONOTONIC_RAW. A line cannot be about what happens after it was read, nor about what was
        before the host was booted: its times are of another clock than its hello says."""
        if self._given.get(key) is None:
            return otherwise
        time = self._number(key) - self._shift
        if time > self._at.raw_ns + self._early_ns:
            ahead = time - self._at.raw_ns
            other = "; is it of the clock that the hello names?" if ahead > FAR_NS else ""
            raise NotASample(f"{key} is {ahead / 1e9:.3g} s after the line was read{other}")
        if time < 0:
            raise NotASample(
                f"{key} is before this host was booted; is it of the clock that the hello names?"
            )
        return min(time, self._at.raw_ns)


FAR_NS = 3600 * 1_000_000_000

EARLY_NS = 5_000_000
"""How far a client's time may be ahead of the reading of its line: reading two clocks one after another is
not exact, and a busy host may stop a program between the two."""
