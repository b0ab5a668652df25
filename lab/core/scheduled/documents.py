"""A group's document of events in each version of the API, and its ETag."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lab.core.scheduled.model import UNKNOWN_S, ApiVersion, Event, EventStatus, EventType, Notice
from lab.core.units import NS_PER_S

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAYS_OF_400_YEARS = 146_097
_EPOCH = 719_468  # days from 1 March of year 0 to 1 January 1970


def visible_events(events: Iterable[Event], version: ApiVersion) -> tuple[Event, ...]:
    """The events in a document of this version: those of types that it knows."""
    known = version.event_types
    return tuple(event for event in events if event.notice.type in known)


def document(
    incarnation: int, events: Sequence[Event], version: ApiVersion, name: Callable[[str], str]
) -> dict[str, Any]:
    """The document as JSON values. name: maps a guest to its compute name."""
    return {
        "DocumentIncarnation": incarnation,
        "Events": [_event(event, version, name) for event in visible_events(events, version)],
    }


def to_json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def etag(incarnation: int) -> str:
    """The ETag depends only on the incarnation: a repeated incarnation has the same ETag, whatever the
    document contains."""
    return f'"{incarnation}"'


def http_date(real_ns: int) -> str:
    """An instant of CLOCK_REALTIME as RFC 1123 has it, "Mon, 19 Sep 2016 18:29:47 GMT": always in English,
    and truncated to the second, so that it is not after the instant. Years 0 to 9999."""
    days, second = divmod(real_ns // NS_PER_S, 86_400)
    year, month, day = _civil(days)
    clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
    return f"{_DAYS[(days + 3) % 7]}, {day:02} {_MONTHS[month - 1]} {year:04} {clock} GMT"


def day_date(real_ns: int) -> str:
    """The same instant without the day of the week, "19 Sep 2016 18:29:47 GMT"."""
    return http_date(real_ns).partition(", ")[2]


def iso_date(real_ns: int) -> str:
    """An instant of CLOCK_REALTIME as ISO 8601 has it, "2026-11-30T02:29:29Z", truncated to the second."""
    days, second = divmod(real_ns // NS_PER_S, 86_400)
    year, month, day = _civil(days)
    return f"{year:04}-{month:02}-{day:02}T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z"


def _event(event: Event, version: ApiVersion, name: Callable[[str], str]) -> dict[str, Any]:
    notice, waits = event.notice, event.status is EventStatus.SCHEDULED
    prefix = "_" if version.is_preview else ""
    fields: dict[str, Any] = {
        "EventId": event.id,
        "EventStatus": event.status.value,
        "EventType": notice.type.value,
        "ResourceType": "VirtualMachine",
        "Resources": [prefix + name(guest) for guest in notice.resources],
        "NotBefore": http_date(event.not_before.real_ns) if waits else "",
    }
    return fields | {field: _FIELDS[field](notice) for field in version.fields}


_FIELDS: dict[str, Callable[[Notice], str | int]] = {
    "Description": lambda notice: notice.description,
    "EventSource": lambda notice: notice.source.value,
    "DurationInSeconds": lambda notice: notice.duration_s if notice.type is EventType.FREEZE else UNKNOWN_S,
}
"""The values of fields that not every version has (VersionTraits.fields)."""


def _civil(days: int) -> tuple[int, int, int]:
    """Year, month and day of a number of days since 1 January 1970, in the Gregorian calendar.

    The calculation begins years in March: then the leap day is the last day of a year, and the lengths of
    months repeat every 153 days.
    """
    era, day_of_era = divmod(days + _EPOCH, _DAYS_OF_400_YEARS)
    leaps = day_of_era // 1_460 - day_of_era // 36_524 + day_of_era // 146_096
    year = (day_of_era - leaps) // 365
    day_of_year = day_of_era - (365 * year + year // 4 - year // 100)
    march = (5 * day_of_year + 2) // 153
    month = march + 3 if march < 10 else march - 9
    return era * 400 + year + (month <= 2), month, day_of_year - (153 * march + 2) // 5 + 1
