"""QEMU's monitor, as the lab uses it, on real processes that run their firmware and no guest."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.hypervisor.freeze.cold import Keeper
from lab.hypervisor.migration import send_state, set_capabilities
from lab.hypervisor.qmp import MonitorError, QmpSocket, status, take_port
from tests.driver.qemus import PATIENCE_S, Qemu, until


def test_a_monitor_says_what_is_wrong(qemu: Qemu, folder: Path) -> None:
    with pytest.raises(MonitorError, match="QMP nonsense: The command nonsense has not been found"):
        qemu.monitor.execute("nonsense")
    with pytest.raises(MonitorError, match="cannot be reached"):
        QmpSocket(folder / "nowhere", 0.2)
    qemu.process.send_signal(signal.SIGSTOP)
    with pytest.raises(MonitorError, match="no answer"):
        qemu.monitor.execute("query-status", 0.2)
    qemu.process.send_signal(signal.SIGCONT)
    with QmpSocket(qemu.path) as other:
        assert status(other) == "running"
    qemu.process.kill()
    with pytest.raises(MonitorError):
        until(lambda: qemu.monitor.execute("query-status") is None)


def test_a_state_that_was_taken_into_bytes_goes_into_a_process_that_waits(
    folder: Path, start: Callable[..., Qemu]
) -> None:
    old, new = start("web-0"), start("web-1", "-incoming", "defer")
    until(old.is_running)
    old.monitor.execute("stop")
    for qemu in (old, new):
        set_capabilities(qemu.monitor.execute, "x-ignore-shared")
    keeper = Keeper(folder / "out")
    try:
        old.monitor.execute("migrate", uri=f"unix:{folder}/out")
        state = keeper.take(PATIENCE_S)
    finally:
        keeper.close()
    new.monitor.execute("migrate-incoming", uri=f"unix:{folder}/in")
    assert status(new.monitor) == "inmigrate"
    send_state(folder / "in", state, PATIENCE_S)
    until(lambda: status(new.monitor) == "paused")
    new.monitor.execute("cont")
    until(new.is_running)


def test_a_port_is_taken_by_a_network_and_not_by_two(start: Callable[..., Qemu]) -> None:
    network = ("-netdev", "user,id=lab0", "-device", "virtio-net-pci,netdev=lab0,romfile=")
    one, other = start("web-0", *network), start("web-1", *network)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert take_port(one.monitor.execute, port) == ""
    socket.create_connection(("127.0.0.1", port), PATIENCE_S).close()
    assert f"{port}" in take_port(other.monitor.execute, port)
