#!/usr/bin/env python3
"""A handler of Scheduled Events. Once a second it polls, and acknowledges those of other machines alone."""

from __future__ import annotations

import json
import time
from http.client import HTTPConnection, HTTPException
from typing import Any

EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"
INSTANCE = "/metadata/instance?api-version=2021-02-01"


def ask(verb: str, path: str, body: Any = None) -> Any:
    connection = HTTPConnection("169.254.169.254", timeout=150)
    try:
        connection.request(verb, path, body and json.dumps(body), {"Metadata": "true"})
        return json.loads(connection.getresponse().read() or b"null")
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()


name, acknowledged = None, set[str]()
while True:
    about = None if name else ask("GET", INSTANCE)
    name = about["compute"]["name"] if about else name
    for event in (ask("GET", EVENTS) or {}).get("Events", ()):
        new = event["EventStatus"] == "Scheduled" and event["EventId"] not in acknowledged
        if new and name not in event["Resources"]:
            ask("POST", EVENTS, {"StartRequests": [{"EventId": event["EventId"]}]})
            acknowledged.add(event["EventId"])
    time.sleep(1)
