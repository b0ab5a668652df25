"""One client's connection: uvicorn's HTTP/1.1 with limits, and with errors that say what was wrong.

h11 and not httptools, uvicorn's other parser: on one core of the development machine the one makes some 6,000
requests a second and the other 9,000, which is more than enough; but httptools has no limit for headers (it
took 200 MB), and its requests in a pipeline do not learn that the client has left. h11 is strict, bounds a
request's head, and reads no further than the request that it is at, so that pipelining costs no memory. What
uvicorn does not do with it is added here: a limit of time for a request to arrive in, one of connections, and
answers in JSON to what is not HTTP.
"""

from __future__ import annotations

import asyncio
import json
import sys
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from lab.core.scheduled.requests import SERVER

MOST_CONNECTIONS = 256
"""Of one guest. When one more comes, the one that has been silent for longest goes."""

REQUEST_S = 3600.0
"""How long a request may take to arrive, from its first byte. A client may be frozen in the middle of one,
and is served when it comes back; that costs nothing but its connection."""

LINGER_S = 2.0
LINGER_BYTES = 1 << 20
"""What a client still sends after an error is read and dropped, up to so much: it reads the error only when
it has written all."""

HALF_CLOSED_S = 1.0
"""A client that has closed its side gets the answer that is under way, if it comes within this. One that has
left looks the same."""

_SAYS = {
    HTTPStatus.BAD_REQUEST: "Bad request. This is not HTTP/1.1.",
    HTTPStatus.REQUEST_TIMEOUT: "The request did not arrive in time.",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "The request's head is too large.",
}


class ServiceProtocol(H11Protocol):
    """asyncio makes one for each connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.active_s = self.loop.time()
        self._too_late: asyncio.TimerHandle | None = None
        self._deaf = self._half_closed = False
        self._dropped = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        mates = [
            one for one in self.connections if isinstance(one, ServiceProtocol) and one.server == self.server
        ]
        if len(mates) > MOST_CONNECTIONS:
            oldest = min((one for one in mates if one is not self), key=lambda one: one.active_s)
            oldest.transport.abort()
            self.connections.discard(oldest)

    def connection_lost(self, exc: Exception | None) -> None:
        self._await_rest(False)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.active_s = self.loop.time()
        if not self._deaf:
            super().data_received(data)
            self._await_rest(self._is_partial())
            return
        self._dropped += len(data)
        if self._dropped > LINGER_BYTES:
            self.transport.abort()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        cycle = self._answering()
        if self._deaf or cycle is None or cycle.more_body:
            return None  # asyncio closes
        self._half_closed = True
        self.loop.call_later(HALF_CLOSED_S, self.transport.close)
        return True

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._answering() is not None:  # the next one, which was there already
            return
        if self._half_closed:
            self.transport.close()
        elif self.conn.their_state is h11.SEND_BODY:  # answered before all of it was read
            self._linger()
        else:
            self._await_rest(self._is_partial())

    def send_400_response(self, msg: str) -> None:
        """What arrives is not HTTP. Called while h11's error is handled, which knows the status."""
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        self._refuse(HTTPStatus(status), str(error or msg)[:120] if status == HTTPStatus.BAD_REQUEST else "")

    def shutdown(self) -> None:
        """The service stops: nobody is waited for."""
        self.transport.abort()

    # -- within ------------------------------------------------------------------------------------

    def _answering(self) -> RequestResponseCycle | None:
        """The request that is being answered."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn does not say that there may be none
        return cycle if cycle is not None and not cycle.response_complete else None

    def _is_partial(self) -> bool:
        """A request has begun to arrive."""
        their = self.conn.their_state
        return their is h11.SEND_BODY or (their is h11.IDLE and bool(self.conn.trailing_data[0]))

    def _await_rest(self, wanted: bool) -> None:
        if wanted and self._too_late is None:
            self._too_late = self.loop.call_later(REQUEST_S, self._refuse, HTTPStatus.REQUEST_TIMEOUT, "")
        elif not wanted and self._too_late is not None:
            self._too_late.cancel()
            self._too_late = None

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        """Answer what cannot be answered by the application."""
        if self._deaf or self.transport.is_closing():
            return
        if (cycle := self._answering()) is not None:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.abort()
                return
        said = _SAYS.get(status, status.phrase)
        body = json.dumps({"error": f"{said} ({why})" if why else said}).encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nserver: {SERVER}\r\nconnection: close\r\n"
            f"content-type: application/json; charset=utf-8\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode("latin-1") + body)
        self._linger()

    def _linger(self) -> None:
        """Close, when the client has had time to read the answer."""
        self._deaf = True
        self._await_rest(False)
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.abort)
