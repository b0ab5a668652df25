"""libvirt's lifecycle events, and QEMU's own events with their time stamps.

Callbacks arrive on the event thread. Everything here may be called from any thread.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from lab.core.clock import Stamp
from lab.core.units import NS_PER_S, NS_PER_US
from lab.hypervisor.binding import libvirt, libvirt_qemu
from lab.hypervisor.qmp import MOST_EVENTS, QemuEvent, event_kind, first_since

_T = TypeVar("_T")

_LOOK_S = 0.02
_WANTED = "STOP|RESUME|SUSPEND|WAKEUP"
_OF_MIGRATIONS = "|MIGRATION|MIGRATION_PASS"

_KIND_NAMES = (
    "DEFINED", "UNDEFINED", "STARTED", "SUSPENDED", "RESUMED", "STOPPED", "SHUTDOWN", "PMSUSPENDED", "CRASHED"
)  # fmt: skip


def _reasons() -> dict[tuple[int, int], str]:
    found = {}
    for kind in _KIND_NAMES:
        prefix = f"VIR_DOMAIN_EVENT_{kind}_"
        for name in dir(libvirt):
            if name.startswith(prefix):
                reason = name.removeprefix(prefix).lower().replace("_", " ")
                found[getattr(libvirt, f"VIR_DOMAIN_EVENT_{kind}"), getattr(libvirt, name)] = reason
    return found


_KINDS: dict[int, str] = {getattr(libvirt, f"VIR_DOMAIN_EVENT_{kind}"): kind.lower() for kind in _KIND_NAMES}
_REASONS = _reasons()


IO_ERROR = "io error"
_IO_REASONS = {"enospc": "no space left on the device", "eio": "an I/O error", "eperm": "not permitted"}
"""libvirt's reasons of an I/O error (qemuProcessHandleIOError): `enospc` is QEMU's `nospace`; newer libvirts
have more."""


@dataclass(frozen=True)
class LifecycleEvent:
    """One lifecycle event. at: the host's clocks when it arrived. reason: libvirt's reason, "" without one;
    for an IO_ERROR the path of the image and the error."""

    kind: str
    reason: str
    at: Stamp

    @property
    def ends_guest(self) -> bool:
        return self.kind in ("stopped", "crashed")


class EventLog:
    """Collects events by domain uuid, of one connection and of those to which a domain is migrated. Call
    register after the open and unregister before the close.

    migrations: QEMU's MIGRATION events as well, of which each hand-over has half a dozen in the middle
    of its pause; only guests without a monitor of the controller's need them here."""

    def __init__(self, now: Callable[[], Stamp], *, migrations: bool) -> None:
        self._now = now
        self._wanted = _WANTED + (_OF_MIGRATIONS if migrations else "")
        self._changed = threading.Condition()
        self._lifecycle: dict[str, list[LifecycleEvent]] = defaultdict(list)
        self._qemu: dict[str, list[QemuEvent]] = defaultdict(list)
        self._news = 0
        self._callbacks: list[tuple[Any, int]] = []
        self._monitor_callbacks: list[tuple[Any, int]] = []
        self._places: dict[str, Any] = {}
        self._moving: set[str] = set()

    def register(self, connection: Any) -> None:
        """Subscribe to the connection's events. libvirt's errors pass through."""
        for kind, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._on_reboot),
            (libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, self._on_io_error),
        ):
            number = connection.domainEventRegisterAny(None, kind, callback, None)
            self._callbacks.append((connection, number))
        # libvirt's test driver has no monitor; its freezes have no QEMU stamps.
        with contextlib.suppress(libvirt.libvirtError):
            number = libvirt_qemu.qemuMonitorEventRegister(
                connection,
                None,
                f"^({self._wanted})$",
                self._on_qemu,
                None,
                libvirt_qemu.VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX,
            )
            self._monitor_callbacks.append((connection, number))

    def unregister(self, connection: Any) -> None:
        """Cancel the subscription, which otherwise keeps the connection from closing."""
        for number in [number for one, number in self._monitor_callbacks if one is connection]:
            with contextlib.suppress(libvirt.libvirtError):
                libvirt_qemu.qemuMonitorEventDeregister(connection, number)
        for number in [number for one, number in self._callbacks if one is connection]:
            with contextlib.suppress(libvirt.libvirtError):
                connection.domainEventDeregisterAny(number)
        for callbacks in (self._monitor_callbacks, self._callbacks):
            callbacks[:] = [each for each in callbacks if each[0] is not connection]
        with self._changed:
            self._places = {uuid: one for uuid, one in self._places.items() if one is not connection}

    @property
    def stamps_available(self) -> bool:
        return bool(self._monitor_callbacks)

    def migrates(self, uuid: str, *, now: bool) -> None:
        """From here on (now=True) the domain is migrated by this lab, and its end by that is none."""
        with self._changed:
            (self._moving.add if now else self._moving.discard)(uuid)

    def is_at(self, uuid: str, connection: Any) -> None:
        """The domain is on this connection from now on; lifecycle events of other connections are left
        out."""
        with self._changed:
            self._places[uuid] = connection

    def lifecycle(self, uuid: str) -> tuple[LifecycleEvent, ...]:
        """All lifecycle events of a domain so far, oldest first."""
        with self._changed:
            return tuple(self._lifecycle[uuid])

    def wait_lifecycle(
        self, uuid: str, wanted: Callable[[LifecycleEvent], bool], timeout_s: float, start: int = 0
    ) -> LifecycleEvent | None:
        """Wait for the first event from index `start` on for which `wanted` is true; None at the timeout."""
        with self._changed:
            return self._wait(
                lambda: next((e for e in self._lifecycle[uuid][start:] if wanted(e)), None), timeout_s
            )

    def wait_news(self, known: int, timeout_s: float) -> int:
        """Wait until the number of lifecycle events and wake()s differs from `known`, or for the timeout.
        Returns the number."""
        with self._changed:
            self._changed.wait_for(lambda: self._news != known, timeout_s)
            return self._news

    def wait_qemu(self, uuid: str, kind: str, since_real_ns: int, timeout_s: float) -> int | None:
        """Wait for the first event of this kind at or after host CLOCK_REALTIME `since_real_ns`. Returns
        QEMU's stamp; None at the timeout."""
        if not self.stamps_available:
            return None
        with self._changed:
            found = self._wait(lambda: first_since(self._qemu[uuid], kind, since_real_ns), timeout_s)
        return found.real_ns if found else None

    def qemu_since(self, uuid: str, kind: str, since_real_ns: int) -> QemuEvent | None:
        """The first event of this kind at or after host CLOCK_REALTIME `since_real_ns`; None when none has
        come."""
        with self._changed:
            return first_since(self._qemu[uuid], kind, since_real_ns)

    def wait_until(self, look: Callable[[], _T | None], timeout_s: float) -> _T | None:
        """Call `look` at each event, and at least every 20 ms, until it returns something. None at the
        timeout."""
        end = time.monotonic() + timeout_s
        with self._changed:
            while (found := look()) is None:
                left = end - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(min(left, _LOOK_S))
            return found

    def wake(self) -> None:
        """Make all waiting threads check again at once."""
        with self._changed:
            self._news += 1
            self._changed.notify_all()

    def _wait(self, look: Callable[[], _T | None], timeout_s: float) -> _T | None:
        self._changed.wait_for(lambda: look() is not None, timeout_s)
        return look()

    def _on_lifecycle(self, conn: object, domain: Any, event: int, detail: int, _opaque: object) -> None:
        kind = _KINDS.get(event, f"event {event}")
        self._add(conn, domain, kind, _REASONS.get((event, detail), ""))

    def _on_reboot(self, conn: object, domain: Any, _opaque: object) -> None:
        self._add(conn, domain, "rebooted", "")

    def _on_io_error(
        self, conn: object, domain: Any, path: str, _alias: str, _action: int, reason: str, _opaque: object
    ) -> None:
        self._add(conn, domain, IO_ERROR, f"{path}: {_IO_REASONS.get(reason, reason) or 'an I/O error'}")

    def _add(self, connection: object, domain: Any, kind: str, reason: str) -> None:
        at, uuid = self._now(), domain.UUIDString()
        with self._changed:
            if self._places.get(uuid, connection) is not connection:
                return
            if uuid in self._moving and reason == "migrated":
                return
            events = self._lifecycle[uuid]
            events.append(LifecycleEvent(kind, reason, at))
            self._news += 1
            self._changed.notify_all()

    def _on_qemu(
        self,
        _conn: object,
        domain: Any,
        event: str,
        seconds: int,
        micros: int,
        details: str | None,
        _opaque: object,
    ) -> None:
        kind = event_kind(event, json.loads(details or "{}"))
        with self._changed:
            events = self._qemu[domain.UUIDString()]
            events.append(QemuEvent(kind, seconds * NS_PER_S + micros * NS_PER_US))
            del events[:-MOST_EVENTS]
            self._changed.notify_all()
