"""The metadata service over HTTP. Each guest has a door of its own, and is whose door it comes through.

A door is a Unix socket in a folder that nobody else may enter. It is never a TCP port of the host's loopback:
a guest on QEMU's user-mode network reaches those, and could use another one's. What a guest says of itself
counts for nothing.

One thread runs everything: an asyncio loop with one uvicorn server for all Unix sockets (and one for each TCP
door that is asked for: a server cannot be given more sockets later). The application knows the door by the
address that the connection was made to, which the kernel tells.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import stat
import threading
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.core.scheduled.instance import About
from lab.core.scheduled.machine import Machine
from lab.core.scheduled.model import Rules
from lab.core.scheduled.planning import groups_of
from lab.core.scheduled.requests import MOST_BODY_BYTES, SERVER, Answer, Request, answer
from lab.core.units import NS_PER_S
from lab.errors import MachineError
from lab.events.announcer import ServiceAnnouncer
from lab.ports import Clock

Message = MutableMapping[str, Any]
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]

LONGEST_PATH = 107
"""Bytes of a Unix socket's path (unix(7))."""

MOST_HEAD_BYTES = 16 << 10
"""Of the request line and headers together."""

KEEP_ALIVE_S = 7 * 24 * 3600
"""An idle connection outlives every freeze."""

FILES = 8192
"""Open files that the process should be able to have: connections of twenty guests at their limit."""

START_S, STOP_S = 10, 10


class MetadataService:
    """Runs as long as the context is not left.

    abouts: the guests. folder: made when it is not there, and taken from others (0700); its path is to be
    short. trouble: the last thing that went wrong inside and should not have, "" if nothing did.

    Entering raises MachineError when the folder or a socket cannot be made. All else is safe from any thread.
    """

    def __init__(self, abouts: Sequence[About], rules: Rules, clock: Clock, folder: Path) -> None:
        self.abouts = {about.guest: about for about in abouts}
        self.groups = groups_of(abouts)
        self.trouble = ""
        self._machine, self._lock, self._clock = Machine(self.groups, rules), threading.Lock(), clock
        self.announcer = ServiceAnnouncer(self._machine, self.groups, self._lock, clock)
        self._folder = folder.absolute()
        self._made_folder = False
        self._paths = {about.guest: self._folder / str(number) for number, about in enumerate(abouts)}
        self._doors: dict[tuple[str, int | None], str] = {}
        self._servers: list[tuple[Any, asyncio.Task[None]]] = []
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def __enter__(self) -> MetadataService:
        self._prepare_folder()
        _allow_files()
        sockets: list[socket.socket] = []
        try:
            for guest, path in self._paths.items():
                sockets.append(unix_socket(path))
                self._doors[str(path), None] = guest
            started: Future[None] = Future()
            self._thread = threading.Thread(
                target=self._run, args=(sockets, started), name="metadata-service", daemon=True
            )
            self._thread.start()
            started.result(START_S)
        except BaseException:
            for one in sockets:
                one.close()
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._thread is not None and self._loop is not None and self._stop is not None:
                with suppress(RuntimeError):  # it has ended by itself
                    self._loop.call_soon_threadsafe(self._stop.set)
                self._thread.join(STOP_S)
        finally:
            self._thread = None
            for place, port in self._doors:
                if port is None:
                    Path(place).unlink(missing_ok=True)
            if self._made_folder:
                with suppress(OSError):
                    self._folder.rmdir()

    # -- doors -------------------------------------------------------------------------------------

    def connect(self, guest: str) -> socket.socket:
        """A new connection through the guest's door. KeyError: no such guest. MachineError when the service
        does not run."""
        path = self._paths[guest]
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(START_S)
            made.connect(str(path))
            made.settimeout(None)
        except OSError as error:
            made.close()
            raise MachineError(
                f"the metadata service does not run: {error.strerror}", where=str(path)
            ) from None
        return made

    def path(self, guest: str) -> Path:
        """The socket of the guest's door. KeyError: no such guest."""
        return self._paths[guest]

    def listen(self, host: str, port: int, guest: str) -> tuple[str, int]:
        """One more door of the guest's, over TCP; the address and port that it has. Whoever can reach it is
        that guest. KeyError: no such guest. MachineError when it cannot listen there."""
        if guest not in self.abouts:
            raise KeyError(guest)
        made = _tcp_socket(host, port)
        address, bound = made.getsockname()[:2]
        # A connection to "any address" has another one of its own.
        key = ("" if address in ("0.0.0.0", "::") else address, bound)  # noqa: S104 - compared, not bound
        self._doors[key] = guest
        self.serve(self._answer, made)
        return address, bound

    def serve(self, app: App, on: socket.socket) -> None:
        """Serve another application as well, in the same thread. The socket is bound, and is closed when the
        service stops. MachineError when the service does not run."""
        if self._loop is None or self._thread is None:
            on.close()
            raise MachineError("the metadata service does not run")
        asyncio.run_coroutine_threadsafe(self._open(app, [on]), self._loop).result(START_S)

    def heard(self, guest: str) -> bool:
        """Whether the guest has asked since its group was switched on. KeyError: no such guest."""
        return self.announcer.heard(guest)

    # -- the thread --------------------------------------------------------------------------------

    def _run(self, sockets: Sequence[socket.socket], started: Future[None]) -> None:
        try:
            asyncio.run(self._main(sockets, started))
        except BaseException as error:  # noqa: BLE001 - told to whoever waits for the start
            self.trouble = repr(error)
            if not started.done():
                started.set_exception(error)

    async def _main(self, sockets: Sequence[socket.socket], started: Future[None]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(self._unexpected)
        await self._open(self._answer, sockets)
        started.set_result(None)
        await self._stop.wait()
        for server, _ in self._servers:
            server.should_exit = True
        await asyncio.gather(*(task for _, task in self._servers), return_exceptions=True)

    async def _open(self, app: App, sockets: Sequence[socket.socket]) -> None:
        import uvicorn

        from lab.events.protocol import ServiceProtocol

        config = uvicorn.Config(
            app,
            http=ServiceProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=MOST_HEAD_BYTES,
        )
        server = uvicorn.Server(config)  # takes no signals outside of the main thread
        task = asyncio.create_task(server.serve(list(sockets)))
        while not server.started and not task.done():
            await asyncio.sleep(0.001)
        if task.done():
            task.result()
        self._servers.append((server, task))

    def _unexpected(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What a callback has raised: it ends that connection, and nothing else."""
        self.trouble = f"{context.get('message', '')}: {context.get('exception')!r}"

    # -- a request ---------------------------------------------------------------------------------

    async def _answer(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """The application: one request."""
        from starlette.responses import Response

        body = await _body(scope, receive)
        if body is None:
            return
        try:
            given = self._asked(scope, body)
        except Exception as error:  # noqa: BLE001 - the service lives on
            self.trouble = repr(error)
            given = _error(500, "The lab's metadata service has failed.")
        if given.never or given.after_ns:
            within_s = None if given.never else given.after_ns / NS_PER_S
            if await _has_left(receive, within_s):
                return
        await Response(given.body, given.status, dict(given.headers))(scope, receive, send)

    def _asked(self, scope: Message, body: bytes | bytearray) -> Answer:
        address, port = scope["server"]
        guest = self._doors.get((address, port)) or self._doors["", port]
        if len(body) > MOST_BODY_BYTES:
            return self._too_large(guest, 413, "body", MOST_BODY_BYTES)
        # h11 keeps no more of a head that is not complete; one that came at once may be larger.
        head = len(scope["raw_path"]) + sum(len(name) + len(value) for name, value in scope["headers"])
        if head > MOST_HEAD_BYTES:
            return self._too_large(guest, 431, "head", MOST_HEAD_BYTES)
        headers = tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"])
        path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
        request = Request(scope["method"], path, query, headers, bytes(body))
        with self._lock:
            return answer(self._machine, self.abouts, guest, self._clock.now(), request)

    def _too_large(self, guest: str, status: int, part: str, most: int) -> Answer:
        with self._lock:
            self._machine.refuse(self._clock.now(), guest, f"{status}: the {part} is too large")
        return _error(status, f"The request's {part} is larger than {most} bytes.")

    # -- the folder --------------------------------------------------------------------------------

    def _prepare_folder(self) -> None:
        try:
            try:
                self._folder.mkdir(mode=0o700, parents=True)
                self._made_folder = True
            except FileExistsError:
                self._folder.chmod(0o700)
        except OSError as error:
            raise MachineError(
                f"the metadata service's folder cannot be made: {error.strerror}", where=str(self._folder)
            ) from None


async def _body(scope: Message, receive: Callable[[], Awaitable[Message]]) -> bytes | bytearray | None:
    """The request's body; too much of it as soon as that is clear; None when the client has left."""
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > MOST_BODY_BYTES:
            return bytes(MOST_BODY_BYTES + 1)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > MOST_BODY_BYTES or not message.get("more_body"):
            return body


async def _has_left(receive: Callable[[], Awaitable[Message]], within_s: float | None) -> bool:
    """Wait; True as soon as the client leaves. within_s: None waits for that alone."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while (await receive())["type"] != "http.disconnect":
                pass
            return True
    return False


def _error(status: int, text: str) -> Answer:
    import json

    headers = (("Server", SERVER), ("Content-Type", "application/json; charset=utf-8"))
    return Answer(status, headers, json.dumps({"error": text}).encode())


def unix_socket(path: Path) -> socket.socket:
    """A socket bound to `path`, for its owner alone. A socket file that is there already is replaced: see to
    it that nobody listens there. MachineError when it cannot be made."""
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise MachineError(
            f"the path is longer than a Unix socket's may be ({LONGEST_PATH} bytes)",
            where=str(path),
            hint="set FREEZELAB_HOME to a folder with a shorter path",
        )
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()
        made.bind(str(path))
        path.chmod(0o600)
    except OSError as error:
        made.close()
        raise MachineError(f"no socket can be made here: {error.strerror}", where=str(path)) from None
    return made


def _tcp_socket(host: str, port: int) -> socket.socket:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
    except (OSError, OverflowError, UnicodeError) as error:
        raise MachineError(f"no such address: {error}", where=where) from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen()  # two that are bound alike are told apart only now
    except OSError as error:
        made.close()
        raise MachineError(
            f"cannot listen here: {(error.strerror or str(error)).lower()}",
            where=where,
            hint=_BIND_HINTS.get(error.errno or 0, ""),
        ) from None
    return made


_BIND_HINTS = {
    errno.EADDRINUSE: "another program does already; choose another port",
    errno.EADDRNOTAVAIL: "the address has to be on an interface; 169.254.169.254 belongs on one inside a "
    "network namespace of your own (ip address add 169.254.169.254/32 dev lo), never on the host",
    errno.EACCES: "ports below 1024 need root; choose a higher one",
}


def _allow_files() -> None:
    """Connections are open files. Nothing is lost when the limit cannot be raised but some connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
