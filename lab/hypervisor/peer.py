"""Migrations of a domain of the user's own between two libvirt daemons, which do it between themselves
(libvirt, "Guest migration": peer-to-peer).

The domain's own daemon is told once, and goes on when its caller has ended. So a controller that is killed
leaves one running domain, here or there. libvirt ends the process that is not to run, and leaves the domain's
definition where it is.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

from lab.core.migration import QEMU_DEFAULTS, MigrationSpec
from lab.core.units import NS_PER_MS
from lab.errors import HypervisorError
from lab.hypervisor.binding import as_hypervisor_error, is_code, libvirt
from lab.hypervisor.domains import state_of
from lab.hypervisor.qmp import ANSWER_S, MonitorError
from lab.threads import Worker

BACK_S = 120.0
"""How long the way back may take, in seconds. Nothing is measured on it, so its guest may be slowed down."""

_ABORT_S = 10.0
_LOOK_S = 0.05
_FLAGS = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER
_UNSAFE = (
    "if both daemons have the same file under the same path: migrate_to: {uri: ..., unsafe: true}; or "
    "cache='none' in its XML"
)
_JOBS = {
    libvirt.VIR_DOMAIN_JOB_NONE: "none",
    libvirt.VIR_DOMAIN_JOB_BOUNDED: "active",
    libvirt.VIR_DOMAIN_JOB_UNBOUNDED: "active",
    libvirt.VIR_DOMAIN_JOB_COMPLETED: "completed",
    libvirt.VIR_DOMAIN_JOB_FAILED: "failed",
    libvirt.VIR_DOMAIN_JOB_CANCELLED: "cancelled",
}
"""QEMU's names (qapi/migration.json) of libvirt's states of a job."""


def opened(uri: str) -> Any:
    """A connection to the other daemon. HypervisorError when none answers there."""
    try:
        connection = libvirt.open(uri)
        connection.setKeepAlive(5, 3)
    except libvirt.libvirtError as error:
        raise as_hypervisor_error(error, "the daemon of migrate_to cannot be reached", uri) from error
    return connection


def active_on(connection: Any, uuid: str) -> Any | None:
    """The domain of this uuid if it is active on a connection, else None. HypervisorError when libvirt does
    not answer."""
    try:
        domain = connection.lookupByUUIDString(uuid)
        return domain if domain.isActive() else None
    except libvirt.libvirtError as error:
        if is_code(error, "VIR_ERR_NO_DOMAIN"):
            return None
        raise as_hypervisor_error(error, "cannot be looked up", f"domain {uuid}") from error


class PeerMigration:
    """One migration, which begin() begins in a thread of its own. uri: of the daemon that it goes to.
    unsafe: see MigrationTarget. settings: None: those of a way back."""

    def __init__(self, domain: Any, uri: str, *, unsafe: bool, settings: MigrationSpec | None) -> None:
        self._domain, self._uri = domain, uri
        self._error: libvirt.libvirtError | None = None
        flags = _FLAGS | (libvirt.VIR_MIGRATE_UNSAFE if unsafe else 0)
        more: dict[str, Any] = {}
        if settings is None or settings.auto_converge:
            flags |= libvirt.VIR_MIGRATE_AUTO_CONVERGE
        if settings is not None:
            more[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = max(1, settings.bandwidth >> 20)
            if settings.multifd:
                flags |= libvirt.VIR_MIGRATE_PARALLEL
                more[libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS] = settings.multifd
        self._thread = Worker(target=self._run, args=(more, flags), name="peer-migration", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def _run(self, parameters: dict[str, Any], flags: int) -> None:
        try:
            self._domain.migrateToURI3(self._uri, parameters, flags)
        except libvirt.libvirtError as error:
            self._error = error

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def wait(self, seconds: float) -> bool:
        """Wait for its end. Returns whether it has ended."""
        self._thread.join(seconds)
        return self.over

    def abort(self) -> bool:
        """Have it end with the domain where it is, unless it is too late for that. Returns whether it has
        ended, which takes a moment."""
        if self.over:
            return True
        with contextlib.suppress(libvirt.libvirtError):  # it has just ended
            self._domain.abortJob()
        return self.wait(_ABORT_S)

    def failure(self, where: str) -> HypervisorError | None:
        """Why it has failed, with libvirt's message; None when it has not."""
        if self._error is None:
            return None
        error = as_hypervisor_error(self._error, f"cannot be migrated to {self._uri}", where)
        hint = _UNSAFE if is_code(self._error, "VIR_ERR_MIGRATE_UNSAFE") else error.hint
        return HypervisorError(error.what, where=where, hint=hint)


def take_back(domain: Any, own: Any, uri: str, *, unsafe: bool, where: str) -> None:
    """Migrate a domain back to its own daemon. own: this program's connection to that, of `uri`. The daemons
    do it themselves or, where the other one does not reach `uri`, this program does. HypervisorError when
    that fails, or takes longer than BACK_S; it runs on where it is then."""
    moving = PeerMigration(domain, uri, unsafe=unsafe, settings=None)
    try:
        moving.begin()
        ended = moving.wait(BACK_S)
    except BaseException:  # an interrupt, which it comes before
        ended = moving.wait(BACK_S)
        raise
    finally:
        if not ended:
            moving.abort()
    if (error := moving.failure(where)) is None:
        return
    if not ended or state_of(domain) != "running":
        raise error
    flags = _FLAGS & ~libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_AUTO_CONVERGE
    flags |= libvirt.VIR_MIGRATE_UNSAFE if unsafe else 0
    with contextlib.suppress(libvirt.libvirtError):
        domain.migrate3(own, {}, flags)
        return
    raise error


def has_stayed(domain: Any) -> bool:
    """End a migration of this domain that goes on, and wait for its end. Returns whether the domain runs here
    then."""
    end = time.monotonic() + _ABORT_S
    with contextlib.suppress(libvirt.libvirtError):  # it has gone
        while time.monotonic() < end:
            if domain.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE:
                return state_of(domain) == "running"
            with contextlib.suppress(libvirt.libvirtError):  # it has just ended
                domain.abortJob()
            time.sleep(_LOOK_S)
    return False


def put_right(here: Any, there: Any, uuid: str, where: str) -> Any | None:
    """After a migration has ended, with whatever result: the domain on `there` if it is there, else None; it
    runs on `here` then, and is resumed if it was left paused. HypervisorError when it cannot be."""
    moved, stayed = active_on(there, uuid), active_on(here, uuid)
    if moved is not None and state_of(moved) == "running":
        return moved
    left = moved if stayed is None else stayed
    if left is not None and state_of(left) == "paused":
        try:
            left.resume()
        except libvirt.libvirtError as error:
            raise as_hypervisor_error(error, "cannot be resumed", where) from error
    return moved if stayed is None else None


class JobStatistics:
    """What MigrationLog asks, by libvirt's statistics of the domain's job: a QMP command would taint the
    domain."""

    def __init__(self, domain: Any) -> None:
        self._domain = domain
        self._answer: dict[str, Any] = {}

    def send(self, command: str, **arguments: Any) -> int:  # noqa: ARG002 - QemuControl's
        self._answer = self._stats(0)
        return 0

    def wait(self, number: int, wait_s: float) -> bool:  # noqa: ARG002 - QemuControl's
        return True

    def answer(self, number: int, wait_s: float = ANSWER_S) -> dict[str, Any]:  # noqa: ARG002 - QemuControl's
        return self._answer

    def execute(self, command: str, wait_s: float = ANSWER_S, **arguments: Any) -> dict[str, Any]:  # noqa: ARG002
        """Of the migration that has ended, of which libvirt keeps nothing unless it has completed."""
        found = self._stats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
        return found if found["status"] == "completed" else {"status": "cancelled"}

    def _stats(self, flags: int) -> dict[str, Any]:
        try:
            found = self._domain.jobStats(flags)
        except libvirt.libvirtError as error:
            raise MonitorError(f"libvirt: {error}") from error
        answer: dict[str, Any] = {
            "status": _JOBS.get(found.get("type", 0), "none"),
            "ram": {
                "dirty-sync-count": found.get("memory_iteration", 0),
                "remaining": found.get("memory_remaining", 0),
                "transferred": found.get("memory_processed", 0),
                "dirty-pages-rate": found.get("memory_dirty_rate", 0),
                "page-size": found.get("memory_page_size", 4096),
            },
            "cpu-throttle-percentage": found.get("auto_converge_throttle", 0),
        }
        if "downtime" in found:
            answer |= {"downtime": found["downtime"], "total-time": found.get("time_elapsed", 0)}
        return answer


def set_downtime(domain: Any, settings: MigrationSpec) -> int | None:
    """Set the allowed downtime of a migration that is to come. Returns the one before, in milliseconds; None
    when it was not changed."""
    if settings.max_downtime_ns == QEMU_DEFAULTS.max_downtime_ns:
        return None
    before = int(domain.migrateGetMaxDowntime(0))
    domain.migrateSetMaxDowntime(settings.max_downtime_ns // NS_PER_MS, 0)
    return before
