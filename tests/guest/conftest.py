"""Real guests, few and shared: a fixture is a state that a guest is in.

The image is built through the program when it is not there. The lab's home is a folder of its own
with a short path, for the sockets below it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.controller import Controller, CycleGuest
from lab.core.findings import findings
from lab.core.history import SCHEMA, Host, RunEnded, RunStarted
from lab.core.judge import CycleResult, measure
from lab.core.plan import CycleSpec, Expectations, FreezeMethod, GuestSpec, HoldPatch, Plan, ResyncMechanism
from lab.core.units import NS_PER_S
from lab.core.verdict import Finding
from lab.guest.address import Address
from lab.guest.probe import GuestProbe
from lab.guest.wall_clock import wall_clock_page
from lab.host import patches
from lab.hypervisor import memory
from lab.hypervisor.accelerators import AcceleratorRequest, choose
from lab.hypervisor.adapter import LibvirtHypervisor
from lab.hypervisor.domain import Accelerator
from lab.ports import Freezing, Frozen, HostPatch, NullView, Resumed
from lab.process.clock import HostClock
from lab.process.pace import PACE, paced
from lab.record.journal import FileJournal, read_history
from lab.record.rebuild import observations_of
from lab.session.guests import Guests
from lab.session.images import images_for, proof_kernel
from tests.guest.without_a_run import SUSPEND, close_all, settings_for

FREEZELAB = [sys.executable, "-m", "lab.cli.main"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.guest)


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="fl-"))
    yield path
    close_all()
    remove_home(path)


def remove_home(path: Path) -> None:
    """A home and those in it (of pytest's sessions), and what is kept in memory for each: libvirt's run
    folder, linked from there, and guests' RAM."""
    for run in path.rglob("libvirt/run"):
        shutil.rmtree(run.resolve(), ignore_errors=True)
        shutil.rmtree(memory.folder(run.parents[1]), ignore_errors=True)
    shutil.rmtree(path)


@pytest.fixture(scope="session", autouse=True)
def accelerator(home: Path) -> Accelerator:
    """What guests run on here, found by a boot of the Debian image, which the program builds if it is not
    cached. The boot is measured: limits of tests are multiplied by it, as the program's are."""
    plan = Plan("image", "", "", (GuestSpec("web-0"),), ResyncMechanism.NONE, SUSPEND, Expectations())
    images = images_for(plan, lambda _stage, _fraction: None)
    kernel = proof_kernel(images.values(), lambda _stage, _part: None)
    return choose(AcceleratorRequest.AUTO, kernel, home).accelerator


@contextmanager
def no_shield() -> Iterator[None]:
    yield


@dataclass
class Lab:
    """One running guest, web-0, and what drives it."""

    hypervisor: LibvirtHypervisor
    subject: CycleGuest
    folder: Path
    clock: HostClock

    @property
    def probe(self) -> GuestProbe:
        assert isinstance(self.subject.probe, GuestProbe)
        return self.subject.probe

    @property
    def address(self) -> Address:
        address = self.probe.ssh.address
        assert isinstance(address, Address)
        return address

    def cycle(
        self,
        patch: HostPatch | None = None,
        *,
        frozen: bool = True,
        expect: Expectations | None = None,
        **spec: Any,
    ) -> tuple[CycleResult, list[Finding]]:
        """Run one cycle and judge it from its journal, as a run does."""
        wanted = replace(CycleSpec(FreezeMethod.SUSPEND, HoldPatch(3 * NS_PER_S)), **spec)
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        failure: BaseException | None = None
        with FileJournal(folder, self.clock) as journal:
            plan = Plan("shared", "", "", (), ResyncMechanism.AGENT, wanted, expect or Expectations())
            journal.append(RunStarted(SCHEMA, "shared", plan, Host()))
            controller = Controller(
                self.clock, self.hypervisor, journal, NullView(), no_shield, pace=PACE.factor
            )
            try:
                controller.run_cycle(
                    0,
                    {"web-0": self.subject},
                    wanted,
                    patch or patches.make(wanted.patch, self.clock),
                    frozen=frozen,
                )
            except BaseException as error:  # noqa: BLE001 - raised again below
                failure = error
            journal.append(RunEnded(interrupted=False, failure=""))
        if failure is not None:
            raise failure
        expect = expect or Expectations()
        result = measure(observations_of(read_history(folder))[0], ResyncMechanism.AGENT, expect)
        return result, findings(result, expect)

    def runs(self) -> bool:
        """Whether the guest runs, by libvirt, which hears of a resume by an event: later on a busy host."""
        end = time.monotonic() + 10
        while self.hypervisor.state("web-0") != "running" and time.monotonic() < end:
            time.sleep(0.05)
        return self.hypervisor.state("web-0") == "running"

    def decided_cycle(self, **spec: Any) -> tuple[CycleResult, list[Finding]]:
        """A cycle; made again, twice at most, while a busy host leaves its regime undecided."""
        for _ in range(3):
            result, found = self.cycle(**spec)
            if result.pause is not None and result.pause.regime is not None:
                break
        return result, found


@contextmanager
def running_lab(home: Path, spec: GuestSpec, **settings: Any) -> Iterator[Lab]:
    """A guest in time, with a probe in it, resynchronised by its agent, that begins with the golden guest's
    state. settings: more of Settings."""
    clock = HostClock()
    settings = {"golden": True, **settings}
    with (
        settings_for(home, "shared", [spec], ResyncMechanism.AGENT, clock, **settings) as (
            hypervisor,
            made,
            plan,
        ),
        FileJournal(made.folder, clock) as journal,
        Guests(hypervisor, made, clock, NullView(), journal) as guests,
    ):
        subjects = guests.up(plan.parts[0])
        yield Lab(hypervisor, subjects["web-0"], made.folder, clock)


TRUSTS_TSC = ("tsc=nowatchdog",)
"""For a kernel that keeps its TSC. On a busy host one late reading is enough for the watchdog to replace it
by acpi_pm, whose clocks stand still after a stop of more than 2.3 s; CI has seen it."""


@pytest.fixture(scope="module")
def lab(home: Path) -> Iterator[Lab]:
    with running_lab(home, GuestSpec("web-0", kernel_options=TRUSTS_TSC)) as made:
        yield made


@pytest.fixture(scope="module")
def shared(home: Path) -> Iterator[Lab]:
    """The same with its RAM in a file, which another QEMU can take over."""
    spec = GuestSpec("web-0", vcpus=2, kernel_options=TRUSTS_TSC)
    with running_lab(home, spec, shared_memory=True, golden=False) as made:
        made.hypervisor.wall_clocks["web-0"] = wall_clock_page(made.probe.ssh)  # on KVM: for proofs
        yield made


IN_PLACE = Freezing(FreezeMethod.IN_PLACE)


@pytest.fixture
def quiet(shared: Lab) -> Iterator[None]:
    """After the test the shared guest runs, and nothing of an exchange is left."""
    yield
    shared.hypervisor.on_step(lambda _guest, _step: None)
    if shared.hypervisor.state("web-0") != "shut off":
        shared.hypervisor.resume("web-0", IN_PLACE)
    shared.hypervisor.finish("web-0")


def hand_over(
    lab: Lab, freezing: Freezing = IN_PLACE, budget_ns: int = 30 * NS_PER_S
) -> tuple[Frozen, Resumed]:
    lab.hypervisor.prepare("web-0", freezing)
    frozen = lab.hypervisor.freeze("web-0", freezing, lab.clock.now().raw_ns + budget_ns)
    resumed = lab.hypervisor.resume("web-0", freezing)
    lab.hypervisor.finish("web-0")
    return frozen, resumed


@dataclass
class Cli:
    """The command as a person starts it, in a home of its own."""

    home: Path
    process: subprocess.Popen[str] | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "FREEZELAB_HOME": str(self.home), "NO_COLOR": "1"}

    def __call__(self, *arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*FREEZELAB, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=paced(timeout),
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [*FREEZELAB, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    def journal(self) -> str:
        """All events of the only run here, as text."""
        return "".join(p.read_text() for p in self.home.glob("runs/*/events.jsonl"))

    def qemu(self) -> list[psutil.Process]:
        """QEMU processes of this home."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if (
                words
                and Path(words[0]).name.startswith("qemu-")
                and any(str(self.home) in word for word in words)
            ):
                found.append(process)
        return found

    def left(self) -> list[Path]:
        """Files of guests that are still there."""
        return [p for name in ("guests", "agents") for p in (self.home / name).glob("*")]


@pytest.fixture
def cli(home: Path) -> Iterator[Cli]:
    """The command in a fresh home; whatever it left running is ended. What libvirt knows of QEMU, which takes
    it seconds to find out, is that of the tests' own home, and so is what is known of KVM."""
    path = Path(tempfile.mkdtemp(prefix="fl-"))
    with suppress(FileNotFoundError):  # without a /dev/kvm nothing is measured
        shutil.copy(home / "accelerator.json", path)
    (home / "libvirt" / "cache").mkdir(parents=True, exist_ok=True)
    (path / "libvirt").mkdir()
    (path / "libvirt" / "cache").symlink_to(home / "libvirt" / "cache")
    made = Cli(path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait()
    for process in made.qemu():
        process.kill()
    remove_home(path)


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any], float], Any]:
    """Wait until something holds."""

    def wait(holds: Callable[[], Any], seconds: float = 200) -> Any:
        end = time.monotonic() + paced(seconds)
        while not (value := holds()):
            if time.monotonic() > end:
                raise AssertionError("it did not come true in time")
            time.sleep(0.05)
        return value

    return wait


def processes(home: Path) -> dict[int, bool]:
    """The home's QEMU processes, and whether each was started as a successor."""
    found = {}
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if words and Path(words[0]).name.startswith("qemu-") and any(f"{home}/" in word for word in words):
            found[process.pid] = "-incoming" in words
    return found


def disk_is_sound(disk: Path) -> None:
    """qemu-img finds the image consistent, and e2fsck the file system in it, which the guest has to have
    closed or remounted read-only."""
    subprocess.run(["qemu-img", "check", "-U", str(disk)], check=True, capture_output=True)
    raw = disk.with_suffix(".raw")
    try:
        subprocess.run(
            ["qemu-img", "convert", "-U", "-O", "raw", str(disk), str(raw)], check=True, capture_output=True
        )
        done = subprocess.run(["e2fsck", "-fp", str(raw)], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        raw.unlink(missing_ok=True)
