"""A real chronyd on the host, as the guests' NTP server. It never touches the host's clock.

It serves the host's clock on 127.0.0.1, which a guest on QEMU's user-mode network reaches as its gateway. It
runs with `-x` (no control of the system clock, chronyd(8)) in its own work folder, and ends with this
process.

A server with a deliberate offset consists of two chronyds: the second has the first as its source, with the
source option `offset` (chrony.conf(5)). With -x, chronyd corrects a clock that exists only inside it, and
serves that one.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import MachineError
from lab.host import sntp
from lab.ports import Clock
from lab.process import runner
from lab.process.child import Started

ADDRESS = "127.0.0.1"
STRATUM = 2
"""The stratum that guests see. Any value from 1 to 14 works, because the host's clock is the reference
here."""

_STRATA = (STRATUM, STRATUM + 1)
"""The strata that may answer: of the first chronyd, and of the second, which is synchronised to the first."""

_START_NS = 5 * NS_PER_S
_ANSWER_S = 0.2
_POLL_NS = 20 * NS_PER_MS
_STOP_S = 3.0
_TRIES = 4

_RIGHT_NS = NS_PER_MS
"""How close to its intended offset the server must be before it is used. chronyd comes within some 20 µs; the
bound of the exchange that measures it is larger."""

_TRUE = "local stratum {stratum}\n"

_OFF = """\
server {address} port {true_port} offset {correction} minpoll -4 maxpoll -4
"""
"""offset: "a correction […] applied to offsets measured with this source" (chrony.conf(5)), in seconds;
positive: the served time is ahead. It takes effect at once: chronyd slewed the clock inside it by an hour
within a second, and refused to step it. maxsamples 1 does not work: such a server has a root distance of
about 4 s, and chronyd in a guest accepts at most 3 s (maxdistance)."""

_CONFIG = """\
# Written by freezelab. Run with -x: this chronyd serves the clock, it never sets it.
{source}bindaddress {address}
port {port}
allow 127.0.0.0/8
cmdport 0
bindcmdaddress /
pidfile chronyd.pid
"""


def find(*states: Path) -> Path:
    """The path of chronyd: on PATH, in the system's sbin folders, or unpacked by the launcher in tools/chrony
    below one of the `states`. MachineError when it is not found."""
    unpacked = os.pathsep.join(str(state / "tools/chrony/usr/sbin") for state in states)
    found = runner.which("chronyd") or runner.which("chronyd", unpacked)
    if not found:
        # Debian's package replaces the machine's time service; its program alone does not.
        fetch = f"cd /tmp && apt-get download chrony && dpkg-deb -x chrony_*.deb {states[-1]}/tools/chrony"
        hint = fetch if runner.which("apt-get") else "install the package chrony"
        raise MachineError("chronyd is not installed", hint=hint)
    return Path(found)


class Chronyd:
    """A context manager: inside the `with` block chronyd answers on `address`:`port`.

    folder: its work folder, created when missing, for configuration, pid file and log.
    port: UDP; None finds a free one.
    offset_ns: the deliberate offset of the served time; positive: ahead of the host's clock.
    Enter the context from a thread that lives at least as long: chronyd gets SIGTERM when the *thread* that
    started it ends (PR_SET_PDEATHSIG, prctl(2)).
    """

    address = ADDRESS

    def __init__(
        self, program: Path, folder: Path, clock: Clock, *, port: int | None = None, offset_ns: int = 0
    ) -> None:
        self._program, self._folder, self._clock, self._asked = program, folder.absolute(), clock, port
        self.offset_ns = offset_ns
        self._true = Chronyd(program, self._folder / "true", clock) if offset_ns else None
        self._behind = ExitStack()
        self._process: Started | None = None
        self.port = port or 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def log(self) -> Path:
        return self._folder / "chronyd.log"

    def __enter__(self) -> Chronyd:
        """Start chronyd, and wait until it answers an NTP query with the intended time. MachineError when the
        port is in use, or chronyd does not answer within 5 s."""
        if self._true is None:
            return self._begin()
        with ExitStack() as stack:
            stack.enter_context(self._true)
            self._begin()
            self._behind = stack.pop_all()
        return self

    def _begin(self) -> Chronyd:
        for tries_left in reversed(range(1 if self._asked else _TRIES)):
            self.port = _free_port(self._asked)
            try:
                self._start()
                self._wait_ready()
                return self
            except MachineError:
                self._stop()
                if not tries_left:
                    raise
            except BaseException:
                self._stop()
                raise
        raise MachineError("chronyd did not start")  # not reached: the last try returns or raises

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._behind.close()

    def check(self) -> None:
        """MachineError when chronyd no longer runs."""
        if self._process is None or self._process.status is not None:
            raise MachineError(f"chronyd has ended: {self._last_words()}", where=str(self.log))
        if self._true is not None:
            self._true.check()

    def _start(self) -> None:
        config = self._folder / "chronyd.conf"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            config.write_text(
                _CONFIG.format(source=self._source(), address=ADDRESS, port=self.port),
                encoding="utf-8",
            )
            with self.log.open("ab") as log:
                self._process = runner.start(
                    [str(self._program), "-d", "-x", "-U", "-u", _user(), "-f", str(config)],
                    stdout=log.fileno(),
                    stderr=log.fileno(),
                    cwd=self._folder,  # for the pid file: paths in chrony.conf cannot contain blanks
                    parent_death=signal.SIGTERM,
                )
        except OSError as error:
            raise MachineError(
                f"chronyd cannot be started: {error.strerror}", where=str(error.filename or self._program)
            ) from error

    def _source(self) -> str:
        if self._true is None:
            return _TRUE.format(stratum=STRATUM)
        correction = f"{self.offset_ns / NS_PER_S:.9f}"
        return _OFF.format(address=ADDRESS, true_port=self._true.port, correction=correction)

    def _wait_ready(self) -> None:
        end = self._clock.now().raw_ns + _START_NS
        while True:
            self.check()
            with contextlib.suppress(OSError, ValueError):
                answer = sntp.query(ADDRESS, self.port, self._clock, _ANSWER_S)
                if self.offset_ns in answer.offset.widened(_RIGHT_NS) and answer.stratum in _STRATA:
                    return
            now = self._clock.now().raw_ns
            if now >= end:
                raise MachineError(
                    f"chronyd does not answer on {ADDRESS}:{self.port}: {self._last_words()}",
                    where=str(self.log),
                )
            self._clock.sleep_until(now + _POLL_NS)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.stop(_STOP_S)

    def _last_words(self) -> str:
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return "no log"
        return next((line for line in reversed(lines) if line.strip()), "no output")


def _free_port(asked: int | None) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((ADDRESS, asked or 0))
        except OSError as error:
            raise MachineError(
                f"UDP port {asked} on {ADDRESS} cannot be used: {error.strerror}",
                hint="choose another port, or none to let freezelab choose",
            ) from error
        return int(probe.getsockname()[1])


def _user() -> str:
    """The user for chronyd's option -u. chronyd looks its user up even without privileges to drop, and its
    compiled-in user _chrony does not exist where the package was only unpacked."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return "root"
