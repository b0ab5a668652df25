"""libvirt's test driver, which needs nothing of the machine, the embedded driver without guests, and QEMU
processes without a guest."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.hypervisor import domains
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.connection import connect
from lab.hypervisor.deadman.messages import to_message
from lab.hypervisor.deadman.rescue import ResumePlan
from lab.hypervisor.domain import Accelerator, DomainSpec, render
from lab.process.clock import HostClock
from tests.driver.controllers import CONTROLLER, LATE_NS, DeadManProcess
from tests.driver.qemus import Qemu

CLOCK = HostClock()


@pytest.fixture
def home() -> Iterator[Path]:
    """A state folder with a path short enough for sockets, which pytest's own may not be."""
    path = Path(tempfile.mkdtemp(prefix="fl-"))
    yield path
    if (run := path / "libvirt" / "run").is_symlink():
        shutil.rmtree(run.resolve())
    shutil.rmtree(path)


@pytest.fixture
def lab(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LibvirtHypervisor]:
    """The adapter over test:///default, which has one running domain, `test`, not the lab's."""
    monkeypatch.setattr(domains, "render", lambda spec: render(spec).replace('type="qemu"', 'type="test"', 1))
    with connect("test:///default", home, clock=CLOCK) as opened:
        yield opened
        for known in opened.list_lab_domains():
            opened.destroy(known.guest)


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="fl-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Qemu]]:
    started: list[Qemu] = []

    def begin(name: str, *more: str, **how: Any) -> Qemu:
        started.append(Qemu(folder, name, *more, **how))
        return started[-1]

    yield begin
    for qemu in started:
        qemu.end()


@pytest.fixture
def qemu(start: Callable[..., Qemu]) -> Qemu:
    return start("web-0")


def spec_of(guest: str, home: Path, run: str = "r1") -> DomainSpec:
    return DomainSpec(
        guest=guest,
        run=run,
        home=home,
        memory_bytes=64 << 20,
        vcpus=1,
        accelerator=Accelerator.TCG,
        emulator=Path("/usr/bin/qemu-system-x86_64"),
        machine="q35",
        kernel=Path("/no/kernel"),
        cmdline="console=ttyS0",
        console_log=home / "console.log",
        ssh_port=22022,
    )


@pytest.fixture
def controller(folder: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], DeadManProcess]]]:
    started: list[subprocess.Popen[str]] = []

    def begin(
        rescue: ResumePlan, *pids: int, for_ns: int = LATE_NS, token: bool = False, taken: bool = False
    ) -> tuple[subprocess.Popen[str], DeadManProcess]:
        (folder / "events.jsonl").touch()
        asked = {"rescue": to_message(rescue), "pids": pids, "for_ns": for_ns, "token": token, "taken": taken}
        asked["history"] = str(folder / "events.jsonl")
        process = subprocess.Popen(
            [sys.executable, "-c", CONTROLLER, json.dumps(asked)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        pid, until_ns = map(int, process.stdout.readline().split())
        return process, DeadManProcess(pid, until_ns)

    yield begin
    for process in started:
        process.kill()
        process.communicate()
