"""A metadata service that is asked without a network: two groups of guests, an event for each."""

from __future__ import annotations

import json
from typing import Any

from lab.core.clock import Stamp
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.machine import Machine
from lab.core.scheduled.model import (
    EventType,
    Happening,
    Kind,
    Notice,
    Rules,
)
from lab.core.scheduled.requests import Answer, Request, answer

S = 1_000_000_000
GROUPS = {"a0": "a", "a1": "a", "b0": "b"}
ABOUTS = {guest: InstanceInfo(guest, f"{group}_{guest}", "id", "lab-1") for guest, group in GROUPS.items()}
META = (("Metadata", "true"),)
EVENTS = "/metadata/scheduledevents"
NEWEST = "api-version=2020-07-01"
INSTANCE = "/metadata/instance"
OLD = "api-version=2019-06-01"
ONE = "602D9444-D2CD-49C7-8624-8643E7171297"
OTHERS = "602D9444-D2CD-49C7-8624-000000000000"


def at(second: float) -> Stamp:
    return Stamp(round(second * S), 1_700_000_000 * S + round(second * S))


class Service:
    """A machine with both groups switched on and an event for each."""

    def __init__(self, rules: Rules = Rules(), announced: bool = True) -> None:  # noqa: B008 - frozen
        self.machine = Machine(GROUPS, rules)
        self.now = 1.0
        if announced:
            for guest, group, one in (("a0", "a", ONE), ("b0", "b", OTHERS)):
                self.machine.admit(at(0), guest)
                notice = Notice(group, (guest,), EventType.FREEZE, 900 * S, 9, "Host is patched.")
                self.machine.announce(at(0), notice, one)
            self.machine.happened()

    def ask(
        self,
        path: str = EVENTS,
        query: str = NEWEST,
        headers: tuple[tuple[str, str], ...] = META,
        *,
        verb: str = "GET",
        body: bytes = b"",
        guest: str = "a0",
    ) -> Answer:
        return answer(self.machine, ABOUTS, guest, at(self.now), Request(verb, path, query, headers, body))

    def approve(self, body: bytes | object, *headers: tuple[str, str], guest: str = "a0") -> Answer:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask(headers=META + headers, verb="POST", body=sent, guest=guest)

    def refused(self) -> list[Happening]:
        return [one for one in self.machine.happened() if one.kind is Kind.REFUSED]


def header(given: Answer, name: str) -> str | None:
    return dict(given.headers).get(name)


def parsed(given: Answer) -> Any:
    assert header(given, "Content-Type") == "application/json; charset=utf-8"
    return json.loads(given.body)


def ids(given: Answer) -> list[str]:
    assert given.status == 200
    return [event["EventId"] for event in parsed(given)["Events"]]
