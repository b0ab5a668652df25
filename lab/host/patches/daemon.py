"""restart-libvirt: restarts the daemon behind a libvirt connection.

The daemon is the process that listens on the socket that libvirt's client would use for the connection's URI.
Under systemd its unit is restarted. Otherwise the process is ended, and started again with the same
arguments, environment, folder and outputs. Guests run on, because their QEMU processes are not the daemon's
children.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from lab.core import patch as plan
from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import MachineError
from lab.host.patches import systemd
from lab.host.patches.base import Stepwise, Tools, Work, read, started
from lab.ports import Clock
from lab.process import runner
from lab.process.child import Started

_NO_DAEMON = "connect to qemu:///system or qemu:///session (--connect)"

_NAMES = ("virtqemud", "libvirtd")
"""Daemons in the order in which libvirt's client tries them (libvirt, "Remote support", URI parameter
`mode`)."""

_SOCKETS = {"virtqemud": "virtqemud-sock", "libvirtd": "libvirt-sock"}

_UCRED = struct.Struct("iII")
"""struct ucred: pid, uid, gid (unix(7), SO_PEERCRED: of the process that called listen(2))."""

_PATIENCE_S = 5.0

_LAST_NS = 500 * NS_PER_MS
"""systemd is last queried this long before the deadline, so that a hanging systemctl can be killed in
time."""

_STOP_SHARE = 0.4
"""The share of the remaining time in which the daemon may end by itself. Then it is killed, which does not
harm guests. The rest is left for its start, without which guests cannot be resumed."""


@dataclass(frozen=True)
class Daemon:
    """The process that serves a libvirt connection. started: its start time in clock ticks since boot
    (proc(5), stat, field 22). unit: its systemd unit; "" without one."""

    name: str
    pid: int
    started: int
    socket: Path
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.name}, process {self.pid}, started at tick {self.started}"


class RestartLibvirt(Stepwise):
    """Restarts libvirt's daemon. It succeeds when another process serves the same connection."""

    whole = True

    def __init__(self, spec: plan.RestartLibvirtPatch, clock: Clock, tools: Tools) -> None:
        super().__init__(spec.label, spec.impact, clock, spec.deadline_ns)
        self._uri, self._tools = tools.uri, tools

    def check(self) -> None:
        """MachineError when no daemon serves the connection, or this user may not restart it."""
        daemon = find(self._uri)
        if daemon.unit:
            runner.find("systemctl")
            if os.geteuid() != 0:
                raise MachineError(f"only root can restart {daemon.unit}", hint="run freezelab as root")
            return
        _argv(daemon)
        if os.geteuid() != Path(f"/proc/{daemon.pid}").stat().st_uid:
            raise MachineError(f"{daemon.name} (process {daemon.pid}) belongs to another user")

    def version(self, guest: str) -> str:  # noqa: ARG002 - ports.HostPatch's
        """The process that serves the connection: its pid and start time."""
        try:
            return str(find(self._uri))
        except MachineError:
            return ""

    def verify(self, before: str, after: str) -> str:
        if not after:
            return "no daemon serves the libvirt connection"
        return f"the same process still serves it: {after}" if before == after else ""

    def _do(self, work: Work) -> None:
        daemon = find(self._uri)
        work.facts["before"] = str(daemon)
        if daemon.unit:
            work.facts["unit"] = daemon.unit
            with work.step(f"restart {daemon.unit}"):
                work.run(*systemd.command("restart", "--", daemon.unit))
            with work.step("socket"):
                after = _answering(work, self._uri, daemon)
        else:
            after = _by_hand(work, self._uri, daemon)
        work.facts["after"] = str(after)
        with work.step("reconnect"):
            work.aside(self._tools.reconnect, f"{daemon.name} was restarted, but libvirt does not answer")


def sockets(uri: str) -> list[Path]:
    """The sockets at which libvirt's client would look for this URI's daemon. MachineError when the URI has
    no daemon, or it is not on this machine."""
    parts = urlsplit(uri)
    scheme, _, transport = parts.scheme.partition("+")
    if not uri:
        raise MachineError("no libvirt connection to restart", hint=_NO_DAEMON)
    if parts.hostname or transport not in ("", "unix"):
        where = parts.hostname or transport
        raise MachineError(f"the daemon is not on this host ({where}): restart it there", where=uri)
    if parts.path == "/embed":
        raise MachineError(
            "the embedded driver is part of this process: there is no daemon to restart",
            where=uri,
            hint=_NO_DAEMON,
        )
    if scheme != "qemu" or parts.path not in ("/system", "/session"):
        raise MachineError("no daemon of the QEMU driver serves this", where=uri, hint=_NO_DAEMON)
    query = parse_qs(parts.query)
    if "socket" in query:
        return [Path(query["socket"][0])]
    # For root, libvirt's client uses no session daemon (remote_driver.c, doRemoteOpen: geteuid() > 0).
    system = parts.path == "/system" or os.geteuid() == 0
    folder = Path("/run/libvirt") if system else _session_folder()
    mode = query.get("mode", ["auto"])[0]
    names = {"legacy": _NAMES[1:], "direct": _NAMES[:1]}.get(mode, _NAMES)
    return [folder / _SOCKETS[name] for name in names]


def find(uri: str, patience_s: float = _PATIENCE_S) -> Daemon:
    """The daemon that serves this URI now. MachineError when there is none, or none on this machine.
    patience_s: time limit for the answers of the socket and of systemd, in seconds."""
    places = sockets(uri)
    for place in places:
        pid = _listener(place, patience_s)
        if pid is None:
            continue
        unit = _unit(pid, place)
        if unit and not (pid := _main_pid(unit, patience_s)):
            continue  # systemd listens on the socket, and will start the daemon
        name = read(Path(f"/proc/{pid}/comm"))
        began = started(pid)
        if began is not None:
            return Daemon(name, pid, began, place, unit)
    raise MachineError("no daemon serves this connection", where=uri, hint=f"searched in {places[0].parent}")


def _session_folder() -> Path:
    """libvirt's folder for session sockets (GLib, g_get_user_runtime_dir): XDG_RUNTIME_DIR, else the user's
    cache folder."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "libvirt"
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "libvirt"


def _listener(place: Path, patience_s: float) -> int | None:
    """The pid of the process that listens on a socket; None when none does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(patience_s)
        try:
            probe.connect(str(place))
            pid, _uid, _gid = _UCRED.unpack(
                probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            )
        except OSError:
            return None
    return int(pid)


def _unit(pid: int, place: Path) -> str:
    """The systemd service of this process, or the one whose socket systemd itself (pid 1) listens on."""
    if not systemd.booted():
        return ""
    if pid == 1:
        name = next((name for name, sock in _SOCKETS.items() if sock == place.name), "libvirtd")
        return f"{name}.service"
    found = re.search(
        r":/system\.slice/((?:libvirtd|virtqemud)\.service)$", read(Path(f"/proc/{pid}/cgroup")), re.MULTILINE
    )
    return found[1] if found else ""


def _main_pid(unit: str, patience_s: float) -> int:
    try:
        return systemd.look(unit, patience_s).pid
    except MachineError:
        return 0


def _argv(daemon: Daemon) -> list[str]:
    """The daemon's command line, with the full path of its program. MachineError when it cannot be read."""
    try:
        argv = [os.fsdecode(arg) for arg in _split(daemon.pid, "cmdline")]
        program = str(Path(f"/proc/{daemon.pid}/exe").readlink())
    except OSError as error:
        raise MachineError(f"{daemon.name} (process {daemon.pid}) cannot be read: {error}") from error
    if not argv:
        raise MachineError(f"the command line of process {daemon.pid} cannot be read")
    # An upgrade unlinks the running binary; its path then names the new one, which the restart should run.
    return [program.removesuffix(" (deleted)"), *argv[1:]]


def _split(pid: int, name: str) -> list[bytes]:
    return [part for part in Path(f"/proc/{pid}/{name}").read_bytes().split(b"\0") if part]


def _by_hand(work: Work, uri: str, daemon: Daemon) -> Daemon:
    """End the daemon and start it again in the same way. Once it has been signalled, it is started again
    whatever fails."""
    argv = _argv(daemon)
    env = {}
    for entry in _split(daemon.pid, "environ"):
        key, _, value = os.fsdecode(entry).partition("=")
        env[key] = value
    cwd = Path(f"/proc/{daemon.pid}/cwd").readlink()
    with _outputs(daemon.pid) as (out, err):
        with work.step(f"stop {daemon.name}"):
            _end(work, daemon)
        with work.step(f"start {daemon.name}"):
            service = _launch(work, argv, env, cwd, out, err)
            try:
                return _answering(work, uri, daemon, service)
            except MachineError:
                if service.status is None or work.left_ns <= 0:
                    raise
            service = _launch(work, argv, env, cwd, out, err)
            return _answering(work, uri, daemon, service)


def _launch(work: Work, argv: list[str], env: dict[str, str], cwd: Path, out: int, err: int) -> Started:
    work.facts["argv"] = argv
    cwd = cwd if cwd.is_dir() else Path("/")
    return runner.start(argv, env=env, cwd=cwd, stdout=out, stderr=err, for_good=True)


def _end(work: Work, daemon: Daemon) -> None:
    """End the daemon by SIGTERM, or by SIGKILL when that takes too long."""
    try:
        handle = os.pidfd_open(daemon.pid)
    except ProcessLookupError:
        return
    try:
        if started(daemon.pid) != daemon.started:
            return  # it has ended, and its pid is another process's
        try:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        except ProcessLookupError:
            return
        until = work.clock.now().raw_ns + round(work.left_ns * _STOP_SHARE)
        try:
            work.wait(lambda: started(daemon.pid) != daemon.started, "", until)
        except MachineError:
            work.facts["killed"] = True
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            until = work.clock.now().raw_ns + round(work.left_ns * _STOP_SHARE)
            still = f"{daemon.name} (process {daemon.pid}) cannot be killed"
            work.wait(lambda: started(daemon.pid) != daemon.started, still, until)
    finally:
        os.close(handle)


def _answering(work: Work, uri: str, before: Daemon, service: Started | None = None) -> Daemon:
    """Wait until another process serves the connection. It may also be one that a client has started
    meanwhile, as libvirt does for session connections."""

    def other() -> Daemon | None:
        with contextlib.suppress(MachineError):
            now = find(uri, max(work.left_ns - _LAST_NS, 50 * NS_PER_MS) / NS_PER_S)
            if (now.pid, now.started) != (before.pid, before.started):
                return now
        # With --daemon the started process exits with 0, and its child serves the connection.
        if service is not None and service.status:
            raise MachineError(f"{before.name} ended after its restart: status {service.status}")
        return None

    silent = f"{before.name} was started again, but its socket does not answer"
    return work.wait(other, silent, work.end_raw_ns - _LAST_NS)


@contextlib.contextmanager
def _outputs(pid: int) -> Iterator[tuple[int, int]]:
    """The process's standard outputs, reopened; /dev/null where that is not possible (sockets, for
    example)."""
    handles: list[int] = []
    try:
        for number in (1, 2):
            try:
                handle = os.open(f"/proc/{pid}/fd/{number}", os.O_WRONLY | os.O_APPEND | os.O_NOCTTY)
            except OSError:
                handle = os.open(os.devnull, os.O_WRONLY)
            handles.append(handle)
        yield handles[0], handles[1]
    finally:
        for handle in handles:
            os.close(handle)
