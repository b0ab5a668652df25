"""The terms and values of Scheduled Events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum

from lab.core.clock import Stamp
from lab.core.units import NS_PER_S, format_duration, parse_duration


class EventType(StrEnum):
    """The type of an event."""

    FREEZE = "Freeze"
    REBOOT = "Reboot"
    REDEPLOY = "Redeploy"
    PREEMPT = "Preempt"
    TERMINATE = "Terminate"

    @property
    def minimum_notice_s(self) -> int:
        """The documented minimum; shorter notices occur."""
        return _NOTICE_S[self]


_NOTICE_S = {
    EventType.FREEZE: 900,
    EventType.REBOOT: 900,
    EventType.REDEPLOY: 600,
    EventType.PREEMPT: 30,
    EventType.TERMINATE: 300,
}


@dataclass(frozen=True)
class VersionTraits:
    """The additions of a version of the API.

    types: types of events; a version that does not know a type omits its events (the lab's choice). fields:
    fields of an event, by name; core.scheduled.documents has their values. preview: names of resources have a
    leading underscore, and the Metadata header is not required.
    """

    types: tuple[EventType, ...] = ()
    fields: tuple[str, ...] = ()
    preview: bool = False


class ApiVersion(StrEnum):
    """Versions of /metadata/scheduledevents, oldest first."""

    V2017_03_01 = "2017-03-01"
    V2017_08_01 = "2017-08-01"
    V2017_11_01 = "2017-11-01"
    V2019_01_01 = "2019-01-01"
    V2019_04_01 = "2019-04-01"
    V2019_08_01 = "2019-08-01"
    V2020_07_01 = "2020-07-01"

    @property
    def is_preview(self) -> bool:
        return _ADDS[self].preview

    @property
    def event_types(self) -> tuple[EventType, ...]:
        return tuple(kind for version, adds in _ADDS.items() if version <= self for kind in adds.types)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of an event, beside those of every version."""
        return tuple(name for version, adds in _ADDS.items() if version <= self for name in adds.fields)


_ADDS = {
    ApiVersion.V2017_03_01: VersionTraits(
        types=(EventType.FREEZE, EventType.REBOOT, EventType.REDEPLOY), preview=True
    ),
    ApiVersion.V2017_08_01: VersionTraits(),
    ApiVersion.V2017_11_01: VersionTraits(types=(EventType.PREEMPT,)),
    ApiVersion.V2019_01_01: VersionTraits(types=(EventType.TERMINATE,)),
    ApiVersion.V2019_04_01: VersionTraits(fields=("Description",)),
    ApiVersion.V2019_08_01: VersionTraits(fields=("EventSource",)),
    ApiVersion.V2020_07_01: VersionTraits(fields=("DurationInSeconds",)),
}


class EventStatus(StrEnum):
    """The status of an event in a document."""

    SCHEDULED = "Scheduled"
    STARTED = "Started"


class EventSource(StrEnum):
    """The originator of an event."""

    PLATFORM = "Platform"
    USER = "User"


UNKNOWN_S = -1
UNKNOWN_WINDOW_S = 3600
"""The window of an event whose duration is not known, in clouds whose notices have a window."""
"""DurationInSeconds when it is not known, and for every type but Freeze."""


@dataclass(frozen=True)
class Notice:
    """A notice to one delivery group.

    resources: the affected guests, all in `group`. notice_ns: from now to NotBefore, real time (after the
    time factor); 0 or less: Started at once. duration_s: the announced DurationInSeconds.
    """

    group: str
    resources: tuple[str, ...]
    type: EventType
    notice_ns: int
    duration_s: int = UNKNOWN_S
    description: str = ""
    source: EventSource = EventSource.PLATFORM


@dataclass(frozen=True)
class Event:
    """An announced event. id: an upper-case GUID. not_before: the host's clocks."""

    id: str
    notice: Notice
    status: EventStatus
    published: Stamp
    not_before: Stamp

    @property
    def preempts(self) -> bool:
        return self.notice.type is EventType.PREEMPT

    @property
    def window_end_real_ns(self) -> int:
        """The end of the window that begins at not_before; the host's CLOCK_REALTIME."""
        duration_s = self.notice.duration_s
        lasts_s = UNKNOWN_WINDOW_S if duration_s == UNKNOWN_S else duration_s
        return self.not_before.real_ns + lasts_s * NS_PER_S


class State(StrEnum):
    """The state of an announced event."""

    SCHEDULED = "scheduled"
    STARTED = "started"
    NOT_ENABLED = "unheard"  # the group never asked: it is not told, and nobody waits for it
    CANCELLED = "cancelled"
    OVER = "over"

    @property
    def waits(self) -> bool:
        """True when the maintenance still has to wait."""
        return self is State.SCHEDULED

    @property
    def is_shown(self) -> bool:
        return self in (State.SCHEDULED, State.STARTED)


class Kind(StrEnum):
    """The kinds of entries in an event's timeline."""

    ENABLED = "enabled"  # the group's first request
    DISABLED = "disabled"
    PUBLISHED = "published"
    NOT_ENABLED = "unheard"
    SEEN = "seen"  # a guest's first answer that has the event as Scheduled
    SEEN_STARTED = "seen-started"  # its first answer that has it as Started
    APPROVED = "approved"
    STARTED = "started"
    CANCELLED = "cancelled"
    GONE = "gone"
    SEEN_GONE = "seen-gone"  # the first answer without it, of a guest that had seen it
    RESTARTED = "restarted"  # the incarnation, at 1
    REFUSED = "refused"  # a request that was answered with an error, or wrongly on purpose: `text` says how


@dataclass(frozen=True)
class Happening:
    """An entry of the timeline, at an instant of the host's clocks.

    event: its id, "" for none. guest: the guest that caused it, "" for the service itself. incarnation: that
    of the group's document afterwards. text: for people.
    """

    at: Stamp
    kind: Kind
    group: str
    event: str = ""
    guest: str = ""
    incarnation: int = 0
    text: str = ""


class Enabling(Enum):
    """Who gets events. A group that was not enabled when an event was announced never gets it."""

    ASKING = "asking"  # a group that has asked, until it is silent for Rules.idle_s
    ASKING_AGAIN = "asking again"  # a group that has asked since its last event
    EVERYBODY = "everybody"


@dataclass(frozen=True)
class Rules:
    """The rules of a service. Seconds here are the service's: `time_factor` of them pass in a real one.

    most_per_second: the most requests of one guest in a real second before answers are 429; 0: no limit.
    first_answer_s: the delay of a group's first answer. events_after_s: from the first request until events
    are visible. idle_s: the time without a request after which a group is disabled.
    """

    time_factor: float = 60.0
    most_per_second: int = 0
    first_answer_s: float = 0.0
    events_after_s: float = 0.0
    idle_s: float = 24 * 3600.0
    enabling: Enabling = Enabling.ASKING

    def real_ns(self, service_s: float) -> int:
        """Seconds of the service in nanoseconds of the host."""
        return round(service_s * 1e9 / self.time_factor)


class Fault(StrEnum):
    """The deliberate faulty answers."""

    NOT_FOUND = "404"
    GONE = "410"
    TOO_MANY = "429"
    BROKEN = "500"
    UNAVAILABLE = "503"
    HANG = "hang"  # it is accepted and never answered
    EMPTY = "empty"  # 200, and nothing in it
    PLAIN = "plain"  # the document as text/plain
    NO_EVENTS = "no-events"  # the document without its member Events
    TRUNCATED = "truncated"  # half of the document, and the connection ends
    NONE = "200"  # the truth, for its place in a list of answers

    @property
    def is_document(self) -> bool:
        """True when it breaks a document: only polls get it, approvals do not."""
        return self in (Fault.EMPTY, Fault.PLAIN, Fault.NO_EVENTS, Fault.TRUNCATED)


@dataclass(frozen=True)
class Late:
    """The correct answer at the time of the request, sent after this much real time."""

    late_ns: int

    def __str__(self) -> str:
        return f"late {format_duration(self.late_ns)}"


@dataclass(frozen=True)
class Recorded:
    """A recorded document. name: for people. body: as it is sent; OWN_NAME in it becomes the compute.name of
    the requesting guest."""

    name: str
    body: str

    def __str__(self) -> str:
        return f"document {self.name}"


OWN_NAME = "$NAME"

OnPurpose = Fault | Late | Recorded
"""The deliberate answer to one request."""


def on_purpose(text: str, read: Callable[[str], str]) -> OnPurpose:
    """The answer in text form: a value of Fault, "late 5s", or "document FILE". read: reads the text of a
    file. ValueError for any other text."""
    word, _, rest = text.strip().partition(" ")
    if word == "late" and rest:
        return Late(parse_duration(rest))
    if word == "document" and rest:
        return Recorded(rest.strip(), read(rest.strip()))
    return Fault(text.strip())
