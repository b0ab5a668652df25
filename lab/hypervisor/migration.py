"""What QEMU says of a migration (qapi/migration.json, MigrationStatus; 7.2 to 11.1), and asking it with a
limit: a source's monitor may answer nothing while its device state goes out to a successor that hangs."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from lab.core.units import NS_PER_MS, NS_PER_S
from lab.errors import HypervisorError
from lab.ports import Clock
from lab.threads import Worker

_T = TypeVar("_T")

Ask = Callable[..., Any]
"""A QMP command of one process, and its arguments by name, to what it returns."""

ENDED = frozenset({"none", "completed", "failed", "cancelled"})
"""Nothing goes on any more: `cont` is not refused for a migration's sake."""

PASSING = frozenset({"cancelling", "failing", "pre-switchover"})
"""QEMU leaves these by itself, within milliseconds. It refuses `cont` in `failing` (11.1)."""


def is_over(status: str) -> bool:
    """Whether a migration has come to its end. A status that a later QEMU adds is none."""
    return status in ENDED


def set_capabilities(ask: Ask, *names: str, on: bool = True) -> None:
    """What both ends of a migration have to agree on."""
    capabilities = [{"capability": name, "state": on} for name in names]
    ask("migrate-set-capabilities", capabilities=capabilities)


def send_state(path: Path, state: bytes, wait_s: float) -> None:
    """Give a device state to a process that waits for one at this socket (`migrate-incoming`), which may not
    have loaded it when this returns. OSError when it does not take it; TimeoutError when it takes nothing for
    `wait_s` seconds."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(wait_s)
        stream.connect(str(path))
        stream.sendall(state)


def settle(ask: Ask, guest: str, clock: Clock, within_s: float) -> None:
    """Have a source be done with its migration, whichever way it goes. ask: a QMP command without arguments
    to what it returns. HypervisorError when it is not done by then, or does not answer."""
    deadline = clock.now().raw_ns + round(within_s * NS_PER_S)

    def within_what_is_left(command: str) -> Any:
        left_ns = deadline - clock.now().raw_ns
        if left_ns <= 0:
            raise HypervisorError("its old process does not complete or cancel the migration", where=guest)
        return within(left_ns / NS_PER_S, lambda: ask(command), f"QMP {command}", guest)

    while not is_over(status := str(within_what_is_left("query-migrate").get("status", "none"))):
        if status not in PASSING:
            with contextlib.suppress(HypervisorError):  # it may be over by now
                within_what_is_left("migrate_cancel")
        clock.sleep_until(clock.now().raw_ns + NS_PER_MS)


def within(seconds: float, call: Callable[[], _T], what: str, guest: str) -> _T:
    """What a call comes back with. It is made by a thread, which is left behind when it takes too long:
    libvirt's calls into QEMU have no limit of their own. HypervisorError then."""
    outcome: list[Callable[[], _T]] = []

    def run() -> None:
        try:
            value = call()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
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
