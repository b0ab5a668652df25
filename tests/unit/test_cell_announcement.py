"""What becomes of handlers, and of the service, while a cell is announced: waiting for the first request, and
the end."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from lab.core.announcement import ENABLED_WITHIN_NS
from lab.core.handlers import HandlerEnd
from lab.core.history import HandlerEnded, HistoryEvent, ServiceFailed
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.model import Rules
from lab.core.units import NS_PER_S
from lab.errors import GuestError
from lab.events.service import MetadataService
from lab.process.clock import HostClock
from lab.session.announcer import CellMetadataService

DIED = HandlerEnd("dies.py", "exit-code", "exited", "1", "KeyError: 'Events'")


class Handler:
    """One that has ended, or never asks. end: known only once it was looked at."""

    def __init__(self, ended: HandlerEnd | None) -> None:
        self._ended = ended
        self.end: HandlerEnd | None = None

    def look(self) -> HandlerEnd | None:
        self.end = self._ended
        return self.end


class Forward:
    """A guest's way to the service. why: the last reason that there was none."""

    def __init__(self, guest: str, up: bool, why: str) -> None:
        self.guest, self.up, self.why = guest, up, why


class Told:
    """The run's view and journal."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.events: list[HistoryEvent] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def append(self, event: HistoryEvent) -> None:
        self.events.append(event)


@pytest.fixture
def service() -> Iterator[MetadataService]:
    folder = Path(tempfile.mkdtemp(prefix="fl-"))
    with MetadataService([InstanceInfo("web-0", "web-0", "", "")], Rules(), HostClock(), folder) as running:
        yield running
    shutil.rmtree(folder)


def announcing(told: Told, handler: Handler) -> CellMetadataService:
    made = CellMetadataService(
        cast(Any, None), HostClock(), cast(Any, told), told, "cell", Path(), Path(), ""
    )
    made._handlers = cast(Any, {"web-0": handler})
    return made


def test_a_handler_that_dies_before_it_asks_is_told_at_once(service: MetadataService) -> None:
    began = time.monotonic()
    with pytest.raises(GuestError, match="its handler exited with status 1: KeyError: 'Events'"):
        announcing(Told(), Handler(DIED))._await(service, ["web-0"])
    assert time.monotonic() - began < ENABLED_WITHIN_NS / NS_PER_S / 2


def test_an_end_is_told_once_and_recorded_for_the_cell(service: MetadataService) -> None:
    told, handler = Told(), Handler(DIED)
    one = announcing(told, handler)
    assert one.handler_end("web-0") == one.handler_end("web-0") == DIED
    assert one.handler_end("web-1") is None
    assert told.notes == ["the handler in guest web-0 exited with status 1: KeyError: 'Events'"]
    one._farewell(service, [])
    assert told.events == []  # it is in its cycle already


def test_what_ends_after_the_last_cycle_is_recorded_too(service: MetadataService) -> None:
    told, handler = Told(), Handler(DIED)
    handler.look()  # as closing it does
    announcing(told, handler)._farewell(service, [])
    assert told.events == [HandlerEnded("web-0", DIED, "cell")]
    assert len(told.notes) == 1


def test_a_guest_that_was_cut_off_from_the_service_is_recorded(service: MetadataService) -> None:
    told = Told()
    ways = [
        Forward("a", True, ""),
        Forward("b", False, ""),
        Forward("c", True, "once"),
        Forward("d", False, "x"),
    ]
    announcing(told, Handler(None))._farewell(service, cast(Any, ways))
    trouble = "cannot be reached from guest d: x"
    assert told.events == [ServiceFailed(trouble, "cell")]
