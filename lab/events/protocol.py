"""HTTP/1.1 for listeners of the metadata service: h11 reads and writes it, asyncio carries it.

A listener is a listening socket with a function that answers: requests and answers are values
(core.scheduled.requests), so there is no framework, and no task for a request. h11 is strict, bounds a
request's head, and reads no further than the request that it is at. What it leaves to its user is here:
limits of size, time and connections, and answers that are late, cut off or never come.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

import h11

from lab.core.scheduled.requests import MOST_BODY_BYTES, Answer, Request
from lab.core.units import NS_PER_S

MOST_CONNECTIONS = 256
"""Of one listener. When one more comes, the one that has been silent for longest goes."""

MOST_HEAD_BYTES = 16 << 10
"""Of the request line and headers together."""

MOST_AHEAD_BYTES = 64 << 10
"""What is read of further requests while one is being answered."""

REQUEST_S = 3600.0
"""How long a request may take to arrive, from its first byte. A client may be frozen in the middle of one,
and is served when it comes back; that costs nothing but its connection. Between requests a connection may be
idle for ever."""

LINGER_S = 2.0
LINGER_BYTES = 1 << 20
"""What a client still sends after an error is read and dropped, up to so much: it reads the error only when
it has written all."""

HALF_CLOSED_S = 1.0
"""A client that has closed its side gets the answer that is under way, if it comes within this. One that has
left looks the same."""

AGAIN_S = 0.02
"""How often a request is answered again that waits for a change."""

_PART = 16 << 10  # of what has arrived, that the parser is given at a time

_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_QUOTED = re.compile(r"[:,]? *\(?(?:bytearray\()?b['\"].*", re.DOTALL)
"""Where h11 begins to quote what it did not like, as Python writes bytes."""


@dataclass(eq=False)
class HttpListener:
    """answer: what a request is answered with. refuse: the same for what is no request, or a request that is
    too large: (status, why). Both are called in the loop's thread, and must neither wait nor raise."""

    answer: Callable[[Request], Answer]
    refuse: Callable[[HTTPStatus, str], Answer]
    connections: set[Connection] = field(default_factory=set)


class Connection(asyncio.Protocol):
    """asyncio makes one for each connection to a listener."""

    def __init__(self, listener: HttpListener, loop: asyncio.AbstractEventLoop) -> None:
        self._listener, self._loop = listener, loop
        self._http = h11.Connection(h11.SERVER, MOST_HEAD_BYTES)
        self._head = h11.Request(method="GET", target="/", headers=[], http_version="1.0")
        self._body = bytearray()
        self._ahead = bytearray()  # arrived, and not given to the parser yet
        self._begun = False  # a request has begun to arrive
        self._answering = self._full = self._deaf = self._half_closed = False
        self._too_late: asyncio.TimerHandle | None = None
        self._later: asyncio.TimerHandle | None = None
        self._dropped = 0
        self.active_s = loop.time()

    # -- asyncio.Protocol --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self.transport = transport
        mates = self._listener.connections
        if len(mates) >= MOST_CONNECTIONS:
            oldest = min(mates, key=lambda one: one.active_s)
            oldest.transport.abort()
            mates.discard(oldest)
        mates.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._listener.connections.discard(self)
        self._deaf = True
        self._await_rest(False)
        if self._later is not None:
            self._later.cancel()

    def data_received(self, data: bytes) -> None:
        self.active_s = self._loop.time()
        if self._deaf:
            self._dropped += len(data)
            if self._dropped > LINGER_BYTES:
                self.transport.abort()
            return
        self._ahead += data
        self._read()

    def eof_received(self) -> bool:
        if self._deaf or not self._answering:
            return False  # asyncio closes
        self._half_closed = True
        self._loop.call_later(HALF_CLOSED_S, self.transport.close)
        return True

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._read()

    # -- a request ---------------------------------------------------------------------------------

    @property
    def _busy(self) -> bool:
        return self._answering or self._full or self._deaf

    def _read(self) -> None:
        """Take and answer what has arrived, as long as answers can be sent."""
        self._take()
        while self._ahead and not self._busy:
            if not self._begun:  # RFC 9112, section 2.2: an empty line before a request is ignored
                self._ahead = self._ahead.lstrip(b"\r\n")
            part = bytes(self._ahead[:_PART])
            del self._ahead[:_PART]
            if part:
                self._begun = True
                self._http.receive_data(part)
                self._take()
        if self._deaf:
            return
        if len(self._ahead) > MOST_AHEAD_BYTES:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
        self._await_rest(self._begun and not self._answering)

    def _take(self) -> None:
        while self._begun and not self._busy:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                self._refuse(HTTPStatus(error.error_status_hint), _QUOTED.sub("", str(error)))
                return
            match event:
                case h11.Request():
                    self._begin(event)
                case h11.Data():
                    self._body += event.data
                    if len(self._body) > MOST_BODY_BYTES:
                        self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _TOO_LARGE)
                case h11.EndOfMessage():
                    self._answer()
                case _:
                    return

    def _begin(self, head: h11.Request) -> None:
        """Refuse what need not be read to its end."""
        self._head, headers = head, dict(head.headers)
        size = len(head.target) + sum(len(name) + len(value) for name, value in head.headers)
        if not head.http_version.startswith(b"1."):
            self._refuse(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.1 and 1.0 are supported")
        elif b"content-length" in headers and b"transfer-encoding" in headers:
            # RFC 9112, section 6.1: an attempt to smuggle; whatever is done, the connection ends.
            self._refuse(HTTPStatus.BAD_REQUEST, "Content-Length together with Transfer-Encoding")
        elif size > MOST_HEAD_BYTES:  # h11 minds one that comes in parts; what comes at once may be larger
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "")
        elif int(headers.get(b"content-length", b"0")) > MOST_BODY_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _TOO_LARGE)
        elif self._http.they_are_waiting_for_100_continue:
            interim = h11.InformationalResponse(status_code=HTTPStatus.CONTINUE, headers=[])
            self.transport.write(self._http.send(interim) or b"")

    def _answer(self) -> None:
        # RFC 9112, section 3.2.2: of the absolute form the path counts. Its host does as little as Host.
        absolute = _ABSOLUTE.match(self._head.target)
        target = self._head.target[absolute.end() if absolute else 0 :]
        path, _, query = target.decode("latin-1").partition("?")
        headers = tuple(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in self._head.headers
        )
        self._answering = True
        self._await_rest(False)  # the next request has its own time
        self._ask(Request(self._head.method.decode("ascii"), path or "/", query, headers, bytes(self._body)))

    def _ask(self, request: Request) -> None:
        given = self._listener.answer(request)
        if given.again is not None:
            self._later = self._loop.call_later(AGAIN_S, self._ask_again, given.again)
        elif given.after_ns and not given.never:
            self._later = self._loop.call_later(given.after_ns / NS_PER_S, self._send_late, given)
        elif not given.never:
            self._send(given)

    def _ask_again(self, request: Request) -> None:
        self._ask(request)
        if not self._answering:
            self._read()

    def _send_late(self, given: Answer) -> None:
        self._send(given)
        self._read()

    def _send(self, given: Answer) -> None:
        if given.hops is not None:
            self._limit_hops(given.hops)
        headers = list(given.headers)
        if given.status != HTTPStatus.NOT_MODIFIED:
            headers.append(("Content-Length", str(len(given.body))))
        self._write(given.status, headers, given.body[: given.cut_at], end=given.cut_at is None)
        self._answering = False
        if self._half_closed or self._http.our_state is not h11.DONE:
            self._linger()
            return
        self._http.start_next_cycle()
        self._body.clear()
        rest = self._http.trailing_data[0]
        if rest[:1] in (b"\r", b"\n"):  # h11 would take it for a request
            rest = rest.lstrip(b"\r\n")
            self._http = h11.Connection(h11.SERVER, MOST_HEAD_BYTES)
            if rest:
                self._http.receive_data(rest)
        self._begun = bool(rest)

    def _limit_hops(self, hops: int) -> None:
        """Packets on this connection go no further from now on: also those that are sent again later."""
        on = self.transport.get_extra_info("socket")
        if on.family == socket.AF_INET:
            on.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
        elif on.family == socket.AF_INET6:
            on.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)

    def _write(self, status: int, headers: list[tuple[str, str]], body: bytes, end: bool = True) -> None:
        response = h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase)
        events = (response, h11.Data(data=body), *((h11.EndOfMessage(),) if end else ()))
        self.transport.write(b"".join(self._http.send(event) or b"" for event in events))

    # -- errors, and patience ----------------------------------------------------------------------

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        """Answer what is no request, and read nothing more."""
        given = self._listener.refuse(status, why)
        headers = [*given.headers, ("Content-Length", str(len(given.body))), ("Connection", "close")]
        self._write(status, headers, given.body)
        self._linger()

    def _await_rest(self, wanted: bool) -> None:
        if wanted and self._too_late is None:
            self._too_late = self._loop.call_later(REQUEST_S, self._refuse, HTTPStatus.REQUEST_TIMEOUT, "")
        elif not wanted and self._too_late is not None:
            self._too_late.cancel()
            self._too_late = None

    def _linger(self) -> None:
        """Close, when the client has had time to read the answer."""
        self._deaf = True
        self._await_rest(False)
        self.transport.resume_reading()
        self.transport.write_eof()
        self._loop.call_later(LINGER_S, self.transport.abort)


_TOO_LARGE = f"a body may have at most {MOST_BODY_BYTES} bytes"
