"""in-place on a real guest: it goes over, it comes back when anything fails, and only one of the two runs."""

from __future__ import annotations

import itertools
import os
import re
import signal
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.core.plan import FreezeMethod, HoldPatch, Regime, ResyncMechanism
from lab.core.units import NS_PER_S
from lab.core.verdict import Outcome
from lab.errors import FreezelabError, HypervisorError, Interrupted, Refused
from lab.guest import timesync
from lab.host import patches
from lab.hypervisor import memory
from lab.ports import Freezing, Successor
from tests.guest.conftest import IN_PLACE, Lab, disk_is_sound, hand_over, processes

pytestmark = pytest.mark.usefixtures("quiet")

AT_ONCE = replace(IN_PLACE, at_once=True)
SHORT: dict[str, Any] = {"settle_ns": NS_PER_S // 2, "before_ns": 2 * NS_PER_S, "watch_ns": 6 * NS_PER_S}
STEPS = ("suspend", "state out", "state in", "resume")


def ram_of(home: Path) -> Path:
    (path,) = memory.folder(home).iterdir()
    return path


def machine_uuid(lab: Lab) -> str:
    """As the guest's firmware tells it."""
    return lab.probe.ssh.check("cat /sys/class/dmi/id/product_uuid").strip()


def test_a_guest_goes_over_and_never_notices_but_for_the_pause(shared: Lab, home: Path) -> None:
    (old,) = processes(home)
    machine = machine_uuid(shared)
    patch = patches.make(HoldPatch(NS_PER_S), shared.clock)
    result, found = shared.cycle(patch, method=FreezeMethod.IN_PLACE, **SHORT)
    (new,) = processes(home)
    assert new != old
    pause = result.pause
    assert pause is not None
    assert pause.closes, pause
    assert pause.regime is Regime.RESUMED, pause
    assert pause.pause.low_ns >= NS_PER_S
    assert result.boot_id_unchanged
    assert {f.outcome for f in found} == {Outcome.PASSED}, found
    # Its domain is another one, its machine is not.
    domain = shared.hypervisor.spec("web-0")
    assert domain is not None
    assert domain.uuid != domain.machine_uuid == machine_uuid(shared) == machine
    # Both ways to the probe lead through the new process.
    resume = result.observation.resume
    assert resume is not None
    late = [r for r in result.observation.readings if r.t1.raw_ns >= resume.returned.raw_ns]
    assert {r.channel for r in late} == {"ssh", "serial"}
    # The agent of the guest is spoken to through the new process.
    assert result.final is not None and result.at_resume is not None
    assert result.final.largest_ns < result.at_resume.smallest_ns


def test_its_clock_is_pushed_at_once_though_its_network_is_cut(shared: Lab) -> None:
    """Over virtio-serial, whose other end the guest never misses: in the successor, and in the old process
    when the freeze is called off."""
    access = timesync.GuestAccess(
        "web-0",
        lambda: shared.probe.ssh,
        shared.clock,
        push_sockets=lambda: shared.hypervisor.push_sockets("web-0"),
    )
    resync = timesync.install(ResyncMechanism.PUSH, access)
    before, shared.subject = shared.subject, replace(shared.subject, resync=resync)

    def fail(_guest: str, step: str) -> None:
        if step == "state in":
            raise HypervisorError("for the test")

    try:
        for called_off in (False, True, False):
            shared.hypervisor.on_step(fail if called_off else lambda _guest, _step: None)
            patch = patches.make(HoldPatch(NS_PER_S // 10), shared.clock)
            result, _ = shared.cycle(patch, method=FreezeMethod.IN_PLACE, **SHORT)
            assert bool(result.observation.called_off) is called_off
            assert re.search(r"pushed \+.* over virtio-serial, left", resync.outcome()), resync.outcome()
            assert result.forecast is not None and "over virtio-serial" in result.forecast.text
            assert result.resync is not None
            assert result.resync.time is not None and result.resync.time.low_ns < NS_PER_S
            assert result.resync.backward_steps == 0
    finally:
        shared.subject = before
        resync.remove()
    assert not shared.probe.ssh.run("pgrep -f adjtimex").out.strip()


def test_memory_is_the_same_page_by_page(shared: Lab, home: Path) -> None:
    _frozen, resumed = hand_over(shared, Freezing(FreezeMethod.IN_PLACE, prove_memory=True))
    proof = resumed.proof
    assert proof is not None
    assert proof.pages * proof.page_bytes == 512 << 20
    assert 0 < proof.held <= proof.pages
    assert proof.differ == 0
    assert proof.before == proof.after
    assert len(processes(home)) == 1


def test_all_of_its_memory_is_there(shared: Lab, home: Path) -> None:
    """Whoever fills the RAM file system while the guest is frozen takes nothing from it."""
    facts = ram_of(home).stat()
    assert facts.st_blocks * 512 >= facts.st_size == 512 << 20


def test_the_proof_sees_a_single_changed_page(shared: Lab, home: Path) -> None:
    """A byte of RAM changed under the exchange: it is called off, and the page is named."""
    ram = ram_of(home)

    def spoil(_guest: str, step: str) -> None:
        if step in ("state out", "go back"):  # and put back before the guest runs on
            with ram.open("r+b") as file:
                file.seek(spoilt * memory.PAGE)
                byte = file.read(1)
                file.seek(spoilt * memory.PAGE)
                file.write(bytes([byte[0] ^ 0xFF]))

    spoilt = 100_000
    shared.hypervisor.on_step(spoil)
    frozen, resumed = hand_over(shared, Freezing(FreezeMethod.IN_PLACE, prove_memory=True))
    assert "1 pages of its RAM have changed" in frozen.why
    assert resumed.proof is not None
    assert resumed.proof.differing == (spoilt,)
    assert shared.probe.read().round_trip_ns > 0


def kill(process: psutil.Process) -> None:
    process.kill()


def hang(process: psutil.Process) -> None:
    process.send_signal(signal.SIGSTOP)


def interrupt(_process: psutil.Process) -> None:
    raise Interrupted("interrupted")


def die_late(process: psutil.Process) -> None:
    """When it has been told to run, and before it has read its state."""
    hang(process)

    def kill_it() -> None:
        with suppress(psutil.NoSuchProcess):  # the lab was quicker
            process.kill()

    threading.Timer(0.3, kill_it).start()


@pytest.mark.parametrize(
    ("at", "fault", "freezing"),
    [
        *itertools.product(STEPS, (kill, hang, interrupt), (IN_PLACE,)),
        *itertools.product(("suspend", "state out", "resume"), (kill, hang, interrupt, die_late), (AT_ONCE,)),
    ],
)
def test_it_goes_back_from_every_step(
    shared: Lab, home: Path, at: str, fault: Callable[[psutil.Process], None], freezing: Freezing
) -> None:
    (old,) = processes(home)
    boot = shared.probe.facts().boot_id
    digests: dict[str, str] = {}
    digesting = 0

    def inject(_guest: str, step: str) -> None:
        nonlocal digesting
        if step in (at, "go back") and step != "suspend":  # it runs then
            began = shared.clock.now().raw_ns
            digests[step] = memory.take(ram_of(home)).total()
            digesting += shared.clock.now().raw_ns - began
        if step == at:
            (successor,) = set(processes(home)) - {old}
            fault(psutil.Process(successor))

    shared.hypervisor.on_step(inject)
    budget = 6 * NS_PER_S
    why = ""
    try:
        frozen, resumed = hand_over(shared, freezing, budget)
        why = frozen.why or resumed.why
        end = (frozen.back or resumed.call).returned.raw_ns
        assert end - frozen.call.called.raw_ns - digesting <= budget
    except Interrupted:
        shared.hypervisor.on_step(lambda _guest, _step: None)
        why = shared.hypervisor.resume("web-0", IN_PLACE).why
        shared.hypervisor.finish("web-0")
        assert fault is interrupt
    assert at == "suspend" or "put back" in why
    assert set(processes(home)) == {old}
    assert shared.runs()
    assert shared.probe.facts().boot_id == boot
    assert len(set(digests.values())) <= 1
    assert len(shared.hypervisor.list_lab_domains()) == 1


@pytest.mark.parametrize("freezing", [IN_PLACE, AT_ONCE])
def test_after_it_went_back_it_can_go_over(shared: Lab, home: Path, freezing: Freezing) -> None:
    (old,) = processes(home)
    _frozen, resumed = hand_over(shared, freezing)
    assert not resumed.why
    assert old not in processes(home)
    assert shared.probe.read().round_trip_ns > 0


def test_the_guard_interrupts_a_hand_over_that_hangs(shared: Lab, home: Path) -> None:
    (old,) = processes(home)

    def stop(_guest: str, step: str) -> None:
        if step == "suspend":
            (successor,) = set(processes(home)) - {old}
            hang(psutil.Process(successor))

    shared.hypervisor.on_step(stop)
    shared.hypervisor.prepare("web-0", IN_PLACE)
    now = shared.clock.now().raw_ns
    with shared.hypervisor.guard(["web-0"], IN_PLACE, now + NS_PER_S, now + 2 * NS_PER_S, 0) as guard:
        frozen = shared.hypervisor.freeze("web-0", IN_PLACE, now + 60 * NS_PER_S)
        assert guard.resumed("web-0") is not None
    assert frozen.back is not None
    assert "budget is nearly used" in frozen.why
    assert set(processes(home)) == {old}


@pytest.mark.parametrize(
    ("successor", "says"),
    [
        (Successor(machine="pc-i440fx-7.2"), "another machine type: pc-i440fx-7.2"),
        (Successor(cpu="Nehalem"), "another CPU model: Nehalem instead of EPYC"),
        (Successor(emulator="/nowhere/qemu-system-x86_64"), "no emulator /nowhere/qemu-system-x86_64"),
        (Successor(emulator="/bin/true"), "/bin/true cannot run it as pc-q35-"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_stopped(
    shared: Lab, home: Path, successor: Successor, says: str
) -> None:
    before = processes(home)
    with pytest.raises(FreezelabError, match=says):
        shared.hypervisor.prepare("web-0", Freezing(FreezeMethod.IN_PLACE, successor))
    assert processes(home) == before
    assert shared.runs()


def test_a_disk_that_somebody_else_has_is_told(shared: Lab, home: Path) -> None:
    (disk,) = (home / "guests").glob("*/web-0/disk.qcow2")
    (mine,) = [spec for spec in [shared.hypervisor.spec("web-0")] if spec is not None]
    other = replace(
        mine,
        guest="web-1",
        memory_file=None,
        ssh_port=None,
        uuid=str(uuid.uuid4()),
        agent_socket=None,
        probe_socket=None,
    )
    assert other.disk is not None and other.disk.path == disk
    with pytest.raises(HypervisorError, match="its disk image is in use by another program"):
        shared.hypervisor.define_and_start(other)
    assert len(processes(home)) == 1


def test_save_restore_is_refused_for_ram_in_a_file(shared: Lab) -> None:
    with pytest.raises(Refused, match="its RAM is in a file"):
        shared.hypervisor.prepare("web-0", Freezing(FreezeMethod.SAVE_RESTORE))


def test_sleep_is_refused_for_a_machine_without_it(shared: Lab) -> None:
    with pytest.raises(Refused, match="without S3"):
        shared.hypervisor.prepare("web-0", Freezing(FreezeMethod.GUEST_SLEEP))


def test_ram_that_does_not_fit_is_told_before_anything_is_started(home: Path, tmp_path: Path) -> None:
    free = os.statvfs(memory.SHM)
    with pytest.raises(FreezelabError, match=r"the file system for RAM has .* free, but the guests' RAM is"):
        memory.check_room(memory.folder(home), free.f_bavail * free.f_frsize)


def test_nothing_is_left_and_the_disk_is_sound(shared: Lab, home: Path) -> None:
    """The last one: the guest is shut down."""
    assert len(processes(home)) == 1
    assert len(list(memory.folder(home).iterdir())) == 1
    assert not list((home / "agents").glob("*.state"))
    shared.probe.ssh.check("dd if=/dev/urandom of=/root/mark bs=4k count=64 conv=fsync 2>/dev/null; sync")
    with pytest.raises(HypervisorError, match="did not power"):
        shared.hypervisor.shutdown("web-0", shared.clock.now().raw_ns)
    shared.hypervisor.shutdown("web-0", shared.clock.now().raw_ns + 60 * NS_PER_S)
    assert not processes(home)
    (disk,) = (home / "guests").glob("*/web-0/disk.qcow2")
    disk_is_sound(disk)
