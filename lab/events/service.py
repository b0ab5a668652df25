"""The metadata service over HTTP. Each guest has a listener of its own; it is known by which one it uses.

A listener is a Unix socket in a folder that nobody else may enter. It is never a TCP port of the host's
loopback: a guest on QEMU's user-mode network reaches those, and could use another one's. What a guest says of
itself counts for nothing.

One thread runs everything, an asyncio loop with a server for each listener.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import secrets
import socket
import stat
import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.core.announcement import groups_of
from lab.core.clock import Stamp
from lab.core.scheduled.cloud import Cloud
from lab.core.scheduled.cloud_answers import CloudAnswers
from lab.core.scheduled.documents import http_date
from lab.core.scheduled.instance import InstanceInfo
from lab.core.scheduled.machine import Machine
from lab.core.scheduled.model import Rules
from lab.core.scheduled.requests import Answer, Request
from lab.errors import MachineError
from lab.events.announcer import ServiceAnnouncer
from lab.events.protocol import Connection, HttpListener
from lab.events.request_counts import RequestCounts
from lab.threads import Worker

if TYPE_CHECKING:
    from lab.ports import Clock

LONGEST_PATH = 107
"""Bytes of a Unix socket's path (unix(7))."""

BACKLOG = 1024
"""Connections that wait to be taken."""

FILES = 8192
"""Open files that the process should be able to have: connections of twenty guests at their limit."""

START_S, STOP_S = 10, 10


class MetadataService:
    """Runs as long as the context is not left.

    instances: the guests. folder: made when it is not there, and taken from others (0700); its path is to be
    short. answers: in which cloud's words. trouble: the last thing that went wrong inside and should not
    have, "" if nothing did. counts: of each guest's requests; they change in the loop's thread.

    Entering raises MachineError when the folder or a socket cannot be made. All else is safe from any thread.
    """

    def __init__(
        self,
        instances: Sequence[InstanceInfo],
        rules: Rules,
        clock: Clock,
        folder: Path,
        answers: CloudAnswers = CloudAnswers(),  # noqa: B008 - frozen
    ) -> None:
        self.instances = {about.guest: about for about in instances}
        self.groups = groups_of(instances, answers.cloud)
        self.answers = replace(answers, imds=replace(answers.imds, secret=secrets.token_bytes(32)))
        self.trouble = ""
        self.counts = {guest: RequestCounts() for guest in self.instances}
        self._machine, self._lock, self._clock = Machine(self.groups, rules), threading.Lock(), clock
        self.announcer = ServiceAnnouncer(self._machine, self.groups, self._lock, clock)
        self._folder = folder.absolute()
        self._made_folder = False
        self._paths = {about.guest: self._folder / str(number) for number, about in enumerate(instances)}
        self._open: list[tuple[asyncio.Server, HttpListener]] = []
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def __enter__(self) -> MetadataService:
        self._prepare_folder()
        _allow_files()
        sockets: list[tuple[socket.socket, HttpListener]] = []
        try:
            for guest, path in self._paths.items():
                sockets.append((unix_socket(path), self._listener(guest)))
            started: Future[None] = Future()
            self._thread = Worker(
                target=self._run, args=(sockets, started), name="metadata-service", daemon=True
            )
            self._thread.start()
            started.result(START_S)
        except BaseException:
            for one, _ in sockets:
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
            for path in self._paths.values():
                if path.is_socket():
                    path.unlink()
            if self._made_folder:
                with suppress(OSError):
                    self._folder.rmdir()

    # -- listeners ---------------------------------------------------------------------------------

    def connect(self, guest: str) -> socket.socket:
        """A new connection to the guest's listener. KeyError: no such guest. MachineError when the service
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
        """The socket of the guest's listener. KeyError: no such guest."""
        return self._paths[guest]

    def listen(self, host: str, port: int, guest: str) -> tuple[str, int]:
        """One more listener of the guest's, over TCP; the address and port that it has. Whoever can reach it
        is that guest. KeyError: no such guest. MachineError when it cannot listen there."""
        if guest not in self.instances:
            raise KeyError(guest)
        made = tcp_socket(host, port)
        address, bound = made.getsockname()[:2]
        self.serve(self._listener(guest), made)
        return address, bound

    def serve(self, listener: HttpListener, on: socket.socket) -> None:
        """Serve another listener as well, in the same thread. The socket is bound, and is closed when the
        service stops. MachineError when the service does not run."""
        if self._loop is None or self._thread is None:
            on.close()
            raise MachineError("the metadata service does not run")
        asyncio.run_coroutine_threadsafe(self._serve(listener, on), self._loop).result(START_S)

    def has_asked(self, guest: str) -> bool:
        """Whether the guest has asked since its group was switched on. KeyError: no such guest."""
        return self.announcer.has_asked(guest)

    # -- the thread --------------------------------------------------------------------------------

    def _run(self, sockets: Sequence[tuple[socket.socket, HttpListener]], started: Future[None]) -> None:
        try:
            asyncio.run(self._main(sockets, started))
        except BaseException as error:  # noqa: BLE001 - told to whoever waits for the start
            self.trouble = repr(error)
            if not started.done():
                started.set_exception(error)

    async def _main(
        self, sockets: Sequence[tuple[socket.socket, HttpListener]], started: Future[None]
    ) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(self._unexpected)
        for one, listener in sockets:
            await self._serve(listener, one)
        started.set_result(None)
        await self._stop.wait()
        for server, listener in self._open:
            server.close()
            for connection in listener.connections:
                connection.transport.abort()
        while any(listener.connections for _, listener in self._open):
            await asyncio.sleep(0)  # they learn of it in the loop

    async def _serve(self, listener: HttpListener, on: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        make = partial(Connection, listener, loop)
        if on.family == socket.AF_UNIX:
            server = await loop.create_unix_server(make, sock=on, backlog=BACKLOG)
        else:
            server = await loop.create_server(make, sock=on, backlog=BACKLOG)
        self._open.append((server, listener))

    def _unexpected(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What a callback has raised: it ends that connection, and nothing else."""
        self.trouble = f"{context.get('message', '')}: {context.get('exception')!r}"

    # -- a request ---------------------------------------------------------------------------------

    def _listener(self, guest: str) -> HttpListener:
        return HttpListener(partial(self._answer, guest), partial(self._refuse, guest))

    def _answer(self, guest: str, request: Request) -> Answer:
        now = self._clock.now()
        try:
            with self._lock:
                given = self.answers.answer(self._machine, self.instances, guest, now, request)
        except Exception as error:  # noqa: BLE001 - the service lives on
            self.trouble = repr(error)
            failed = "The lab's metadata service has failed."
            given = self.answers.refusal(HTTPStatus.INTERNAL_SERVER_ERROR, failed)
        if given.again is None:
            self.counts[guest].add(request, given, self.answers.is_poll(request.path))
        return self._stamped(given, now)

    def _refuse(self, guest: str, status: HTTPStatus, why: str) -> Answer:
        now = self._clock.now()
        with self._lock:
            self._machine.refuse(now, guest, f"{status.value}: {why or status.phrase}")
        given = self.answers.refusal(status, why)
        self.counts[guest].add(None, given)
        return self._stamped(given, now)

    def _stamped(self, given: Answer, now: Stamp) -> Answer:
        """With what every answer of the real service carries."""
        made = [("Date", http_date(now.real_ns))]
        if self.answers.cloud is Cloud.AZURE:
            made.insert(0, ("x-ms-request-id", str(uuid.uuid4())))
        return replace(given, headers=(*given.headers, *made))

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
                f"the metadata service's folder cannot be created: {error.strerror}", where=str(self._folder)
            ) from None


def unix_socket(path: Path) -> socket.socket:
    """A socket bound to `path`, for its owner alone. A socket file that is there already is replaced: see to
    it that nobody listens there. MachineError when it cannot be made."""
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise MachineError(
            f"the path is too long for a Unix socket ({LONGEST_PATH} bytes)",
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
        raise MachineError(f"no socket can be created here: {error.strerror}", where=str(path)) from None
    return made


def tcp_socket(host: str, port: int) -> socket.socket:
    """A socket that listens at this address. MachineError when it cannot."""
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
    errno.EADDRINUSE: "another program listens there; choose another port",
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
