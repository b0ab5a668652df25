"""Plays a live HLS stream. A request is a look at the player each period: it succeeds while it plays.

A viewer loads the playlist twice a segment, and segments one after another. When the guest begins a new
session (before each cycle), a new viewer takes the place of the one before, as soon as it plays.
"""

from __future__ import annotations

import threading
import time

from lab.core.workload.shipped.hls import PLAYLIST, PORT, SESSION, SKIPPED, STALL
from lab.host.clients.base import arguments, hello, print_sample, raw_ns, schedule
from lab.host.clients.hls_player import Segment, Viewer, segments
from lab.host.clients.http_get import get

TIMEOUT_S = 4.0
EVERY_S = 0.5


class StreamLoader:
    """Loads for the viewer, in a thread. viewer: the one that plays; changed_ns: when the playlist was found
    to have changed. Both may be read at any time."""

    def __init__(self, address: str, buffer: int, segment_ns: int) -> None:
        self._address, self._buffer = address, buffer
        self.lock = threading.Lock()
        self.viewer = Viewer(buffer)
        self._coming: Viewer | None = None
        self._session, self._text = b"", b""
        self.changed_ns = raw_ns()
        self._every_s = min(EVERY_S, segment_ns / 2e9)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            self._look()
            time.sleep(max(0.0, began + self._every_s - time.monotonic()))

    def _look(self) -> None:
        answer = get(self._address, PORT, PLAYLIST, TIMEOUT_S)
        if answer.status != 200:
            return
        if answer.body != self._text:
            self._text, self.changed_ns = answer.body, answer.done_ns
        try:
            listed = segments(answer.body.decode("utf-8", "replace"))
        except ValueError:
            return
        self._load(self.viewer, listed)
        session = get(self._address, PORT, SESSION, TIMEOUT_S)
        if session.status == 200 and session.body != self._session:
            if self._session:
                self._coming = Viewer(self._buffer)
            self._session = session.body
        if self._coming is not None:
            self._load(self._coming, listed)
            if self._coming.playing:
                with self.lock:
                    self.viewer, self._coming = self._coming, None

    def _load(self, viewer: Viewer, listed: list[Segment]) -> None:
        skipped = viewer.skipped
        while (segment := viewer.wanted(listed)) is not None:
            answer = get(self._address, PORT, f"/{segment.uri}", TIMEOUT_S)
            if answer.status != 200:
                break
            with self.lock:
                viewer.loaded(segment, answer.done_ns)
        if viewer is self.viewer:
            for _ in range(viewer.skipped - skipped):
                print_sample(event=SKIPPED, at=raw_ns())


def main() -> None:
    given = arguments()
    name, address = next(iter(given.guests.items()))
    loader = StreamLoader(address, int(given.options["buffer"]), int(given.options["segment_s"]) * 10**9)
    hello(given.period_ns)
    for number, due in schedule(given.period_ns):
        with loader.lock:
            now = raw_ns()
            viewer = loader.viewer
            stalled = viewer.advance(now)
            playing, buffered = viewer.playing, viewer.buffered_ns
        if stalled is not None:
            print_sample(event=STALL, at=stalled, by=name)
        if not viewer.started:
            continue
        print_sample(
            seq=number, due=due, sent=now, done=now, ok=playing, error="" if playing else "stalled", by=name,
            gauge={"buffer_ns": buffered, "playlist_age_ns": max(0, now - loader.changed_ns)},
        )  # fmt: skip


if __name__ == "__main__":
    main()
