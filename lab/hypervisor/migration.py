"""The states of a QEMU migration (QEMU, qapi/migration.json, MigrationStatus; 7.2 to 11.1), and queries with
a time limit: a source's monitor may not answer while its device state is sent to a hanging successor."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import HypervisorError
from lab.ports import Clock
from lab.threads import Worker

_T = TypeVar("_T")

Ask = Callable[..., Any]
"""Runs a QMP command, with arguments by name, in one process and returns its result."""

ENDED = frozenset({"none", "completed", "failed", "cancelled"})
"""States in which no migration is active and QEMU does not refuse `cont` because of one."""

ACTIVE = frozenset(
    {
        *("setup", "wait-unplug", "active", "device", "colo"),
        *("postcopy-active", "postcopy-paused", "postcopy-recover"),
        "postcopy-recover-setup",  # 10.0
        "postcopy-device",  # 10.2
    }
)
"""States of a migration that goes on, or waits for somebody."""

PASSING = frozenset({"cancelling", "failing", "pre-switchover"})
"""States that QEMU leaves by itself within milliseconds. It refuses `cont` in `failing` (11.1)."""

LOADING = "postcopy-device"
"""The successor in post-copy still loads the devices' state. If it ends now, the source takes the guest back
(QEMU 10.2 and later; seen with 11.1.3). Earlier versions have no such state, and the guest is lost."""


def is_post_copy(status: str) -> bool:
    """Whether the guest has been moved before all of its memory was, or is just being moved so."""
    return status.startswith("postcopy-")


def was_taken_back(ask_status: Callable[[], str], within_s: float) -> bool:
    """Whether the source takes the guest back whose successor has ended in LOADING; waits for it, at most
    `within_s` seconds. ask_status: returns the source's state."""
    end = time.monotonic() + within_s
    while (status := ask_status()) in (LOADING, "failing") and time.monotonic() < end:
        time.sleep(0.001)
    return status == "failed"


def is_over(status: str) -> bool:
    """Whether a migration has ended. Unknown states of later QEMU versions count as not ended."""
    return status in ENDED


def set_capabilities(ask: Ask, *names: str, on: bool = True) -> None:
    """Set migration capabilities, which must be the same at both ends."""
    capabilities = [{"capability": name, "state": on} for name in names]
    ask("migrate-set-capabilities", capabilities=capabilities)


def send_state(path: Path, state: bytes, wait_s: float) -> None:
    """Send a device state to a process that waits for one at this socket (`migrate-incoming`). The process
    may not have loaded it when this returns. OSError when the process does not accept it; TimeoutError when
    it reads nothing for `wait_s` seconds."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(wait_s)
        stream.connect(str(path))
        stream.sendall(state)


def settle(ask: Ask, guest: str, clock: Clock, within_s: float) -> None:
    """Wait until a source's migration has completed, or cancel it. ask: runs a QMP command without arguments
    and returns its result. HypervisorError when it has not ended within `within_s` seconds, or QEMU does not
    answer."""
    deadline = clock.now().raw_ns + round(within_s * NS_PER_S)

    def within_what_is_left(command: str) -> Any:
        left_ns = deadline - clock.now().raw_ns
        if left_ns <= 0:
            raise HypervisorError("its old process does not complete or cancel the migration", where=guest)
        return within(left_ns / NS_PER_S, lambda: ask(command), f"QMP {command}", guest)

    while not is_over(status := str(within_what_is_left("query-migrate").get("status", "none"))):
        if status not in PASSING:
            with contextlib.suppress(HypervisorError):  # it may have ended by now
                within_what_is_left("migrate_cancel")
        clock.sleep_until(clock.now().raw_ns + NS_PER_MS)


def within(seconds: float, call: Callable[[], _T], what: str, guest: str) -> _T:
    """Return the result of a call that is made in a thread, because libvirt's calls into QEMU have no time
    limit. HypervisorError when it takes longer than `seconds`; the thread is abandoned then."""
    outcome: list[Callable[[], _T]] = []

    def run() -> None:
        try:
            value = call()
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
            failure = error

            def fail() -> _T:
                raise failure

            outcome.append(fail)
        else:
            outcome.append(lambda: value)

    worker = Worker(target=run, name=f"ask-{guest}", daemon=True)
    worker.start()
    worker.join(seconds)
    if not outcome:
        raise HypervisorError(f"{what}: QEMU's monitor does not answer", where=guest)
    return outcome[0]()
