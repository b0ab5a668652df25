"""A source that has to come out of a migration: every status that a QEMU has, and monitors that hang."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from lab.errors import HypervisorError
from lab.hypervisor import migration
from lab.hypervisor.qmp import MonitorError, leave_migration
from lab.process.clock import HostClock

# query-qmp-schema of QEMU 11.1.3, MigrationStatus; 7.2.22 and 10.0.13 have a part of it.
STATUSES = (
    "none", "setup", "cancelling", "cancelled", "active", "postcopy-device", "postcopy-active",
    "postcopy-paused", "postcopy-recover-setup", "postcopy-recover", "completed", "failing", "failed", "colo",
    "pre-switchover", "device", "wait-unplug",
)  # fmt: skip


class Source:
    """Answers query-migrate with one status after another, the last one for ever."""

    def __init__(self, *statuses: str, cancellable: bool = True) -> None:
        self.statuses, self.cancellable = list(statuses), cancellable
        self.cancelled = 0

    def __call__(self, command: str) -> Any:
        if command == "migrate_cancel":
            self.cancelled += 1
            if not self.cancellable:
                raise HypervisorError("QMP migrate_cancel failed")
            return {}
        status = self.statuses[0]
        if len(self.statuses) > 1:
            self.statuses.pop(0)
        return {"status": status} if status else {}


def test_only_four_are_an_end() -> None:
    over = [status for status in STATUSES if migration.is_over(status)]
    assert over == ["none", "cancelled", "completed", "failed"]


@pytest.mark.parametrize("status", ["cancelling", "failing", "pre-switchover"])
def test_what_passes_is_waited_for(status: str) -> None:
    source = Source(status, status, "failed")
    migration.settle(source, "web-0", HostClock(), 5)
    assert source.statuses == ["failed"]
    assert source.cancelled == 0


@pytest.mark.parametrize(
    "status", ["setup", "active", "device", "postcopy-device", "wait-unplug", "added later"]
)
@pytest.mark.parametrize("cancellable", [True, False])
def test_what_goes_on_is_cancelled(status: str, cancellable: bool) -> None:
    source = Source(status, "cancelling", "cancelled", cancellable=cancellable)
    migration.settle(source, "web-0", HostClock(), 5)
    assert source.cancelled == 1


def test_a_source_that_was_never_asked_to_migrate() -> None:
    migration.settle(Source(""), "web-0", HostClock(), 5)


def test_what_does_not_end_is_not_waited_for_longer() -> None:
    with pytest.raises(HypervisorError, match="does not complete or cancel the migration"):
        migration.settle(Source("failing"), "web-0", HostClock(), 0.05)


def test_a_monitor_that_does_not_answer() -> None:
    never = threading.Event()
    try:
        with pytest.raises(HypervisorError, match="QMP query-migrate: QEMU's monitor does not answer"):
            migration.settle(lambda _command: never.wait(), "web-0", HostClock(), 0.05)
    finally:
        never.set()


def test_a_failure_comes_back_as_it_was() -> None:
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        migration.within(5, fail, "it", "web-0")


@pytest.mark.parametrize(
    ("states", "back"),
    [
        (["postcopy-device", "failing", "failed"], True),
        (["postcopy-device", "postcopy-active"], False),
        (["postcopy-paused"], False),
    ],
)
def test_a_guest_is_taken_back_by_its_source_or_lost(states: list[str], back: bool) -> None:
    source = Source(*states)
    assert migration.was_taken_back(lambda: source("query-migrate")["status"], 5) == back


class Monitor:
    """A source as the dead-man speaks to it."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def execute(self, command: str, wait_s: float = 0, **_arguments: Any) -> Any:
        del wait_s
        try:
            return self.source(command)
        except HypervisorError as error:
            raise MonitorError(error.what) from error

    def close(self) -> None: ...


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("cancellable", [True, False])
def test_the_dead_man_knows_the_same(status: str, cancellable: bool) -> None:
    source = Source(status, "failed", cancellable=cancellable)
    leave_migration(Monitor(source), 5)
    over = migration.is_over(status)
    assert source.cancelled == int(not over and status not in migration.PASSING)
    assert source.statuses == ["failed"]


def test_a_state_that_nobody_takes(tmp_path: Path) -> None:
    path = tmp_path / "in"
    with pytest.raises(FileNotFoundError):
        migration.send_state(path, b"state", 5)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(1)
        with pytest.raises(TimeoutError):
            migration.send_state(path, bytes(1 << 24), 0.1)
