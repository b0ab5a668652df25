"""The OpenAPI document of a metadata service's control side (events.control), and the check of what is asked.

Requests are checked against the document's own schemas, so it cannot promise what is not accepted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lab.core.scheduled.cloud import Cloud
from lab.core.scheduled.model import EventSource, EventType, Fault, State
from lab.core.units import NS_PER_S

SCHEMA = "freezelab.service/1"
VERBS = ("approve", "start", "cancel", "finish")
LONGEST_NS = 366 * 86_400 * NS_PER_S

Schema = dict[str, Any]

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
    "null": type(None),
}  # fmt: skip


def _nullable(kind: str, **more: Any) -> Schema:
    return {"type": [kind, "null"], **more}


def _words(values: Sequence[str], **more: Any) -> Schema:
    return {"type": "string", "enum": list(values), **more}


def _object(properties: Mapping[str, Schema], **more: Any) -> Schema:
    """An answer's object: all of its members are always there, and there may be more one day."""
    return {"type": "object", "required": list(properties), "properties": dict(properties), **more}


_TEXTS: Schema = {"type": "array", "items": {"type": "string"}}
_TIME = _nullable("string", format="date-time")
_ANSWERS = "|".join(re.escape(fault.value) for fault in Fault)

ANNOUNCE: Schema = {
    "type": "object",
    "description": "An event for each availability set (in Azure) or guest among those named.",
    "additionalProperties": False,
    "properties": {
        "guests": {**_TEXTS, "description": "The event's guests. A service with one guest needs no name."},
        "all": {"type": "boolean", "description": "For all guests of the service."},
        "type": _words([kind.value for kind in EventType], default=EventType.FREEZE.value),
        "notice_ns": _nullable(
            "integer", minimum=0, maximum=LONGEST_NS,
            description="Until NotBefore, nanoseconds of the service's time. 0: Started at once. null: the "
            "type's documented minimum.",
        ),
        "over_after_ns": _nullable(
            "integer", minimum=0, maximum=LONGEST_NS,
            description="The event is over this long after its start, real time. null: until it is finished.",
        ),
        "duration_s": _nullable(
            "integer", minimum=-1, maximum=(1 << 31) - 1,
            description="DurationInSeconds; -1: unknown. null: by over_after_ns, or 5.",
        ),
        "source": _words([source.value for source in EventSource], default=EventSource.PLATFORM.value),
        "description": {"type": "string", "description": "The event's Description; empty: the lab's."},
        "answers": {
            "type": "array",
            "description": "The next answers to each guest, on purpose; after them, correct ones.",
            "items": {
                "anyOf": [
                    {"type": "string", "pattern": f"^({_ANSWERS}|late [0-9.]+ ?[a-z]+)$"},
                    {
                        "type": "object",
                        "description": "A document. $NAME in its body becomes the guest's name in events.",
                        "additionalProperties": False,
                        "required": ["name", "body"],
                        "properties": {"name": {"type": "string"}, "body": {"type": "string"}},
                    },
                ]
            },
        },
        "restarts": {"type": "boolean", "description": "The incarnation restarts at 1."},
    },
}  # fmt: skip

_EVENT = _object(
    {
        "id": {"type": "string", "format": "uuid"},
        "type": _words([kind.value for kind in EventType]),
        "state": _words(
            [state.value for state in State],
            description="unheard: no guest had asked for events, so none gets this one.",
        ),
        "resources": {**_TEXTS, "description": "The event's guests."},
        "group": {"type": "string", "description": "The guests that see it: a set, or one guest."},
        "published": _TIME,
        "not_before": _TIME,
        "left_s": {"type": "number", "description": "Real seconds to NotBefore, 0 when it has passed."},
        "duration_s": {"type": "integer"},
        "source": _words([source.value for source in EventSource]),
        "description": {"type": "string"},
        "seen": {**_TEXTS, "description": "Guests that got it, in any state."},
        "approved": {**_TEXTS, "description": "Who approved it, in their order."},
        "started": _TIME,
        "gone": {**_TIME, "description": "When it was over, or called off."},
        "over_after_s": _nullable("number"),
    }
)

_COUNTS = _object(
    {
        "requests": {"type": "integer"},
        "polls": {"type": "integer"},
        "documents": {"type": "integer"},
        "acknowledgements": {"type": "integer"},
        "refused": {
            "type": "object",
            "additionalProperties": {"type": "integer"},
            "description": "By status.",
        },
    }
)

_GUEST = _object(
    {
        "guest": {"type": "string"},
        "name": {"type": "string", "description": "Its name in events."},
        "set": {"type": "string", "description": "Its availability set or scale set; empty: none."},
        "asks": {"type": "boolean", "description": "It has asked since its events were enabled."},
        "silent_s": _nullable("number", description="Since a guest of its group has asked; null: disabled."),
        "socket": {"type": "string", "description": "The Unix socket of its metadata service."},
        "counts": {"$ref": "#/components/schemas/Counts"},
    }
)

_DOORS: Schema = {
    "type": "array",
    "description": "Address, port and guest of each TCP listener.",
    "items": {
        "type": "array",
        "prefixItems": [{"type": "string"}, {"type": "integer"}, {"type": "string"}],
        "minItems": 3,
        "maxItems": 3,
    },
}

_IDENT: Schema = {"type": "string", "const": SCHEMA}
_EVENTS: Schema = {"type": "array", "items": {"$ref": "#/components/schemas/Event"}}

SCHEMAS: dict[str, Schema] = {
    "Announce": ANNOUNCE,
    "Event": _EVENT,
    "Events": _object({"schema": _IDENT, "events": _EVENTS}),
    "Counts": _COUNTS,
    "Guest": _GUEST,
    "Service": _object(
        {
            "schema": _IDENT,
            "name": {"type": "string"},
            "cloud": _words([cloud.value for cloud in Cloud]),
            "time_factor": {"type": "number"},
            "doors": _DOORS,
            "guests": {"type": "array", "items": {"$ref": "#/components/schemas/Guest"}},
        }
    ),
    "Error": _object(
        {
            "error": _object(
                {"what": {"type": "string"}, "where": {"type": "string"}, "hint": {"type": "string"}}
            )
        }
    ),
}


def openapi() -> dict[str, Any]:
    """The document, as JSON values."""
    event = {
        "name": "event", "in": "path", "required": True,
        "description": "The event's id, or its beginning, in any case.",
        "schema": {"type": "string", "pattern": "^[0-9A-Fa-f-]{1,36}$"},
    }  # fmt: skip
    verb = {"name": "verb", "in": "path", "required": True, "schema": _words(VERBS)}
    body = {"required": True, "content": _content("Announce")}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "freezelab events",
            "version": SCHEMA.rpartition("/")[2],
            "description": "Controls a metadata service that runs without a playbook: freezelab events "
            "serve. It listens on the Unix socket events/NAME/control in freezelab's state folder, and at "
            "the address of --control. Times of the host are UTC.",
        },
        "servers": [{"url": "http://localhost"}],
        "paths": {
            "/service": {"get": _operation("getService", "The service and its guests.", "Service")},
            "/events": {
                "get": _operation("listEvents", "All events that were announced, oldest first.", "Events"),
                "post": _operation("announceEvents", "Announce events.", "Events", requestBody=body),
            },
            "/events/{event}/{verb}": {
                "post": _operation(
                    "changeEvent",
                    "Approve an event on behalf of its guests, start it, call it off before its start, or "
                    "finish it after that.",
                    "Event",
                    parameters=[event, verb],
                )
            },
            "/openapi.json": {
                "get": _operation("getOpenApi", "This document.", None),
            },
        },
        "components": {"schemas": SCHEMAS},
    }


def mismatch(value: object, schema: Schema, at: str = "") -> str:
    """Why a request's JSON value does not match a schema of this module; "" when it does. at: its place."""
    where = f"{at}: " if at else ""
    if "anyOf" in schema:
        reasons = [mismatch(value, one, at) for one in schema["anyOf"]]
        return "" if "" in reasons else f"{where}{_shown(value)} is not one of the allowed forms"
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(_is_a(value, kind) for kind in kinds):
        return f"{where}{_shown(value)} is not of type {' or '.join(kinds)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where}{_shown(value)} is unknown; known: {', '.join(schema['enum'])}"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        return f"{where}{_shown(value)} is not allowed"
    if _is_a(value, "integer") and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        return f"{where}{_shown(value)} is not between {schema['minimum']} and {schema['maximum']}"
    if isinstance(value, list):
        found = (mismatch(one, schema["items"], f"{at}[{index}]") for index, one in enumerate(value))
        return next(filter(None, found), "")
    if isinstance(value, dict):
        return _object_mismatch(value, schema, at)
    return ""


def _object_mismatch(value: dict[str, object], schema: Schema, at: str) -> str:
    known: dict[str, Schema] = schema["properties"]
    for name in schema.get("required", ()):
        if name not in value:
            return f"{at}: {name} is missing"
    for name, one in value.items():
        if name not in known:
            return f"{at}{': ' if at else ''}there is no member {_shown(name)}; known: {', '.join(known)}"
        if why := mismatch(one, known[name], f"{at}.{name}".lstrip(".")):
            return why
    return ""


def _is_a(value: object, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and not (isinstance(value, bool) and kind in ("integer", "number"))


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _content(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _operation(name: str, summary: str, answers: str | None, **more: Any) -> dict[str, Any]:
    content = _content(answers) if answers else {"application/json": {"schema": {"type": "object"}}}
    return {
        "operationId": name,
        "summary": summary,
        **more,
        "responses": {
            "200": {"description": "Done.", "content": content},
            "400": {"description": "Refused; nothing was changed.", "content": _content("Error")},
        },
    }
