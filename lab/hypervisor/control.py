"""The controller's own way to a guest's QEMU process: commands whose answers can be awaited later, and QEMU's
events as they arrive.

A guest that this lab has started has a monitor for it (DomainSpec.control_socket), so that no libvirt is
between the two in a freeze. Guests of a daemon have none; for them libvirt passes commands and events on.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from lab.errors import HypervisorError
from lab.hypervisor import libvirt_qmp
from lab.hypervisor.events import EventLog
from lab.hypervisor.migration import within
from lab.hypervisor.qmp import ANSWER_S, MonitorError, QemuEvent, QmpSocket

_T = TypeVar("_T")
_LOOK_S = 0.02


class QemuControl(Protocol):
    """See QmpSocket, which is one."""

    def execute(self, command: str, wait_s: float = ANSWER_S, **arguments: Any) -> Any: ...

    def send(self, command: str, **arguments: Any) -> int: ...

    def answer(self, number: int, wait_s: float = ANSWER_S) -> Any: ...

    def wait(self, number: int, wait_s: float) -> bool: ...

    def refusal(self, number: int) -> str: ...

    def event(self, kind: str, since_real_ns: int) -> QemuEvent | None: ...

    @property
    def ended(self) -> bool: ...

    def close(self) -> None: ...


class LibvirtControl:
    """Control through libvirt. A command is executed when it is sent, because libvirt waits for its
    answer."""

    def __init__(self, domain: Any, uuid: str, guest: str, events: EventLog) -> None:
        self._domain, self._uuid, self._guest, self._log = domain, uuid, guest, events
        self._results: list[Any] = []

    def execute(self, command: str, wait_s: float = ANSWER_S, **arguments: Any) -> Any:
        try:
            return within(
                wait_s,
                lambda: libvirt_qmp.execute(self._domain, command, **arguments),
                f"QMP {command}",
                self._guest,
            )
        except HypervisorError as error:
            raise MonitorError(error.what) from error

    def send(self, command: str, **arguments: Any) -> int:
        self._results.append(self.execute(command, **arguments))
        return len(self._results) - 1

    def answer(self, number: int, wait_s: float = ANSWER_S) -> Any:  # noqa: ARG002 - QemuControl's
        return self._results[number]

    def wait(self, number: int, wait_s: float) -> bool:  # noqa: ARG002 - QemuControl's
        return True

    def refusal(self, number: int) -> str:  # noqa: ARG002 - QemuControl's
        return ""

    @property
    def ended(self) -> bool:
        return any(event.ends_guest for event in self._log.lifecycle(self._uuid))

    def event(self, kind: str, since_real_ns: int) -> QemuEvent | None:
        return self._log.qemu_since(self._uuid, kind, since_real_ns)

    def close(self) -> None:
        return None


def wait_for(
    controls: Sequence[QemuControl], look: Callable[[], _T | None], wait_s: float, log: EventLog
) -> _T | None:
    """Call `look` when one of these processes has said something, and at least every 20 ms, until it returns
    something. None after `wait_s` seconds. log: the events of libvirt's connection."""
    sockets = [control for control in controls if isinstance(control, QmpSocket)]
    if len(sockets) < len(controls):
        return log.wait_until(look, wait_s)
    end = time.monotonic() + wait_s
    while (found := look()) is None:
        left = end - time.monotonic()
        if left <= 0:
            return None
        sockets = [each for each in sockets if not each.ended]
        for each in select.select(sockets, [], [], min(left, _LOOK_S))[0]:
            each.drain()
    return found
