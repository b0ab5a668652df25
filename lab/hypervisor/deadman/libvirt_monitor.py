"""What the dead-man does through a libvirt connection of its own: guests of a daemon, and guests that only a
file holds. Imported before the freeze where it is needed, so that a disk that hangs does not hang it then."""

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
"""How long the embedded driver of a controller that was just killed may still be held, and a domain that has
ended may still be known."""

_STATE_S = 10.0
_CLOCK = HostClock()


class LibvirtMonitor:
    """qmp.Monitor through libvirt. Its calls take no time limit: whoever calls it is a thread that may
    wait."""

    def __init__(self, uri: str, uuid: str) -> None:
        """MonitorError when libvirt does not answer or knows no such domain."""
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


class OrphanedMonitor:
    """qmp.Monitor of a QEMU process whose libvirt daemon has ended: over the socket that was the daemon's,
    which QEMU listens on again. Each command has a connection of its own: a daemon that is started again
    wants that socket, and ends a guest whose monitor it does not get (libvirt, src/qemu/qemu_process.c,
    qemuProcessReconnect)."""

    def __init__(self, pid: int) -> None:
        """MonitorError when the process has no such socket, we may not use it, or a daemon holds it."""
        self._path = _libvirt_socket(pid)
        status(self)

    def execute(self, command: str, wait_s: float = ANSWER_S, **arguments: Any) -> Any:
        with QmpSocket(self._path, wait_s) as monitor:
            return monitor.execute(command, wait_s, **arguments)

    def close(self) -> None:
        return None


def _libvirt_socket(pid: int) -> Path:
    """Where a process that libvirt has started listens for it: "monitor.sock" (libvirt,
    src/qemu/qemu_process.c, qemuProcessPrepareMonitorChr), which it has inherited as a descriptor, so that
    its command line does not name it. MonitorError when there is none, or we may not look."""
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
    """Have the guest that `path` holds run; when it was told to, and when it did. HypervisorError when
    libvirt cannot."""
    with _connection(home, uri) as connection, mapped("cannot be restored", path):
        uuid = ET.fromstring(connection.saveImageGetXMLDesc(path, 0)).findtext("uuid")  # noqa: S314 - libvirt's
        end = time.monotonic() + _LOCK_S
        while True:
            try:
                connection.restoreFlags(path, None, libvirt.VIR_DOMAIN_SAVE_PAUSED)
                break
            except libvirt.libvirtError:
                # Just opened, libvirt finds that the domain of its status file has ended, and removes it.
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        domain = connection.lookupByUUIDString(uuid)
        called = _CLOCK.now()
        domain.resume()
        return called, _CLOCK.now()


def relaunch(
    guest: str, home: str, domain_xml: str, *, memory_file: str, state_file: str, agents: str
) -> tuple[Stamp, Stamp] | None:
    """Have the guest run whose RAM and device state are files: in the process that the controller had started
    for it, if that runs (None), else in a new one: when it was told to, and when it did. agents: a folder for
    a socket. HypervisorError, MonitorError or OSError when it cannot."""
    state = Path(state_file).read_bytes()
    with _connection(home, "") as connection:
        for domain in connection.listAllDomains(0):
            try:
                described = domain.XMLDesc(0)
            except libvirt.libvirtError:
                continue  # just opened, libvirt finds that the domain of a status file has ended
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
    """libvirt at `uri`, or the embedded driver of the state folder, once its last holder has let go of it."""
    if not uri:
        set_oom_score(0)  # a QEMU that is started here inherits it
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
