"""The dead-man's own libvirt connection, for guests of a daemon and for guests that are only a file. Where it
is needed, this module is imported before the freeze, so that a hanging disk does not block the import
later."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from lab.core.clock import Stamp
from lab.errors import HypervisorError
from lab.hypervisor import migration
from lab.hypervisor.binding import as_hypervisor_error, libvirt, mapped
from lab.hypervisor.embed import Root
from lab.hypervisor.libvirt_qmp import execute
from lab.hypervisor.loop import LOOP
from lab.hypervisor.process import set_oom_score
from lab.hypervisor.qmp import ANSWER_S, MonitorError, QmpSocket, status
from lab.process.clock import HostClock

_LOCK_S = 5.0
"""How long the embedded driver of a just killed controller may stay locked, and an ended domain may stay
listed."""

_STATE_S = 10.0
_CLOCK = HostClock()


class LibvirtMonitor:
    """qmp.Monitor through libvirt. Its calls have no time limit, so it is called from threads that may
    wait."""

    def __init__(self, uri: str, uuid: str) -> None:
        """MonitorError when libvirt does not answer or has no such domain."""
        try:
            self._connection = libvirt.open(uri)
            self._domain = self._connection.lookupByUUIDString(uuid)
        except libvirt.libvirtError as error:
            raise MonitorError(f"libvirt: {error}") from error

    def execute(self, command: str, wait_s: float = ANSWER_S, **arguments: Any) -> Any:  # noqa: ARG002 - Monitor's
        return execute(self._domain, command, **arguments)

    def close(self) -> None:
        with contextlib.suppress(libvirt.libvirtError):
            self._connection.close()


class OwnMonitor(LibvirtMonitor):
    """qmp.Monitor of a domain of the user's own, by libvirt's own calls: a QMP command would taint it."""

    def execute(self, command: str, wait_s: float = ANSWER_S, **arguments: Any) -> Any:  # noqa: ARG002 - Monitor's
        try:
            if command == "query-status":
                return {"status": _QMP_STATES.get(self._domain.state()[0], "unknown")}
            if command == "cont":
                return self._domain.resume()
            if command == "system_wakeup":
                return self._domain.pMWakeup(0)
            if command == "query-migrate":  # a save, which libvirt goes on with when its caller has ended
                runs = self._domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE
                return {"status": "active" if runs else "none"}
            if command == "migrate_cancel":
                return self._domain.abortJob()
            if command == "send-key":
                codes = [_KEY_CODES[key["data"]] for key in arguments["keys"]]
                return self._domain.sendKey(libvirt.VIR_KEYCODE_SET_LINUX, _HELD_MS, codes, len(codes), 0)
        except libvirt.libvirtError as error:
            raise MonitorError(f"libvirt: {error}") from error
        raise MonitorError(f"QMP {command} is not used on a domain of the user's own")


_HELD_MS = 100
_KEY_CODES = {"alt": 56, "sysrq": 99, "j": 36}
"""Linux's codes (linux/input-event-codes.h) of keys by QEMU's names."""

_QMP_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: "running",
    libvirt.VIR_DOMAIN_BLOCKED: "running",
    libvirt.VIR_DOMAIN_PAUSED: "paused",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "suspended",
    libvirt.VIR_DOMAIN_SHUTOFF: "shutdown",
    libvirt.VIR_DOMAIN_CRASHED: "guest-panicked",
}
"""QEMU's names (qapi/run-state.json) of libvirt's states."""


class OrphanedMonitor:
    """qmp.Monitor of a QEMU process whose libvirt daemon has ended, over the daemon's former monitor socket,
    on which QEMU listens again. Each command uses a new connection, because a restarted daemon needs that
    socket, and ends a guest whose monitor it cannot open (libvirt, src/qemu/qemu_process.c,
    qemuProcessReconnect)."""

    def __init__(self, pid: int) -> None:
        """MonitorError when the process has no such socket, this user may not use it, or a daemon uses it."""
        self._path = _libvirt_socket(pid)
        status(self)

    def execute(self, command: str, wait_s: float = ANSWER_S, **arguments: Any) -> Any:
        with QmpSocket(self._path, wait_s) as monitor:
            return monitor.execute(command, wait_s, **arguments)

    def close(self) -> None:
        return None


def _libvirt_socket(pid: int) -> Path:
    """The path of libvirt's monitor socket of a QEMU process: "monitor.sock" (libvirt,
    src/qemu/qemu_process.c, qemuProcessPrepareMonitorChr). QEMU inherits it as a descriptor, so its command
    line does not contain the path. MonitorError when there is none, or this user may not read /proc."""
    try:
        table = Path(f"/proc/{pid}/net/unix").read_text(encoding="utf-8", errors="surrogateescape")
        open_files = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError as error:
        raise MonitorError(f"libvirt's monitor of process {pid} cannot be found: {error}") from error
    for line in table.splitlines():
        # Num RefCount Protocol Flags Type St Inode Path (unix(7), /proc/net/unix)
        *_, inode, path = line.split(maxsplit=7)
        if path.endswith("/monitor.sock") and f"socket:[{inode}]" in open_files:
            return Path(path)
    raise MonitorError(f"process {pid} has no monitor of libvirt's")


def restore(home: str, uri: str, path: str) -> tuple[Stamp, Stamp]:
    """Restore the guest that is saved in `path`. Returns when the call began and ended. HypervisorError when
    libvirt fails."""
    with _connection(home, uri) as connection, mapped("cannot be restored", path):
        uuid = ET.fromstring(connection.saveImageGetXMLDesc(path, 0)).findtext("uuid")  # noqa: S314 - libvirt's
        end = time.monotonic() + _LOCK_S
        while True:
            try:
                connection.restoreFlags(path, None, libvirt.VIR_DOMAIN_SAVE_PAUSED)
                break
            except libvirt.libvirtError:
                # After the open, libvirt notices that the domain of its status file has ended, and removes
                # it.
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        domain = connection.lookupByUUIDString(uuid)
        called = _CLOCK.now()
        domain.resume()
        return called, _CLOCK.now()


def thaw(uri: str, uuid: str, wait_s: float) -> int:
    """Thaw the file systems of a daemon's domain through its agent. Returns how many were frozen.
    HypervisorError when libvirt or the agent fails."""
    with _connection("", uri) as connection, mapped("its file systems cannot be thawed", uuid):
        domain = connection.lookupByUUIDString(uuid)
        domain.agentSetResponseTimeout(round(wait_s), 0)
        return int(domain.fsThaw())


def relaunch(
    guest: str, home: str, domain_xml: str, *, memory_file: str, state_file: str, agents: str
) -> tuple[Stamp, Stamp] | None:
    """Resume a guest whose RAM and device state are files. Returns None when it runs already, in a process
    that the controller has started; otherwise starts a new process and returns when the resume began and
    ended. agents: a folder for a socket. HypervisorError, MonitorError or OSError when that fails."""
    state = Path(state_file).read_bytes()
    with _connection(home, "") as connection:
        for domain in connection.listAllDomains(0):
            try:
                described = domain.XMLDesc(0)
            except libvirt.libvirtError:
                continue  # after the open, libvirt notices that the domain of a status file has ended
            if Path(memory_file).name not in described:
                continue
            with contextlib.suppress(MonitorError):
                if execute(domain, "query-status")["status"] == "running":
                    return None
            with contextlib.suppress(libvirt.libvirtError):
                domain.destroy()
        with mapped("cannot be started again", guest):
            domain = connection.createXML(domain_xml, libvirt.VIR_DOMAIN_START_PAUSED)
        path = Path(agents) / f"{secrets.token_hex(4)}.state"
        try:
            _load(domain, path, state)
        finally:
            path.unlink(missing_ok=True)
        called = _CLOCK.now()
        execute(domain, "cont")
        _await(domain, "running")
        Path(state_file).unlink(missing_ok=True)
        return called, _CLOCK.now()


def _load(domain: Any, path: Path, state: bytes) -> None:
    ask = partial(execute, domain)
    migration.set_capabilities(ask, "x-ignore-shared")
    ask("migrate-incoming", uri=f"unix:{path}")
    migration.send_state(path, state, _STATE_S)
    _await(domain, "paused", "prelaunch")


def _await(domain: Any, *wanted: str) -> None:
    end = time.monotonic() + _STATE_S
    while (found := execute(domain, "query-status")["status"]) not in wanted:
        if time.monotonic() > end:
            raise MonitorError(f"QEMU says {found} instead of {wanted[0]}")
        time.sleep(0.01)


@contextmanager
def _connection(home: str, uri: str) -> Iterator[Any]:
    """A context with a connection to `uri`, or to the state folder's embedded driver once its last holder has
    ended."""
    if not uri:
        set_oom_score(0)  # a QEMU process that is started here inherits it
    end = time.monotonic() + _LOCK_S
    while not uri:
        try:
            root = Root.take(Path(home))
            break
        except HypervisorError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
    with contextlib.nullcontext() if uri else root.starting():
        LOOP.acquire()
        try:
            connection = libvirt.open(uri or root.uri)
        except libvirt.libvirtError as error:
            LOOP.release()
            raise as_hypervisor_error(error, "cannot connect", uri) from error
        try:
            yield connection
        finally:
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()
            LOOP.release()
