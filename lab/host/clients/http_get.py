"""HTTP requests, each in a thread and on a connection of its own, so that one that hangs delays no other."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass

from lab.host.clients.base import raw_ns

MOST_BODY = 4 << 20


@dataclass(frozen=True)
class HttpAnswer:
    """status: 0: there was none, and error says why. Times are host MONOTONIC_RAW."""

    sent_ns: int
    done_ns: int
    status: int
    body: bytes = b""
    error: str = ""


def get(address: str, port: int, path: str, timeout_s: float) -> HttpAnswer:
    """Ask, and wait for the answer."""
    sent = raw_ns()
    connection = http.client.HTTPConnection(address, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(MOST_BODY)
        return HttpAnswer(sent, raw_ns(), response.status, body)
    except TimeoutError:
        return HttpAnswer(sent, raw_ns(), 0, error="timed out")
    except (OSError, http.client.HTTPException) as error:
        why = error.strerror if isinstance(error, OSError) else type(error).__name__
        return HttpAnswer(sent, raw_ns(), 0, error=why or type(error).__name__)
    finally:
        connection.close()


class HttpRequests:
    """At most `most` at a time: a frozen server would otherwise cost a thread a request for ever."""

    def __init__(self, address: str, port: int, timeout_s: float, most: int = 256) -> None:
        self._address, self._port, self._timeout_s = address, port, timeout_s
        self._free = threading.BoundedSemaphore(most)

    def start(self, path: str, then: Callable[[HttpAnswer], None]) -> None:
        """Ask in a thread, which then calls `then`."""
        if not self._free.acquire(blocking=False):
            now = raw_ns()
            then(HttpAnswer(now, now, 0, error="too many requests wait"))
            return
        threading.Thread(target=self._run, args=(path, then), daemon=True).start()

    def _run(self, path: str, then: Callable[[HttpAnswer], None]) -> None:
        try:
            then(get(self._address, self._port, path, self._timeout_s))
        finally:
            self._free.release()
